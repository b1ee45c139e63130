from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from rlcore.algorithms.batching import (
    micro_batches,
    num_packed_tokens,
    num_samples,
    shard_groups,
    smallest_sample,
    take_samples,
)
from rlcore.types import TrainGroup


def make_group(name: int, prompt: int, lengths: list[int]) -> TrainGroup:
    return TrainGroup(
        prompt_token_ids=np.full(prompt, name),
        media_inputs={},
        token_ids=tuple(np.full(length, i) for i, length in enumerate(lengths)),
        rollout_logprobs=tuple(np.zeros(length, np.float32) for length in lengths),
        reference_logprobs=(),
        advantages=np.arange(len(lengths), dtype=np.float32),
    )


def names(batches) -> list[list[int]]:
    return [[int(group.prompt_token_ids[0]) for group in batch] for batch in batches]


def test_shards_are_balanced_by_tokens_longest_first():
    groups = [make_group(i, 1, [size - 1]) for i, size in enumerate((10, 70, 40, 50, 30))]
    assert names(shard_groups(groups, 2)) == [[1, 4], [3, 2, 0]]  # 100 tokens each


def test_every_rank_gets_work_by_halving_the_largest_group():
    shards = shard_groups([make_group(0, 2, [5, 6, 7])], 3)
    assert [[len(ids) for group in shard for ids in group.token_ids] for shard in shards] == [[7], [6], [5]]
    with pytest.raises(ValueError, match="num_ranks"):
        shard_groups([make_group(0, 2, [5, 6, 7])], 4)


def test_micro_batches_hold_whole_groups_within_the_bound():
    groups = [
        make_group(0, 4, [1, 6]),
        make_group(1, 4, [2, 2]),
        make_group(2, 4, [4, 3]),
        make_group(3, 4, [1]),
    ]
    # 11, 8, 11 and 5 tokens, prompts once: the last fits in beside the first.
    assert names(micro_batches(groups, 16)) == [[0, 3], [2], [1]]
    assert names(micro_batches(groups, 10_000)) == [[0, 2, 1, 3]]


def test_a_group_above_the_bound_is_cut_by_samples():
    pieces = [piece for (piece,) in micro_batches([make_group(0, 2, [8, 1, 7, 2])], 12)]
    assert sorted(piece.advantages.tolist() for piece in pieces) == [[0.0, 1.0], [2.0, 3.0]]
    alone = micro_batches([make_group(0, 2, [8, 1])], 1)
    assert [num_samples(batch[0]) for batch in alone] == [1, 1]


def test_raw_audio_counts_on_its_own():
    def with_audio(name: int, frames: int) -> TrainGroup:
        features = np.zeros((1, 128, frames), np.float32)
        return replace(make_group(name, 4, [1]), media_inputs={"input_features": features})

    groups = [with_audio(0, 300), with_audio(1, 300), with_audio(2, 100), make_group(3, 4, [1])]
    assert names(micro_batches(groups, 10_000, 400)) == [[0, 2, 3], [1]]
    assert names(micro_batches(groups, 10_000, 200)) == [[0], [1], [2, 3]]


def test_samples_keep_what_is_theirs():
    group = take_samples(make_group(0, 2, [3, 4, 5]), [2, 0])
    assert group.advantages.tolist() == [2.0, 0.0]
    assert [len(x) for x in group.token_ids] == [len(x) for x in group.rollout_logprobs] == [5, 3]
    assert num_packed_tokens(group) == 10
    smallest = smallest_sample([make_group(0, 9, [1]), make_group(1, 2, [6, 3])])
    assert (num_samples(smallest), num_packed_tokens(smallest)) == (1, 5)


def test_no_field_of_a_sample_stays_behind():
    of_the_group = {"prompt_token_ids", "media_inputs", "prompt_id"}
    names = {field.name for field in fields(TrainGroup)} - of_the_group
    numbered = tuple(np.array([i]) for i in range(3))
    own = {name: np.arange(3) if name == "advantages" else numbered for name in names}
    group = take_samples(replace(make_group(0, 2, [1, 1, 1]), **own), [2, 0])
    for name in names:
        assert np.ravel(getattr(group, name)).tolist() == [2, 0], name
