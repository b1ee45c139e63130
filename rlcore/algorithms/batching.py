"""Cutting the global batch: over ranks by tokens, and within a rank into micro-batches of a padded size.

A cut never changes the loss, because losses are divided by totals of the global batch (`loss.py`); it only
decides who computes what. Groups stay whole where they can, so that a prompt's media are fed once; where they
cannot, samples are moved into smaller groups of the same prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rlcore.types import TrainGroup


def take_samples(group: TrainGroup, indices: Iterable[int]) -> TrainGroup:
    """The group with only these of its samples, in this order."""
    indices = list(indices)
    reference = group.reference_logprobs
    return replace(
        group,
        token_ids=tuple(group.token_ids[i] for i in indices),
        rollout_logprobs=tuple(group.rollout_logprobs[i] for i in indices),
        reference_logprobs=tuple(reference[i] for i in indices) if reference else (),
        advantages=group.advantages[indices],
    )


def num_samples(group: TrainGroup) -> int:
    return len(group.token_ids)


def row_length(group: TrainGroup) -> int:
    """Tokens of the group's longest row, prompt included."""
    return len(group.prompt_token_ids) + max(len(ids) for ids in group.token_ids)


def num_row_tokens(group: TrainGroup) -> int:
    """Tokens of all rows, prompts included, without padding."""
    return len(group.prompt_token_ids) * num_samples(group) + sum(len(ids) for ids in group.token_ids)


def shard_groups(groups: Sequence[TrainGroup], num_ranks: int) -> list[list[TrainGroup]]:
    """Disjoint groups for each rank, balanced by tokens; deterministic.

    Longest first to the least loaded rank (within 4/3 of the best possible largest load; Graham 1969). Where
    there are fewer groups than ranks, the largest are halved, as every rank must take part.
    Raises ValueError where there are fewer samples than ranks.
    """
    groups = [group for group in groups if num_samples(group)]
    total = sum(num_samples(group) for group in groups)
    if total < num_ranks:
        raise ValueError(
            f"{total} samples cannot be shared by {num_ranks} learner ranks, each needs at least one: raise "
            "train.prompts_per_step or rollout.samples_per_prompt, or lower learner.num_ranks"
        )
    while len(groups) < num_ranks:
        # A group of two or more samples exists as long as samples outnumber groups.
        at = max(
            (i for i, g in enumerate(groups) if num_samples(g) > 1), key=lambda i: num_row_tokens(groups[i])
        )
        size = num_samples(groups[at])
        first, second = range(size // 2), range(size // 2, size)
        groups[at : at + 1] = [take_samples(groups[at], first), take_samples(groups[at], second)]

    shards: list[list[TrainGroup]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for group in sorted(groups, key=num_row_tokens, reverse=True):
        rank = min(range(num_ranks), key=lambda r: (loads[r], len(shards[r])))
        shards[rank].append(group)
        loads[rank] += num_row_tokens(group)
    return shards


def micro_batches(groups: Sequence[TrainGroup], max_padded_tokens: int) -> list[list[TrainGroup]]:
    """Groups packed into batches of at most `max_padded_tokens` = rows * longest row; deterministic.

    Packed longest first, so that rows of like length share a batch. A group above the bound is cut by
    samples; a single sample above it gets a batch of its own.
    """
    pieces = [piece for group in groups if num_samples(group) for piece in _cut(group, max_padded_tokens)]
    batches: list[list[TrainGroup]] = []
    rows = length = 0
    for piece in sorted(pieces, key=row_length, reverse=True):
        if batches and (rows + num_samples(piece)) * length <= max_padded_tokens:
            batches[-1].append(piece)
            rows += num_samples(piece)
        else:
            batches.append([piece])
            rows, length = num_samples(piece), row_length(piece)
    return batches


def smallest_sample(groups: Sequence[TrainGroup]) -> TrainGroup:
    """The shortest sample as a group of its own: fed, with weight 0, while other ranks have work left.

    A real sample and not an invented one: every rank must then enter the same modules, media included.
    """
    samples = [take_samples(group, [i]) for group in groups for i in range(num_samples(group))]
    return min(samples, key=row_length)


def _cut(group: TrainGroup, max_padded_tokens: int) -> list[TrainGroup]:
    """The group in as few pieces as the bound allows, samples of like length together."""
    if num_samples(group) * row_length(group) <= max_padded_tokens:
        return [group]
    order = sorted(range(num_samples(group)), key=lambda i: -len(group.token_ids[i]))
    pieces, start = [], 0
    while start < len(order):
        length = len(group.prompt_token_ids) + len(group.token_ids[order[start]])
        size = max(1, max_padded_tokens // length)
        pieces.append(take_samples(group, order[start : start + size]))
        start += size
    return pieces
