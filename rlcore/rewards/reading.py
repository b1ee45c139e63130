"""Tries rewards on perfect answers before a run: would they be read as such, once a model writes them?

    perfect answer -> tokens -> text, with the tag that the chat template opened -> rewards by rule

A tokenizer that drops tags, a chat template that has closed them, or a reward with another schema gives 0 to
every answer for ever. This module knows what a task and rewards say; it starts no engine and no actor.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from unicodedata import normalize

from rlcore.config import RewardConfig, RolloutConfig, RunConfig
from rlcore.config.targets import load_target
from rlcore.errors import ConfigError
from rlcore.models.tokens import left_to_write, read_back, until_stop
from rlcore.rewards.loading import build_reward, resolve_target
from rlcore.rewards.protocol import Reward
from rlcore.task import KnowsAnswers
from rlcore.types import Completion, Group, Prompt, RewardContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NUM_TRIED = 16
"""Prompts whose perfect answers are tried, evenly spread."""
_TAG = re.compile(r"</?\w+>")
_CLOSED = re.compile(r"<(\w+)>\s*</\1>\s*\Z")
"""An empty pair of tags at a prompt's end."""
_OPENED = re.compile(r"<\w+>\s*")


def check_reading(config: RunConfig, task: object, prompts: Sequence[Prompt]) -> None:
    """Checks that rewards by rule would read the task's perfect answers as such, once a model writes them. A
    task that knows none (`rlcore.task.KnowsAnswers`) is passed over.

    Args:
        prompts: of the training split.

    Raises:
        ConfigError: they would not. Names what does not fit (the chat template, the tokenizer, settings of
            the rollout, a reward) and what to change.
    """
    if not isinstance(task, KnowsAnswers) or not prompts:
        return
    from rlcore.models.hf_model import load_processor, tokenizer_of

    path = config.model.path
    tokenizer = tokenizer_of(load_processor(path))
    found = [(p, task.perfect_answer(p)) for p in prompts[:: -(-len(prompts) // _NUM_TRIED)]]
    known = [(prompt, answer) for prompt, answer in found if answer is not None]
    if not known:
        return
    tried, answers = [prompt for prompt, _ in known], [answer for _, answer in known]
    read = []
    for prompt, answer in zip(tried, answers, strict=True):
        _check_template(path, tokenizer, prompt.text, answer)
        text = read_back(tokenizer, prompt.text, answer)
        if _words(text) != _words(answer):
            raise ConfigError(
                f"model.path: the tokenizer of {path} loses part of what a model writes: the task's perfect "
                f"answer {answer!r} would be read as {text!r}. Tags must be plain text, ordinary tokens, or "
                "special tokens in pairs (<think> and </think>) that are not also the end of a sequence; "
                "blanks and line breaks must outlast decoding (decoder of tokenizer.json)"
            )
        _check_rollout(config.rollout, tokenizer, left_to_write(prompt.text, answer))
        read.append(until_stop(text, config.rollout.stop))
    for name, reward in rules_of(config.rewards):
        _check_reward(name, reward, answered(tried, answers), answered(tried, read))


def _check_template(path: str, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> None:
    """Refuses a template that writes more of the answer than the tag that it begins with: rewards read the
    model's part, and that tag alone is put back in front of it (`rlcore.models.tokens.opened_tag`)."""
    begun = _begun(tokenizer, prompt, answer)
    if not begun or (_OPENED.fullmatch(begun) and answer.lstrip().startswith(begun.rstrip())):
        return
    first = _TAG.search(answer)
    assert first is not None, answer
    raise ConfigError(
        f"model.path: the chat template of {path} ends the prompt with {begun!r}, which tells the model to "
        f"write no {first[0]}, or to go on inside of it, while a perfect answer begins with it and rewards "
        "read what the model writes. Let the template (chat_template.jinja beside the weights) end before "
        f"{first[0]} or right behind it; turn thinking on in it where it can be turned off"
    )


def _begun(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> str:
    """Returns what a prompt writes of the answer: from the first of the answer's tags after the last special
    token, which begins the assistant's turn. Where no such token stands behind the prompt's beginning, the
    turn cannot be told from the question: an empty pair of tags at the end alone counts."""
    tags = {tag.casefold() for tag in _TAG.findall(answer)}
    marks = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    ends = [at + len(mark) for mark in marks if mark not in tags and (at := prompt.rfind(mark)) > 0]
    if not ends and (closed := _CLOSED.search(prompt)):
        ends = [closed.start()]
    turn = prompt[max(ends, default=len(prompt)) :]
    starts = [tag.start() for tag in _TAG.finditer(turn) if tag[0].casefold() in tags]
    return turn[starts[0] :] if starts else ""


def _check_rollout(rollout: RolloutConfig, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
    needed = tokenizer.convert_ids_to_tokens(tokenizer(written, add_special_tokens=False)["input_ids"])
    if banned := sorted(set(needed) & set(rollout.banned_tokens)):
        raise ConfigError(
            f"rollout.banned_tokens: {banned} are never sampled, and the task's perfect answer {written!r} "
            "needs them"
        )
    if len(needed) > rollout.max_tokens:
        raise ConfigError(
            f"rollout.max_tokens: got {rollout.max_tokens}, and the task's perfect answer {written!r} has "
            f"{len(needed)} tokens: every such answer would be cut. Raise it to more than that"
        )
    if not _may_be(written, rollout.structured):
        raise ConfigError(
            f"rollout.structured: got {dict(rollout.structured)}, which the task's perfect answer "
            f"{written!r} is not: no answer could have both forms"
        )


def _may_be(written: str, structured: Mapping[str, object]) -> bool:
    """Whether an answer has the form of `rollout.structured`, as far as it can be told here: of a schema that
    it is JSON, of a grammar nothing."""
    if "choice" in structured:
        choices = structured["choice"]
        return isinstance(choices, Sequence) and written in choices
    try:
        if "regex" in structured:
            return re.fullmatch(str(structured["regex"]), written) is not None
        if "json" in structured:
            json.loads(written)
    except re.error:
        return True  # the engine's dialect is another
    except ValueError:
        return False
    return True


def _words(text: str) -> list[str]:
    """Returns what must outlast a tokenizer. Case and the Unicode form need not: some change them. Nor does
    white space beside a tag, which templates add."""
    return normalize("NFKC", _TAG.sub(r" \g<0> ", text)).casefold().split()


def rules_of(rewards: Mapping[str, RewardConfig]) -> Iterator[tuple[str, Reward]]:
    """Yields the rewards by rule. One that this process cannot import is its actor's business."""
    for name, config in rewards.items():
        where = f"rewards.{name}"
        try:
            found = load_target(resolve_target(config.target, where=where), where=where)
        except ConfigError:
            continue
        if inspect.isclass(found) and issubclass(found, Reward) and found.by_rule:
            yield name, build_reward(config, where=where)


def answered(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Group]:
    """Returns a group for each prompt, of one answer of which only the text is known."""
    return [
        Group(
            prompt=prompt,
            prompt_token_ids=(0,),
            completions=(
                Completion(
                    token_ids=(0,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0
                ),
            ),
        )
        for prompt, text in zip(prompts, answers, strict=True)
    ]


def _check_reward(name: str, reward: Reward, perfect: Sequence[Group], read: Sequence[Group]) -> None:
    context = RewardContext(step=0, num_steps=1)
    of_perfect, of_read = (
        [scores[0] for scores in reward.score_batch(groups, context)] for groups in (perfect, read)
    )
    if any(score.error is not None for score in (*of_perfect, *of_read)):
        return  # `on_error` decides
    answer, text = perfect[0].completions[0].text, read[0].completions[0].text
    if not any(score.value for score in of_perfect):
        raise ConfigError(
            f"rewards.{name}: gives 0 to perfect answers of the task, such as {answer!r}: its arguments and "
            "the task mean different forms, and it would give 0 to every answer for ever"
        )
    if not any(score.value for score in of_read):
        raise ConfigError(
            f"rewards.{name}: gives more than 0 to the perfect answer {answer!r}, and 0 to {text!r}, "
            "which is what the run would read of it: change rollout.stop where it cuts the answer, else the "
            "white space that the reward allows or that the model's tokenizer and chat template add"
        )
