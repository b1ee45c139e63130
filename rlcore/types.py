"""The records that pass between the stages of training. Frozen; no Ray, no torch.

Ragged data carries a dimension suffix in its comment: P prompt token, T completion token,
K sample of a group. Arrays are numpy, because Ray moves numpy without copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to the policy, as a task provides it."""

    id: str
    """Unique in its split; seeds, caches and samples.jsonl are keyed by it."""
    text: str
    """Chat-formatted prompt with the model's media placeholders, ready to be tokenised."""
    media: Mapping[str, Any] = field(default_factory=dict)
    """Opaque to rlcore (paths, arrays); `Task.load_media` turns it into processor arguments."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """What rewards and metrics compare with (label, measured fields). Never shown to the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer."""

    token_ids: tuple[int, ...]
    """[T] sampled tokens, the stop token included when one was sampled."""
    logprobs: tuple[float, ...]
    """[T] log-probability of each sampled token under the policy that sampled it, at its temperature."""
    text: str
    """Decoded without special tokens."""
    finish_reason: str
    """`stop` or `length`."""
    policy_version: int
    """Version of the weights that wrote its first token, the oldest of its versions."""
    version_spans: tuple[tuple[int, int], ...] = ()
    """(version, number of tokens) in order, where weights were replaced while it was written; empty:
    `policy_version` wrote all of it."""
    top_logprobs: tuple[Mapping[int, float], ...] | None = None
    """[T] token id to log-probability of the most likely tokens, where they were asked for."""

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """`version_spans`, never empty."""
        return self.version_spans or ((self.policy_version, len(self.token_ids)),)

    @property
    def token_versions(self) -> np.ndarray:
        """int64 [T]: version of the weights that wrote each token."""
        if not self.version_spans:
            return np.full(len(self.token_ids), self.policy_version, dtype=np.int64)
        return repeated(self.version_spans)


def repeated(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """int64 [sum of counts]: of (value, count) pairs, each value so many times."""
    values, counts = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return np.repeat(values, counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its K completions, with the model inputs that the learner needs again."""

    prompt: Prompt
    prompt_token_ids: tuple[int, ...]
    """[P] with media placeholders expanded, as the rollout engine saw them."""
    completions: tuple[Completion, ...]
    """[K]"""
    media_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Model inputs beside tokens, without a batch dimension: `audio_embeds` [N, H] where a frozen
    tower was run once in the rollout, `audio_states` [N, D] where its projector is trained, or the
    processor's tensors of A audios (`input_features` [A, M, F])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutJob:
    """One prompt to complete."""

    id: int
    """Unique among the jobs of a run."""
    prompt: Prompt
    draw: int
    """Its seeds hang on this number and the prompt's id; in training it is the place in the stream."""
    greedy: bool = False
    """One most likely answer instead of samples."""
    num_samples: int | None = None
    """`None`: `rollout.samples_per_prompt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedJob:
    """What became of a job."""

    id: int
    group: Group | None
    """None: the prompt is over the context and `rollout.over_context` is `drop`."""
    num_encoded: int
    """Audios that went through the tower for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a reward says of one completion."""

    value: float = field(kw_only=False)
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components, for curves and samples.jsonl."""
    token_values: Mapping[int, float] = field(default_factory=dict)
    """Index into `Completion.token_ids` to what is due there beside `value`: of a reward that judges steps,
    at the last token of each (`rlcore.algorithms.process`)."""
    error: str | None = None
    """Why the score could not be made; `value` is then ignored and the reward's policy decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """What a reward may know of the run beside the group."""

    step: int = 0
    num_steps: int = 0
    statistics: Mapping[str, float] = field(default_factory=dict)
    """The latest finished step's metrics of rewards (`reward/mean`, `reward/NAME`, `reward/NAME/PART`); empty
    in the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainGroup:
    """One group, ready for the learner."""

    prompt_token_ids: np.ndarray
    """int64 [P]"""
    media_inputs: Mapping[str, np.ndarray]
    """As in `Group`."""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]"""
    rollout_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T], from the rollout engine."""
    reference_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T]; empty where no KL is asked for."""
    is_current: tuple[np.ndarray, ...] = ()
    """[K] of bool [T]: tokens that the version wrote which the update starts from; empty: all of them."""
    advantages: np.ndarray
    """float32 [K]"""
    token_advantages: tuple[np.ndarray, ...] = ()
    """[K] of float32 [T], added to the sample's; empty: no reward judges single tokens."""
    prompt_id: str = ""
    """`Prompt.id`, to name the group in errors and in skipped.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """The global batch of one step, or a rank's part of it: disjoint groups, and the totals of the whole, by
    which losses are divided, so that sharding and micro-batching change nothing."""

    groups: tuple[TrainGroup, ...]
    num_sequences: int
    num_tokens: int
    """Completion tokens over the whole batch."""
    policy_version: int
    """Version that the update starts from."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a few flat arrays: every array by itself costs more than its bytes, and a batch has tens
        of thousands."""
        return _unpacked, (_packed(self.groups), self.num_sequences, self.num_tokens, self.policy_version)


_RAGGED = ("token_ids", "rollout_logprobs", "reference_logprobs", "is_current", "token_advantages")
"""Fields of `TrainGroup` with one row a sample, or none at all."""


def _packed(groups: Sequence[TrainGroup]) -> dict[str, Any]:
    """Name to (all rows one after the other, length of each row), and what is no row."""
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


def _unpacked(packed: Mapping[str, Any], *totals: int) -> TrainBatch:
    rows = {name: _rows(*column) for name, column in packed["columns"].items()}
    groups = []
    for g, (media, prompt_id) in enumerate(zip(packed["media_inputs"], packed["prompt_id"], strict=True)):
        ragged: dict[str, Any] = {
            name: tuple(islice(rows[name], packed["counts"][name][g])) for name in _RAGGED
        }
        own: dict[str, Any] = {name: next(rows[name]) for name in ("prompt_token_ids", "advantages")}
        groups.append(TrainGroup(media_inputs=media, prompt_id=prompt_id, **own, **ragged))
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
