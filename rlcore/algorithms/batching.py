"""Cutting the global batch: over ranks by tokens, and within a rank into micro-batches of a padded size.

A cut never changes the loss, because losses are divided by totals of the global batch (`loss.py`); it only
decides who computes what. Groups stay whole where they can, so that a prompt's media are fed once; where they
cannot, samples are moved into smaller groups of the same prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np


class TokenRows(Protocol):
    """What is cut here: `rlcore.types.TrainGroup`, or any frozen dataclass with its first fields."""

    @property
    def prompt_token_ids(self) -> np.ndarray: ...  # [P]

    @property
    def token_ids(self) -> tuple[np.ndarray, ...]: ...  # [K] of [T]


G = TypeVar("G", bound=TokenRows)

PER_SAMPLE = ("token_ids", "rollout_logprobs", "reference_logprobs", "advantages")


def take_samples(group: G, indices: Iterable[int]) -> G:
    """The group with only these of its samples, in this order."""
    indices = list(indices)
    changes: dict[str, Any] = {}
    for name in PER_SAMPLE:
        values = getattr(group, name, ())
        if len(values):
            changes[name] = (
                values[indices] if isinstance(values, np.ndarray) else tuple(values[i] for i in indices)
            )
    return replace(group, **changes)  # type: ignore[type-var]


def num_samples(group: TokenRows) -> int:
    return len(group.token_ids)


def row_length(group: TokenRows) -> int:
    """Tokens of the group's longest row, prompt included."""
    return len(group.prompt_token_ids) + max(len(ids) for ids in group.token_ids)


def num_row_tokens(group: TokenRows) -> int:
    """Tokens of all rows, prompts included, without padding."""
    return len(group.prompt_token_ids) * num_samples(group) + sum(len(ids) for ids in group.token_ids)


def shard_groups(groups: Sequence[G], num_ranks: int) -> list[list[G]]:
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

    shards: list[list[G]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for group in sorted(groups, key=num_row_tokens, reverse=True):
        rank = min(range(num_ranks), key=lambda r: (loads[r], len(shards[r])))
        shards[rank].append(group)
        loads[rank] += num_row_tokens(group)
    return shards


def micro_batches(groups: Sequence[G], max_padded_tokens: int) -> list[list[G]]:
    """Groups packed into batches of at most `max_padded_tokens` = rows * longest row; deterministic.

    Packed longest first, so that rows of like length share a batch. A group above the bound is cut by
    samples; a single sample above it gets a batch of its own.
    """
    pieces = [piece for group in groups if num_samples(group) for piece in _cut(group, max_padded_tokens)]
    batches: list[list[G]] = []
    rows = length = 0
    for piece in sorted(pieces, key=row_length, reverse=True):
        if batches and (rows + num_samples(piece)) * length <= max_padded_tokens:
            batches[-1].append(piece)
            rows += num_samples(piece)
        else:
            batches.append([piece])
            rows, length = num_samples(piece), row_length(piece)
    return batches


def smallest_sample(groups: Sequence[G]) -> G:
    """The shortest sample as a group of its own: fed, with weight 0, while other ranks have work left.

    A real sample and not an invented one: every rank must then enter the same modules, media included.
    """
    samples = [take_samples(group, [i]) for group in groups for i in range(num_samples(group))]
    return min(samples, key=row_length)


def _cut(group: G, max_padded_tokens: int) -> list[G]:
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
