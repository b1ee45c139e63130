"""The records that pass between the stages of training are frozen, and know neither Ray nor torch.

Ragged data carries a dimension suffix in its comment: P prompt token, T completion token,
K sample of a group. Arrays are numpy, because Ray moves numpy without copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypedDict

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt is one question to the policy, as a task provides it."""

    id: str
    """Name of the prompt, unique in its split; seeds, caches and samples.jsonl are keyed by this name."""
    text: str
    """Chat-formatted prompt with the model's media placeholders, ready to be tokenised."""
    media: Mapping[str, Any] = field(default_factory=dict)
    """Media of the prompt (paths, arrays), opaque to rlcore. `Task.load_media` turns them into processor
    arguments."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Right answer that rewards and metrics compare with (label, measured fields), never shown to the
    policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """An observation is what an environment wrote into a completion, between two turns of the policy."""

    first: int
    """Index of its first token in `Completion.token_ids`."""
    num_tokens: int
    offset: int
    """Place in `Completion.text` where the policy read it, in characters."""
    text: str
    """Its words, which `Completion.text` lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A completion is one sampled answer."""

    token_ids: tuple[int, ...]
    """[T] sampled tokens, the stop token included when one was sampled; those of `observations` among
    them."""
    logprobs: tuple[float, ...]
    """[T] log-probability of each sampled token under the policy that sampled it, at its temperature; 0 for
    tokens of observations."""
    text: str
    """Text of the answer, decoded without special tokens except pairs of tags. Begins with the tag that the
    chat template opened (`<think>`), where the answer closes one. Nothing but the policy's own words."""
    finish_reason: str
    """Reason for the end: `stop` (a stop token) or `length` (the limit was reached). Any other is an engine's
    failure (vLLM: `error`, `abort`), and the completion then part of no group."""
    policy_version: int
    """Version of the weights that wrote the first token: the oldest version in this completion."""
    version_spans: tuple[tuple[int, int], ...] = ()
    """(version, number of tokens) in order, where weights were replaced while the completion was written.
    Empty: `policy_version` wrote all tokens. An observation counts to the turn before it."""
    top_logprobs: tuple[Mapping[int, float], ...] | None = None
    """[T] token id to log-probability of the most likely tokens, where a request asked for them."""
    prompt_logprobs: tuple[float, ...] | None = None
    """[P - 1] log-probability of each token of the prompt but the first, where a request asked for them."""
    observations: tuple[Observation, ...] = ()
    """What an environment wrote, in order; empty: the policy wrote all tokens."""
    error: str | None = None
    """Reason why the environment could not answer; `rollout.environment.on_error` decides what the completion
    is worth."""

    @property
    def is_sampled(self) -> np.ndarray:
        """Says of each token whether the policy wrote it, bool [T]."""
        sampled = np.ones(len(self.token_ids), dtype=bool)
        for observation in self.observations:
            sampled[observation.first : observation.first + observation.num_tokens] = False
        return sampled

    @property
    def num_sampled(self) -> int:
        """Number of tokens that the policy wrote."""
        return len(self.token_ids) - sum(observation.num_tokens for observation in self.observations)

    @property
    def transcript(self) -> str:
        """Text with the observations in their places."""
        parts, start = [], 0
        for observation in self.observations:
            parts += [self.text[start : observation.offset], observation.text]
            start = observation.offset
        return "".join([*parts, self.text[start:]])

    @property
    def has_failed(self) -> bool:
        """Says whether the engine gave up before the answer's end."""
        return self.finish_reason not in ("stop", "length")

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Pairs of version and number of tokens, in order; never empty."""
        return self.version_spans or ((self.policy_version, len(self.token_ids)),)

    @property
    def token_versions(self) -> np.ndarray:
        """Version of the weights that wrote each token, int64 [T]."""
        if not self.version_spans:
            return np.full(len(self.token_ids), self.policy_version, dtype=np.int64)
        return repeated(self.version_spans)


def repeated(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Repeats each value of (value, count) pairs `count` times: int64 [sum of counts]."""
    values, counts = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return np.repeat(values, counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group is a prompt and its K completions, with the model inputs that the learner needs again."""

    prompt: Prompt
    prompt_token_ids: tuple[int, ...]
    """[P] tokens of the prompt, media placeholders expanded, as the rollout engine saw them."""
    completions: tuple[Completion, ...]
    """[K] sampled answers."""
    media_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Model inputs beside tokens, without a batch dimension: `audio_embeds` [N, H] where a frozen
    tower was run once in the rollout, `audio_states` [N, D] where its projector is trained, or the
    processor's tensors of A audios (`input_features` [A, M, F]); and of images and videos what
    `rlcore.models.families.base.PICTURES` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutJob:
    """A job is one prompt that a rollout engine is to complete."""

    id: int
    """Number of the job, unique in a run."""
    prompt: Prompt
    draw: int
    """Seeds the sampling, together with the prompt's id. During training: the prompt's position in the
    stream."""
    greedy: bool = False
    """Asks for one most likely answer instead of samples."""
    num_samples: int | None = None
    """Number of answers to sample; `None`: `rollout.samples_per_prompt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedJob:
    """A finished job says what became of it."""

    id: int
    """`RolloutJob.id`."""
    group: Group | None
    """Prompt and completions; None: the engine failed, or the prompt is over the context and
    `rollout.over_context` is `drop`."""
    num_encoded: int
    """Number of passes through a tower for this job: of its recordings, and of its pictures."""
    failure: str | None = None
    """Reason by which the engine ended the job twice, in the engine's own word; None: it did not fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score is a reward's judgement of one completion."""

    value: float = field(kw_only=False)
    """Reward of the whole completion; higher is better."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components of the score, for curves and samples.jsonl."""
    token_values: Mapping[int, float] = field(default_factory=dict)
    """Extra reward by token index, added to `value`. A reward that judges steps sets one at the last token of
    each step (`rlcore.algorithms.process`)."""
    token_advantages: tuple[float, ...] = ()
    """[T] advantages of the tokens, taken as they are in the place of an estimate from `value`, which is then
    only reported. Empty: the estimator's."""
    error: str | None = None
    """Reason why the reward could not score; `value` is then ignored, and the reward's `on_error` decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """The context tells a reward about the run, beside the group."""

    step: int = 0
    """Step for which the group is scored."""
    num_steps: int = 0
    """Steps of the whole run."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of rewards in the latest finished step (`reward/mean`, `reward/NAME`, `reward/NAME/PART`);
    empty in the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainGroup:
    """A training group is a group as the learner reads it: arrays, with the advantages."""

    prompt_token_ids: np.ndarray
    """int64 [P], media placeholders expanded."""
    media_inputs: Mapping[str, np.ndarray]
    """Model inputs beside tokens, as `Group.media_inputs`."""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]: completion tokens."""
    rollout_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T]: log-probabilities by the rollout engine, under the policy that sampled."""
    reference_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T]: log-probabilities by the reference; empty where no KL is asked for."""
    is_current: tuple[np.ndarray, ...] = ()
    """[K] of bool [T]: whether the version that the update starts from wrote the token; empty: always."""
    is_sampled: tuple[np.ndarray, ...] = ()
    """[K] of bool [T]: whether the policy wrote the token; empty: always. Others, an environment's, are read
    and not learnt from."""
    advantages: np.ndarray
    """float32 [K]: one advantage per completion."""
    token_advantages: tuple[np.ndarray, ...] = ()
    """[K] of float32 [T], added to the completion's advantage; empty: all tokens have the completion's."""
    held_back: tuple[np.ndarray, ...] = ()
    """[K] of bool [T]: tokens that KL-Cov holds near the old policy; empty: none."""
    prompt_id: str = ""
    """`Prompt.id`, to name the group in errors and in skipped.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """A batch holds the groups of one step, or one rank's part of them, and the totals of the whole step.

    Losses are divided by these totals, so that sharding and micro-batching change nothing.
    """

    groups: tuple[TrainGroup, ...]
    num_sequences: int
    """Completions in the whole step."""
    num_tokens: int
    """Completion tokens that the policy wrote, in the whole step."""
    policy_version: int
    """Version of the weights that the update starts from."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the batch as a few flat arrays: an array costs more than its bytes, and a batch has tens of
        thousands of them."""
        return _unpacked, (_packed(self.groups), self.num_sequences, self.num_tokens, self.policy_version)


_RAGGED = (
    "token_ids",
    "rollout_logprobs",
    "reference_logprobs",
    "is_current",
    "is_sampled",
    "token_advantages",
    "held_back",
)
"""Fields of `TrainGroup` with one row per completion, or none at all."""


class _Packed(TypedDict):
    columns: dict[str, tuple[np.ndarray, list[int]]]
    """Field to (all rows one after the other, length of each row)."""
    counts: dict[str, list[int]]
    """Ragged field to the number of its rows in each group."""
    media_inputs: list[Mapping[str, np.ndarray]]
    prompt_id: list[str]


def _packed(groups: Sequence[TrainGroup]) -> _Packed:
    columns = {
        "prompt_token_ids": _flat([group.prompt_token_ids for group in groups]),
        "advantages": _flat([group.advantages for group in groups]),
        **{name: _flat([row for group in groups for row in getattr(group, name)]) for name in _RAGGED},
    }
    return {
        "columns": columns,
        "counts": {name: [len(getattr(group, name)) for group in groups] for name in _RAGGED},
        "media_inputs": [group.media_inputs for group in groups],
        "prompt_id": [group.prompt_id for group in groups],
    }


def _unpacked(packed: _Packed, *totals: int) -> TrainBatch:
    rows = {name: _rows(*column) for name, column in packed["columns"].items()}
    groups = []
    for g, (media, prompt_id) in enumerate(zip(packed["media_inputs"], packed["prompt_id"], strict=True)):
        ragged = {name: tuple(islice(rows[name], packed["counts"][name][g])) for name in _RAGGED}
        groups.append(
            TrainGroup(
                prompt_token_ids=next(rows["prompt_token_ids"]),
                advantages=next(rows["advantages"]),
                media_inputs=media,
                prompt_id=prompt_id,
                **ragged,
            )
        )
    num_sequences, num_tokens, policy_version = totals
    return TrainBatch(
        groups=tuple(groups),
        num_sequences=num_sequences,
        num_tokens=num_tokens,
        policy_version=policy_version,
    )


def _flat(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    return np.concatenate(rows) if rows else np.zeros(0), [len(row) for row in rows]


def _rows(flat: np.ndarray, lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Views of the rows."""
    end = 0
    for length in lengths:
        end += length
        yield flat[end - length : end]
