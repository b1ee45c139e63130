"""From scored groups to the learner's batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlcore.types import Group, TrainBatch, TrainGroup


def build_batch(
    groups: Sequence[Group],
    advantages: np.ndarray,
    reference_logprobs: Sequence[Sequence[np.ndarray]] | None,
    policy_version: int,
) -> TrainBatch:
    """The global batch of a step.

    `advantages` float32 [G, K]; `reference_logprobs` [G][K] of float32 [T], or None where no KL is asked for.
    The totals count every completion token, a zero advantage's included, because the KL reaches those too.
    """
    assert advantages.shape[0] == len(groups), (advantages.shape, len(groups))
    train_groups = tuple(
        TrainGroup(
            prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
            media_inputs=group.media_inputs,
            token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
            rollout_logprobs=tuple(np.asarray(c.logprobs, dtype=np.float32) for c in group.completions),
            reference_logprobs=tuple(reference_logprobs[g]) if reference_logprobs is not None else (),
            advantages=np.asarray(advantages[g], dtype=np.float32),
            prompt_id=group.prompt.id,
        )
        for g, group in enumerate(groups)
    )
    return TrainBatch(
        groups=train_groups,
        num_sequences=sum(len(group.token_ids) for group in train_groups),
        num_tokens=sum(len(tokens) for group in train_groups for tokens in group.token_ids),
        policy_version=policy_version,
    )
