"""Groups to score without a run: those that a run recorded, and made-up ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from rlcore.errors import DataError
from rlcore.records.files import numbered_rows
from rlcore.types import Completion, Group, Prompt

_NEEDED = ("step", "split", "prompt", "sample", "text", "tokens", "finish_reason", "policy_version")
_ANSWERS = (
    "The voice is high and fast, so the speaker sounds angry.",
    "<think>The pitch is low and the rate is slow.</think><answer>sad</answer>",
    "<think>Loud, fast and rising.</think>\n<answer>happy</answer>",
    "sad",
    "I do not know.",
    "so so so so so so so so",
    "The voice is calm. " * 12,
    '{"answer": "neutral", "confidence": 0.5}',
)


class SampleRow(TypedDict):
    """A line of a run's samples.jsonl, as far as it is read here; `media` and `reference` may be missing."""

    step: int
    split: str
    prompt: str
    """`Prompt.id`."""
    sample: int
    """Index of the completion in its group."""
    text: str
    tokens: int
    """Number of the completion's tokens."""
    finish_reason: str
    policy_version: int
    media: Mapping[str, Any]
    reference: Mapping[str, Any]


def read_groups(
    path: str | Path, *, limit: int | None = None, split: str | None = None
) -> list[tuple[SampleRow, Group]]:
    """Reads the groups of a samples.jsonl, in its order, each with the row of its first completion.

    A sample's text, length, media and reference are as in the run. The prompt's text, token ids and their
    log-probabilities are not recorded: they read as an empty text and as zeros.

    Args:
        limit: groups to read; None for all.
        split: groups of this split alone, `train` or `eval`; None for both.

    Raises:
        DataError: no such file, or a line that is no sample.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; name the samples.jsonl of a run")
    groups: dict[tuple[int, str, str, int], list[SampleRow]] = {}
    for number, row in numbered_rows(path, "a JSON object", leave_out_cut=True):
        if missing := [name for name in _NEEDED if name not in row]:
            raise DataError(f"{path}:{number}: no sample of a run, it lacks {missing}")
        if split not in (None, row["split"]):
            continue
        key = (row["step"], row["split"], row["prompt"], row["policy_version"])
        if key not in groups and limit is not None and len(groups) == limit:
            break
        groups.setdefault(key, []).append(cast(SampleRow, row))
    return [(rows[0], _group(rows)) for rows in groups.values()]


def recorded_groups(path: str | Path, *, limit: int) -> list[Group]:
    """Reads groups of a samples.jsonl that a reward can be tried on: those of the training, of K completions.

    An evaluation asks for one answer a prompt: nothing in such a group could be compared.

    Raises:
        DataError: no such file, a line that is no sample, or no group of the training.
    """
    groups = [group for _, group in read_groups(path, limit=limit, split="train")]
    if not groups:
        raise DataError(
            f"{path}: it holds no samples of the training, whose groups have several completions a prompt; "
            "name the samples.jsonl of a run that has made a step"
        )
    return groups


def asked_groups(prompts: Sequence[Prompt], *, limit: int) -> list[Group]:
    """Makes up answers to a task's prompts: groups with the prompts' own media and references.

    Args:
        limit: prompts to take, evenly spread.

    Raises:
        DataError: there are no prompts.
    """
    if not prompts:
        raise DataError("task: it has no prompts of the split train")
    count = min(limit, len(prompts))
    return [_answered(prompts[i * len(prompts) // count], i) for i in range(count)]


def generated_groups(reference: Mapping[str, object], num_groups: int = 6) -> list[Group]:
    """Makes up groups: prompts without media, answered in many ways.

    Args:
        reference: the reference of every prompt.
    """
    prompts = [
        Prompt(id=f"generated-{i}", text="What does the voice express?", reference=reference)
        for i in range(num_groups)
    ]
    return [_answered(prompt, i) for i, prompt in enumerate(prompts)]


def _answered(prompt: Prompt, turn: int) -> Group:
    """All made-up answers to a prompt, beginning with another one each turn."""
    answers = (_ANSWERS[(turn + k) % len(_ANSWERS)] for k in range(len(_ANSWERS)))
    return Group(prompt=prompt, prompt_token_ids=(0,), completions=tuple(map(completion_of, answers)))


def completion_of(text: str, num_tokens: int | None = None, finish_reason: str = "stop") -> Completion:
    """Makes a completion of which only the text is known.

    Its tokens are zeros, as many as the text has words unless `num_tokens` says otherwise.
    """
    count = len(text.split()) if num_tokens is None else num_tokens
    return Completion(
        token_ids=(0,) * count,
        logprobs=(0.0,) * count,
        text=text,
        finish_reason=finish_reason,
        policy_version=0,
    )


def _group(rows: Sequence[SampleRow]) -> Group:
    first = rows[0]
    prompt = Prompt(
        id=first["prompt"], text="", media=first.get("media", {}), reference=first.get("reference", {})
    )
    completions = tuple(completion_of(row["text"], row["tokens"], row["finish_reason"]) for row in rows)
    return Group(prompt=prompt, prompt_token_ids=(), completions=completions)
