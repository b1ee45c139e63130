"""From scored groups to the learner's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlcore.algorithms.ptr import MixedRewards
from rlcore.algorithms.shaping import overlong_penalty, sequence_kl
from rlcore.config import AlgorithmConfig
from rlcore.types import Group, TrainBatch, TrainGroup


def shape_rewards(
    mixed: MixedRewards,
    groups: Sequence[Group],
    arrays: Sequence[TrainGroup],
    algorithm: AlgorithmConfig,
    *,
    max_tokens: int,
) -> MixedRewards:
    """The rewards less what the settings take off: the sequence's KL (`kl_in: reward`) and the over-long
    penalty. With `mask_truncated`, completions cut at `max_tokens` are masked as well.

    `arrays` are the groups by `train_group`; without reference log-probabilities there is no KL.
    """
    rewards, mask = mixed.rewards, mixed.mask
    if algorithm.kl_in == "reward" and all(ready.reference_logprobs for ready in arrays):
        kl = [
            [
                sequence_kl(ours, reference, algorithm.kl_function)
                for ours, reference in zip(ready.rollout_logprobs, ready.reference_logprobs, strict=True)
            ]
            for ready in arrays
        ]
        rewards = rewards - algorithm.kl_coef * np.array(kl)
    if algorithm.overlong_buffer:
        penalty = overlong_penalty(completion_lengths(groups), max_tokens, algorithm.overlong_buffer)
        rewards = rewards + algorithm.overlong_penalty * penalty
    if algorithm.mask_truncated:
        mask = mask & ~is_truncated(groups)
    return replace(mixed, rewards=np.where(mask, rewards, 0.0), mask=mask)


def completion_lengths(groups: Sequence[Group]) -> np.ndarray:
    """int [G, K]: tokens of each completion."""
    return np.array([[len(c.token_ids) for c in group.completions] for group in groups])


def is_truncated(groups: Sequence[Group]) -> np.ndarray:
    """bool [G, K]: completions that were cut at the token limit."""
    return np.array([[c.finish_reason == "length" for c in group.completions] for group in groups])


def train_group(group: Group, reference_logprobs: Sequence[np.ndarray] | None) -> TrainGroup:
    """A group as arrays, with the advantages (zeros) and what depends on the time of the update still to
    come. `reference_logprobs` [K] of float32 [T], or None where no KL is asked for."""
    return TrainGroup(
        prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
        media_inputs=group.media_inputs,
        token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
        rollout_logprobs=tuple(np.asarray(c.logprobs, dtype=np.float32) for c in group.completions),
        reference_logprobs=() if reference_logprobs is None else tuple(reference_logprobs),
        advantages=np.zeros(len(group.completions), dtype=np.float32),
        prompt_id=group.prompt.id,
    )


def build_batch(
    groups: Sequence[Group],
    arrays: Sequence[TrainGroup],
    advantages: np.ndarray,
    keep: np.ndarray,
    policy_version: int,
    token_advantages: Sequence[Sequence[np.ndarray]] | None = None,
) -> TrainBatch:
    """The global batch of a step.

    `arrays` are the groups by `train_group`; `advantages` float32 [G, K]; `keep` bool [G, K]: the other
    completions are left out, and so is a group that keeps none; `token_advantages` [G][K] of float32 [T], or
    None where no reward judges single tokens.
    The totals count every completion token that is kept, a zero advantage's included, because the KL reaches
    those too.
    """
    assert advantages.shape == keep.shape and len(keep) == len(groups), (advantages.shape, keep.shape)
    train_groups = []
    for g, (group, ready) in enumerate(zip(groups, arrays, strict=True)):
        kept = np.flatnonzero(keep[g]).tolist()
        if not kept:
            continue
        completions = [group.completions[k] for k in kept]
        is_old = any(c.version_spans or c.policy_version != policy_version for c in completions)
        train_groups.append(
            replace(
                ready,
                token_ids=tuple(ready.token_ids[k] for k in kept),
                rollout_logprobs=tuple(ready.rollout_logprobs[k] for k in kept),
                reference_logprobs=tuple(ready.reference_logprobs[k] for k in kept)
                if ready.reference_logprobs
                else (),
                is_current=tuple(c.token_versions == policy_version for c in completions) if is_old else (),
                advantages=np.asarray(advantages[g, kept], dtype=np.float32),
                token_advantages=tuple(token_advantages[g][k] for k in kept) if token_advantages else (),
            )
        )
    return TrainBatch(
        groups=tuple(train_groups),
        num_sequences=sum(len(group.token_ids) for group in train_groups),
        num_tokens=sum(len(tokens) for group in train_groups for tokens in group.token_ids),
        policy_version=policy_version,
    )
