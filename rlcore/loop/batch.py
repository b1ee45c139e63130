"""The way from mixed rewards to the learner's batch: penalties, advantages, and what each rank is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rlcore.algorithms.advantage import decoupled_advantages, group_advantages
from rlcore.algorithms.batching import shard_groups
from rlcore.algorithms.covariance import clip_cov, kl_cov
from rlcore.algorithms.process import token_advantages
from rlcore.algorithms.ptr import MixedRewards
from rlcore.algorithms.shaping import overlong_penalty, sequence_kl
from rlcore.config import AlgorithmConfig, LearnerConfig, RolloutConfig
from rlcore.loop.scored import GroupArrays, ScoredGroup, completion_lengths, is_truncated
from rlcore.types import TrainBatch, TrainGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """Advantages say how much better each completion is than it might have been. `keep` says which ones
    are trained on."""

    samples: np.ndarray
    """float32 [G, K]; 0 where masked."""
    tokens: list[list[np.ndarray]] | None
    """[G][K] of float32 [T], added to the sample's; None where all tokens of a sample have the sample's."""
    keep: np.ndarray
    """bool [G, K]: completions that enter the batch."""
    num_cov_clipped: int | None = None
    """Tokens whose advantage Clip-Cov made 0; None where it is off."""
    held_back: Mapping[tuple[int, int], np.ndarray] | None = None
    """(g, k) of kept completions to bool [T]: tokens that KL-Cov holds back; None where it is off."""


def shape_rewards(
    mixed: MixedRewards, scored: Sequence[ScoredGroup], algorithm: AlgorithmConfig, rollout: RolloutConfig
) -> np.ndarray:
    """Returns float64 [G, K]: the mixed rewards less the sequence's KL (`kl_in: reward`) and the over-long
    penalty; 0 where masked. Without reference log-probabilities there is no KL.
    """
    rewards, arrays = mixed.rewards, [one.arrays for one in scored]
    if algorithm.kl_in == "reward" and all(ready.reference_logprobs for ready in arrays):
        kl = [
            [
                sequence_kl(ours[sampled], reference[sampled], algorithm.kl_function)
                for ours, reference, sampled in zip(
                    ready.rollout_logprobs, ready.reference_logprobs, _sampled(ready), strict=True
                )
            ]
            for ready in arrays
        ]
        rewards = rewards - algorithm.kl_coef * np.array(kl)
    if algorithm.overlong_buffer:
        limits = _token_limits(scored, rollout)
        # One that was cut has reached its limit, whoever set it.
        lengths = np.where(is_truncated(scored), limits, completion_lengths(scored))
        penalty = overlong_penalty(lengths, limits, algorithm.overlong_buffer)
        rewards = rewards + algorithm.overlong_penalty * penalty
    return np.where(mixed.mask, rewards, 0.0)


def _sampled(ready: GroupArrays) -> Sequence[np.ndarray | slice]:
    """What picks the policy's tokens from each completion's [T]."""
    return ready.is_sampled or [slice(None)] * len(ready.token_ids)


def _token_limits(scored: Sequence[ScoredGroup], rollout: RolloutConfig) -> np.ndarray:
    """int [G, 1]: tokens at which a completion is cut, by `rollout.max_tokens` or by the engine's context."""
    context = rollout.engine.get("max_model_len")
    limits = [rollout.max_tokens] * len(scored)
    if context is not None:
        limits = [min(rollout.max_tokens, int(context) - len(one.group.prompt_token_ids)) for one in scored]
    return np.array(limits)[:, None]


def estimate_advantages(
    rewards: np.ndarray, mixed: MixedRewards, scored: Sequence[ScoredGroup], algorithm: AlgorithmConfig
) -> Advantages:
    """Estimates advantages of `rewards` [G, K] (by `shape_rewards`), and of the steps that `mixed` judges.

    Groups without signal in the mixed reward are left out where `algorithm.drop_groups_without_signal` says
    so.
    """
    keep = mixed.mask
    if algorithm.drop_groups_without_signal:
        keep = keep & mixed.has_signal[:, None]
    estimator, eps, lengths = algorithm.advantage_estimator, algorithm.std_eps, completion_lengths(scored)
    tokens = token_advantages(
        mixed.steps,
        lengths,
        keep,
        given=mixed.given,
        estimator=estimator,
        eps=eps,
        discount=algorithm.step_discount,
    )
    if mixed.terms:
        samples = decoupled_advantages(mixed.terms, keep, eps=eps)
    else:
        samples = group_advantages(rewards, keep, estimator=estimator, eps=eps)
    advantages = Advantages(samples=samples, tokens=tokens, keep=keep)
    if algorithm.clip_cov or algorithm.kl_cov:
        advantages = _hold_back(advantages, scored, algorithm)
    return advantages


def _hold_back(
    advantages: Advantages, scored: Sequence[ScoredGroup], algorithm: AlgorithmConfig
) -> Advantages:
    """The same with a total advantage of 0 on the tokens that Clip-Cov draws, and those of KL-Cov marked."""
    samples, lengths = advantages.samples, completion_lengths(scored)
    tokens = advantages.tokens or [[np.zeros(length, dtype=np.float32) for length in row] for row in lengths]
    kept = np.argwhere(advantages.keep).tolist()
    picks = [_sampled(scored[g].arrays)[k] for g, k in kept]
    logprobs = [scored[g].arrays.rollout_logprobs[k][pick] for (g, k), pick in zip(kept, picks, strict=True)]
    totals = [samples[g, k] + tokens[g][k][pick] for (g, k), pick in zip(kept, picks, strict=True)]
    if algorithm.kl_cov:
        by_place = {(g, k): np.zeros(lengths[g, k], dtype=bool) for g, k in kept}
        for place, pick, row in zip(
            by_place, picks, kl_cov(logprobs, totals, share=algorithm.kl_cov), strict=True
        ):
            by_place[place][pick] = row
        advantages = replace(advantages, held_back=by_place)
    if algorithm.clip_cov:
        drawn = clip_cov(logprobs, totals, share=algorithm.clip_cov, bounds=algorithm.clip_cov_bounds)
        for (g, k), pick, is_drawn in zip(kept, picks, drawn, strict=True):
            tokens[g][k][pick] = np.where(is_drawn, -samples[g, k], tokens[g][k][pick])
        num_clipped = sum(int(row.sum()) for row in drawn)
        advantages = replace(advantages, tokens=tokens, num_cov_clipped=num_clipped)
    return advantages


def build_batch(scored: Sequence[ScoredGroup], advantages: Advantages, policy_version: int) -> TrainBatch:
    """Builds the global batch of a step, whose update starts from `policy_version`.

    Completions that `advantages` does not keep are left out, and so is a group that keeps none. The totals
    count every kept token that the policy wrote, a zero advantage's included, because the KL reaches those
    too.
    """
    keep = advantages.keep
    assert advantages.samples.shape == keep.shape and len(keep) == len(scored), keep.shape
    train_groups = []
    for g, one in enumerate(scored):
        kept = np.flatnonzero(keep[g]).tolist()
        if not kept:
            continue
        completions, ready = [one.group.completions[k] for k in kept], one.arrays
        is_old = any(c.version_spans or c.policy_version != policy_version for c in completions)
        reference, of_tokens = ready.reference_logprobs, advantages.tokens
        held_back = advantages.held_back
        train_groups.append(
            TrainGroup(
                prompt_id=ready.prompt_id,
                prompt_token_ids=ready.prompt_token_ids,
                media_inputs=ready.media_inputs,
                token_ids=tuple(ready.token_ids[k] for k in kept),
                rollout_logprobs=tuple(ready.rollout_logprobs[k] for k in kept),
                reference_logprobs=tuple(reference[k] for k in kept) if reference else (),
                is_current=tuple(c.token_versions == policy_version for c in completions) if is_old else (),
                is_sampled=tuple(ready.is_sampled[k] for k in kept) if ready.is_sampled else (),
                advantages=np.asarray(advantages.samples[g, kept], dtype=np.float32),
                token_advantages=tuple(of_tokens[g][k] for k in kept) if of_tokens else (),
                held_back=tuple(held_back[g, k] for k in kept) if held_back else (),
            )
        )
    return _with_totals(train_groups, policy_version)


def rank_batches(batch: TrainBatch, learner: LearnerConfig) -> list[tuple[TrainBatch, ...]]:
    """Returns what each rank is sent: its part of every mini-batch, in the order of their steps.

    Mini-batches are runs of prompts, each with totals of its own, so each is a step on a batch of that size.
    There are `num_mini_batches`, or fewer where one would have fewer completions than there are ranks.
    """
    number = learner.num_mini_batches
    while True:
        cuts = [round(i * len(batch.groups) / number) for i in range(number + 1)]
        parts = [batch.groups[a:b] for a, b in pairwise(cuts)]
        if number == 1 or min(_num_sequences(part) for part in parts) >= learner.num_ranks:
            break
        number -= 1
    by_mini_batch = [
        [replace(mini, groups=tuple(shard)) for shard in shard_groups(mini.groups, learner.num_ranks)]
        for mini in (_with_totals(part, batch.policy_version) for part in parts)
    ]
    return list(zip(*by_mini_batch, strict=True))


def _num_sequences(groups: Sequence[TrainGroup]) -> int:
    return sum(len(group.token_ids) for group in groups)


def _with_totals(groups: Sequence[TrainGroup], policy_version: int) -> TrainBatch:
    return TrainBatch(
        groups=tuple(groups),
        num_sequences=_num_sequences(groups),
        num_tokens=sum(
            int(np.sum(row)) if group.is_sampled else len(row)
            for group in groups
            for row in group.is_sampled or group.token_ids
        ),
        policy_version=policy_version,
    )
