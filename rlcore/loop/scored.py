"""Groups between scoring and the learner's batch: what is known of them before the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlcore.types import Group, Score

Scores = dict[str, list[list[Score]]]
"""Reward name to its scores, [G][K]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupArrays:
    """A group as arrays holds all of a `TrainGroup` that is known before the update."""

    prompt_id: str
    prompt_token_ids: np.ndarray
    """int64 [P]"""
    media_inputs: Mapping[str, np.ndarray]
    """Model inputs beside tokens, as in `Group`."""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]"""
    rollout_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T], from the rollout engine."""
    reference_logprobs: tuple[np.ndarray, ...]
    """[K] of float32 [T]; empty where no KL is asked for."""
    is_sampled: tuple[np.ndarray, ...] = ()
    """[K] of bool [T], as in `TrainGroup`; empty where no environment wrote a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A scored group holds all that is known of a group before the update."""

    group: Group
    scores: Mapping[str, Sequence[Score]]
    """Reward name to its scores [K], failures included."""
    values: Mapping[str, np.ndarray]
    """Reward name to float64 [K]: the scores after `on_error`, NaN where a failure is to be masked."""
    arrays: GroupArrays
    """The group as the learner reads it. Made with the scores, so that the learner does not wait for it."""


def completion_lengths(scored: Sequence[ScoredGroup]) -> np.ndarray:
    """Returns int [G, K]: tokens of each completion, an environment's among them."""
    return np.array([[len(c.token_ids) for c in one.group.completions] for one in scored])


def is_truncated(scored: Sequence[ScoredGroup]) -> np.ndarray:
    """Returns bool [G, K]: completions that were cut at the token limit."""
    return np.array([[c.finish_reason == "length" for c in one.group.completions] for one in scored])


def has_error(scored: Sequence[ScoredGroup]) -> np.ndarray:
    """Returns bool [G, K]: completions that their environment could not answer."""
    return np.array([[c.error is not None for c in one.group.completions] for one in scored])


def is_over_budget(scored: Sequence[ScoredGroup], max_tokens: int) -> np.ndarray:
    """Returns bool [G, K]: samples of more than `max_tokens` prompt and completion tokens."""
    prompt_lengths_G1 = np.array([[len(one.group.prompt_token_ids)] for one in scored])
    return prompt_lengths_G1 + completion_lengths(scored) > max_tokens


def group_arrays(group: Group, reference_logprobs: Sequence[np.ndarray] | None) -> GroupArrays:
    """Converts a group to arrays. `build_batch` adds advantages and all else known only at update time.

    `reference_logprobs` is [K] of float32 [T], or None where no KL is asked for.
    """
    return GroupArrays(
        prompt_id=group.prompt.id,
        prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
        media_inputs=group.media_inputs,
        token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
        rollout_logprobs=tuple(np.asarray(c.logprobs, dtype=np.float32) for c in group.completions),
        reference_logprobs=() if reference_logprobs is None else tuple(reference_logprobs),
        is_sampled=tuple(c.is_sampled for c in group.completions)
        if any(c.observations for c in group.completions)
        else (),
    )


def columns(scored: Sequence[ScoredGroup]) -> Scores:
    """Returns the scores by reward, in the groups' order."""
    return {name: [list(one.scores[name]) for one in scored] for name in scored[0].scores}
