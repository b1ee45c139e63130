"""From scored groups to the learner's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlcore.algorithms.kl import sequence_kl
from rlcore.algorithms.overlong import overlong_penalty
from rlcore.algorithms.ptr import MixedRewards
from rlcore.config import AlgorithmConfig
from rlcore.types import Group, TrainBatch, TrainGroup


def shape_rewards(
    mixed: MixedRewards,
    groups: Sequence[Group],
    reference_logprobs: Sequence[Sequence[np.ndarray]] | None,
    algorithm: AlgorithmConfig,
    *,
    max_tokens: int,
) -> MixedRewards:
    """The rewards less what the settings take off: the sequence's KL (`kl_in: reward`) and the over-long
    penalty. With `mask_truncated`, completions cut at `max_tokens` are masked as well.

    `reference_logprobs` [G][K] of float32 [T], where a KL is asked for.
    """
    rewards, mask = mixed.rewards, mixed.mask
    if algorithm.kl_in == "reward" and reference_logprobs is not None:
        kl = [
            [
                sequence_kl(np.array(completion.logprobs), reference, algorithm.kl_estimator)
                for completion, reference in zip(group.completions, row, strict=True)
            ]
            for group, row in zip(groups, reference_logprobs, strict=True)
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


def build_batch(
    groups: Sequence[Group],
    advantages: np.ndarray,
    keep: np.ndarray,
    reference_logprobs: Sequence[Sequence[np.ndarray]] | None,
    policy_version: int,
    token_advantages: Sequence[Sequence[np.ndarray]] | None = None,
) -> TrainBatch:
    """The global batch of a step.

    `advantages` float32 [G, K]; `keep` bool [G, K]: the other completions are left out, and so is a group
    that keeps none; `reference_logprobs` [G][K] of float32 [T], or None where no KL is asked for;
    `token_advantages` [G][K] of float32 [T], or None where no reward judges single tokens.
    The totals count every completion token that is kept, a zero advantage's included, because the KL reaches
    those too.
    """
    assert advantages.shape == keep.shape and len(keep) == len(groups), (advantages.shape, keep.shape)
    train_groups = []
    for g, group in enumerate(groups):
        kept = np.flatnonzero(keep[g])
        if not kept.size:
            continue
        completions = [group.completions[k] for k in kept]
        train_groups.append(
            TrainGroup(
                prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
                media_inputs=group.media_inputs,
                token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in completions),
                rollout_logprobs=tuple(np.asarray(c.logprobs, dtype=np.float32) for c in completions),
                reference_logprobs=tuple(reference_logprobs[g][k] for k in kept)
                if reference_logprobs is not None
                else (),
                is_current=tuple(c.token_versions == policy_version for c in completions),
                advantages=np.asarray(advantages[g, kept], dtype=np.float32),
                token_advantages=tuple(token_advantages[g][k] for k in kept) if token_advantages else (),
                prompt_id=group.prompt.id,
            )
        )
    return TrainBatch(
        groups=tuple(train_groups),
        num_sequences=sum(len(group.token_ids) for group in train_groups),
        num_tokens=sum(len(tokens) for group in train_groups for tokens in group.token_ids),
        policy_version=policy_version,
    )
