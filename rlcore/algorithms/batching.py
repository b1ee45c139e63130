"""Cutting the global batch, over ranks and within a rank into micro-batches, by the tokens to be computed.

A cut never changes the loss, because losses are divided by totals of the global batch (`loss.py`); a cut only
decides who computes what. Groups stay whole where they can, so that a prompt's media are fed once; where they
cannot, samples are moved into smaller groups of the same prompt. This module knows neither models nor ranks'
processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np


class TokenRows(Protocol):
    """Token rows are what is cut here: `rlcore.types.TrainGroup`, or a frozen dataclass with the same first
    fields."""

    @property
    def prompt_token_ids(self) -> np.ndarray: ...  # [P]

    @property
    def token_ids(self) -> tuple[np.ndarray, ...]: ...  # [K] of [T]


G = TypeVar("G", bound=TokenRows)

PER_SAMPLE = (
    "token_ids",
    "token_weights",
    "rollout_logprobs",
    "reference_logprobs",
    "is_current",
    "is_sampled",
    "advantages",
    "token_advantages",
    "held_back",
    "reference",
)


def take_samples(group: G, indices: Iterable[int]) -> G:
    """Returns the group with only the samples of these indices, in this order."""
    indices = list(indices)
    changes: dict[str, object] = {}
    for name in PER_SAMPLE:
        values = getattr(group, name, ())
        if len(values):
            changes[name] = (
                values[indices] if isinstance(values, np.ndarray) else tuple(values[i] for i in indices)
            )
    return replace(group, **changes)  # type: ignore[type-var]


def num_samples(group: TokenRows) -> int:
    """Returns the number of completions of the group."""
    return len(group.token_ids)


def num_packed_tokens(group: TokenRows) -> int:
    """Returns how many tokens the learner computes for the group: the prompt once, and all completions."""
    return len(group.prompt_token_ids) + sum(len(ids) for ids in group.token_ids)


def consecutive(groups: Sequence[G], max_tokens: int, max_audio_frames: int | None = None) -> list[list[G]]:
    """Returns runs of groups, in order, of at most `max_tokens` and `max_audio_frames`; a larger group stands
    alone."""
    limits = (max_tokens, math.inf if max_audio_frames is None else max_audio_frames)
    batches: list[list[G]] = []
    load = (0, 0)
    for group in groups:
        size = (num_packed_tokens(group), num_audio_frames(group))
        load = (load[0] + size[0], load[1] + size[1])
        if batches and load[0] <= limits[0] and load[1] <= limits[1]:
            batches[-1].append(group)
        else:
            batches.append([group])
            load = size
    return batches


def shard_groups(groups: Sequence[G], num_ranks: int) -> list[list[G]]:
    """Returns disjoint groups for each rank, balanced by tokens; the result is deterministic.

    The longest goes first, to the least loaded rank (within 4/3 of the best possible largest load; Graham
    1969). Where there are fewer groups than ranks, the largest are halved, as every rank must take part.

    Raises:
        ValueError: there are fewer samples than ranks.
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
            (i for i, g in enumerate(groups) if num_samples(g) > 1),
            key=lambda i: num_packed_tokens(groups[i]),
        )
        size = num_samples(groups[at])
        first, second = range(size // 2), range(size // 2, size)
        groups[at : at + 1] = [take_samples(groups[at], first), take_samples(groups[at], second)]

    shards: list[list[G]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for group in sorted(groups, key=num_packed_tokens, reverse=True):
        rank = min(range(num_ranks), key=lambda r: (loads[r], len(shards[r])))
        shards[rank].append(group)
        loads[rank] += num_packed_tokens(group)
    return shards


def num_audio_frames(group: TokenRows) -> int:
    """Returns how many mel frames the audio tower computes for the group; 0 where media come as
    embeddings."""
    features = getattr(group, "media_inputs", {}).get("input_features")  # [A, M, F]
    return 0 if features is None else features.shape[0] * features.shape[-1]


def micro_batches(groups: Sequence[G], max_tokens: int, max_audio_frames: int | None = None) -> list[list[G]]:
    """Returns groups packed into batches of at most `max_tokens` and `max_audio_frames`, deterministically.

    The method is first fit, largest first (at most 11/9 of the fewest possible batches; Johnson 1973). A
    group above the bound of tokens is cut by samples, each piece with the prompt. A single sample above a
    bound, in tokens or audio, gets a batch of its own.
    """
    pieces = [piece for group in groups if num_samples(group) for piece in _cut(group, max_tokens)]
    limits = (max_tokens, math.inf if max_audio_frames is None else max_audio_frames)
    batches: list[list[G]] = []
    loads: list[tuple[int, int]] = []
    for piece in sorted(pieces, key=num_packed_tokens, reverse=True):
        tokens, frames = num_packed_tokens(piece), num_audio_frames(piece)
        fits = (i for i, (t, f) in enumerate(loads) if t + tokens <= limits[0] and f + frames <= limits[1])
        at = next(fits, len(batches))
        if at == len(batches):
            batches.append([])
            loads.append((0, 0))
        batches[at].append(piece)
        loads[at] = (loads[at][0] + tokens, loads[at][1] + frames)
    return batches


def smallest_sample(groups: Sequence[G]) -> G:
    """Returns the shortest sample as a group of its own, to feed with weight 0 while other ranks have work
    left.

    The sample is a real one and not invented: every rank must then enter the same modules, media included.
    """
    samples = [take_samples(group, [i]) for group in groups for i in range(num_samples(group))]
    return min(samples, key=num_packed_tokens)


def _cut(group: G, max_tokens: int) -> list[G]:
    """Returns the group in pieces of at most `max_tokens`, samples in their order."""
    if num_packed_tokens(group) <= max_tokens:
        return [group]
    pieces: list[list[int]] = []
    room = 0
    for index, tokens in enumerate(group.token_ids):
        if not pieces or len(tokens) > room:
            pieces.append([])
            room = max_tokens - len(group.prompt_token_ids)
        pieces[-1].append(index)
        room -= len(tokens)
    return [take_samples(group, piece) for piece in pieces]
