from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlcore.algorithms.ptr import MixedRewards
from rlcore.algorithms.shaping import overlong_penalty
from rlcore.config import AlgorithmConfig, LearnerConfig, RolloutConfig
from rlcore.loop.batch import Advantages, build_batch, rank_batches, shape_rewards
from rlcore.loop.scored import ScoredGroup, group_arrays
from rlcore.types import Completion, Group, Prompt, TrainBatch, TrainGroup

LENGTHS = [[4, 8, 10], [1, 0, 6]]
LIMIT = 10
ROLLOUT = RolloutConfig(max_tokens=LIMIT)


def make_groups() -> list[Group]:
    """Two groups of three; every token has logprob -1; the completion of ten tokens was cut."""
    return [
        Group(
            prompt=Prompt(id=str(g), text=""),
            prompt_token_ids=(1, 2),
            completions=tuple(
                Completion(
                    token_ids=tuple(range(length)),
                    logprobs=(-1.0,) * length,
                    text="",
                    finish_reason="length" if length == LIMIT else "stop",
                    policy_version=3,
                )
                for length in lengths
            ),
        )
        for g, lengths in enumerate(LENGTHS)
    ]


MIXED = MixedRewards(
    rewards=np.array([[1.0, 0.5, 1.0], [0.0, 1.0, 0.0]]),
    mask=np.array([[True] * 3, [True, True, False]]),
    tau=np.ones(2),
)
REFERENCE = [[np.full(length, -1.5, np.float32) for length in lengths] for lengths in LENGTHS]


def scored(reference=None, groups: list[Group] | None = None) -> list[ScoredGroup]:
    return [
        ScoredGroup(
            group=group,
            scores={},
            values={},
            arrays=group_arrays(group, None if reference is None else reference[g]),
        )
        for g, group in enumerate(groups or make_groups())
    ]


def shape(reference=None, **settings) -> np.ndarray:
    return shape_rewards(MIXED, scored(reference), AlgorithmConfig(**settings), ROLLOUT)


def plain(samples: np.ndarray, keep: np.ndarray) -> Advantages:
    """Without a reward that judges steps."""
    return Advantages(samples=samples, tokens=None, keep=keep)


def test_without_settings_rewards_stay_as_they_were_mixed() -> None:
    np.testing.assert_array_equal(shape(REFERENCE), MIXED.rewards)


def test_the_penalty_grows_over_the_buffer() -> None:
    lengths = np.array([0, 6, 7, 8, 9, 10, 12])
    np.testing.assert_allclose(overlong_penalty(lengths, 10, 4), [0, 0, -0.25, -0.5, -0.75, -1, -1])
    shaped = shape(overlong_buffer=4, overlong_penalty=2.0)
    np.testing.assert_allclose(shaped, [[1.0, 0.5 - 1.0, 1.0 - 2.0], [0.0, 1.0, 0.0]])


def test_the_penalty_knows_the_limit_that_cut() -> None:
    """A prompt of 900 tokens in a context of 1024 leaves 124, where `max_tokens` would allow 512."""
    cut, near, short = (
        Completion(
            token_ids=(1,) * length,
            logprobs=(-1.0,) * length,
            text="",
            finish_reason="length" if length == 124 else "stop",
            policy_version=0,
        )
        for length in (124, 119, 50)
    )
    group = Group(prompt=Prompt(id="p", text=""), prompt_token_ids=(1,) * 900, completions=(cut, near, short))
    mixed = replace(MIXED, rewards=np.zeros((1, 3)), mask=np.ones((1, 3), bool), tau=np.ones(1))
    algorithm = AlgorithmConfig(overlong_buffer=10, overlong_penalty=1.0)
    context = RolloutConfig(max_tokens=512, engine={"max_model_len": 1024})
    np.testing.assert_allclose(
        shape_rewards(mixed, scored(groups=[group]), algorithm, context), [[-1, -0.5, 0]]
    )
    unknown = RolloutConfig(max_tokens=512)  # the checkpoint's own context: the cut alone is known
    np.testing.assert_allclose(shape_rewards(mixed, scored(groups=[group]), algorithm, unknown), [[-1, 0, 0]])


@pytest.mark.parametrize(
    ("estimator", "of_a_token"), [("k1", 0.5), ("k2", 0.125), ("k3", np.exp(-0.5) - 0.5)]
)
def test_kl_in_the_reward_is_that_of_the_whole_sequence(estimator: str, of_a_token: float) -> None:
    shaped = shape(REFERENCE, kl_in="reward", kl_coef=0.1, kl_estimator=estimator)
    expected = MIXED.rewards - 0.1 * of_a_token * np.array(LENGTHS)
    expected[1, 2] = 0  # masked
    np.testing.assert_allclose(shaped, expected, rtol=1e-6)


def test_the_batch_counts_what_it_holds() -> None:
    keep = np.array([[True, False, True], [False, False, False]])
    advantages = np.arange(6, dtype=np.float32).reshape(2, 3)
    of_tokens = [[np.full(length, 0.1 * length) for length in lengths] for lengths in LENGTHS]
    chosen = Advantages(samples=advantages, tokens=of_tokens, keep=keep)
    batch = build_batch(scored(REFERENCE), chosen, 3)
    (group,) = batch.groups
    assert [len(tokens) for tokens in group.token_ids] == [4, 10]
    assert [len(row) for row in group.rollout_logprobs] == [len(row) for row in group.reference_logprobs]
    assert group.advantages.tolist() == [0.0, 2.0]
    assert [row.tolist() for row in group.token_advantages] == [[0.4] * 4, [1.0] * 10]
    assert (batch.num_sequences, batch.num_tokens, batch.policy_version) == (2, 14, 3)


def test_a_batch_travels_as_a_few_arrays_and_arrives_as_it_was() -> None:
    keep, advantages = np.ones((2, 3), bool), np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = build_batch(scored(REFERENCE), plain(advantages, keep), 3)
    bare = replace(sent.groups[1], reference_logprobs=(), media_inputs={"x": np.ones(2)})
    written = tuple(np.arange(length) % 3 > 0 for length in LENGTHS[0])
    groups = (replace(sent.groups[0], is_sampled=written), bare)
    for batch in (replace(sent, groups=groups), replace(sent, groups=())):
        buffers: list[pickle.PickleBuffer] = []
        wire = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
        arrived = pickle.loads(wire, buffers=buffers)
        assert len(buffers) <= 10
        assert (arrived.num_sequences, arrived.num_tokens, arrived.policy_version) == (6, 29, 3)
        assert len(arrived.groups) == len(batch.groups)
        for mine, theirs in zip(arrived.groups, batch.groups, strict=True):
            for one in fields(TrainGroup):
                assert same(getattr(mine, one.name), getattr(theirs, one.name)), one.name


def same(one, other) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tolist() == other.tolist()
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one == other


def test_a_batch_may_be_empty_and_an_empty_completion_counts_as_a_sequence() -> None:
    zeros, none = np.zeros((2, 3), np.float32), np.zeros((2, 3), bool)
    empty = build_batch(scored(), plain(zeros, none), policy_version=1)
    assert (empty.groups, empty.num_sequences, empty.num_tokens) == ((), 0, 0)
    whole = build_batch(scored(), plain(zeros, ~none), policy_version=1)
    assert (whole.num_sequences, whole.num_tokens) == (6, 29)
    assert whole.groups[0].reference_logprobs == ()


def test_tokens_of_other_versions_are_told_apart() -> None:
    """Version 3 wrote them all, but for the first two tokens of one."""
    groups, keep = make_groups(), np.ones((2, 3), bool)
    mixed = replace(groups[1].completions[2], policy_version=2, version_spans=((2, 2), (3, 4)))
    groups[1] = replace(groups[1], completions=(*groups[1].completions[:2], mixed))
    now = build_batch(scored(groups=groups), plain(np.zeros((2, 3)), keep), 3)
    assert now.groups[0].is_current == ()  # all of them
    assert [row.tolist() for row in now.groups[1].is_current] == [[True], [], [False, False, *[True] * 4]]
    later = build_batch(scored(groups=groups), plain(np.zeros((2, 3)), keep), 4)
    assert not any(row.any() for group in later.groups for row in group.is_current)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    num_mini_batches=st.integers(1, 8),
    num_ranks=st.integers(1, 3),
)
def test_mini_batches_are_runs_of_prompts_with_totals_of_their_own(
    sizes: list[int], num_mini_batches: int, num_ranks: int
) -> None:
    """Every completion is in one mini-batch of one rank, and no rank is left without one."""
    assume(sum(sizes) >= num_ranks)
    groups = tuple(
        TrainGroup(
            prompt_id=str(g),
            prompt_token_ids=np.array([1]),
            token_ids=tuple(np.array([g, k]) for k in range(size)),
            rollout_logprobs=tuple(np.zeros(2, np.float32) for _ in range(size)),
            reference_logprobs=(),
            media_inputs={},
            advantages=np.arange(size, dtype=np.float32),
        )
        for g, size in enumerate(sizes)
    )
    batch = TrainBatch(groups=groups, num_sequences=sum(sizes), num_tokens=2 * sum(sizes), policy_version=3)
    learner = LearnerConfig(num_ranks=num_ranks, num_mini_batches=num_mini_batches)
    by_rank = rank_batches(batch, learner)

    assert len(by_rank) == num_ranks and len({len(parts) for parts in by_rank}) == 1
    by_step = list(zip(*by_rank, strict=True))
    assert 1 <= len(by_step) <= num_mini_batches
    if min(sizes) >= num_ranks:
        assert len(by_step) == min(num_mini_batches, len(sizes))
    order = []
    for parts in by_step:
        rows = [tuple(ids) for part in parts for group in part.groups for ids in group.token_ids]
        assert all(part.groups for part in parts)
        assert {part.num_sequences for part in parts} == {len(rows)}
        assert {part.num_tokens for part in parts} == {2 * len(rows)}
        assert {part.policy_version for part in parts} == {3}
        order += sorted(rows)
    assert order == [(g, k) for g, size in enumerate(sizes) for k in range(size)]
