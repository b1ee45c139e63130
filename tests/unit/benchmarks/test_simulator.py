"""The simulated loop against closed forms, and the invariants of the real one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulator import Loop, simulate


def constant(length: int) -> object:
    return lambda rng, count: np.full(count, length)


def long_tailed(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.clip(np.round(rng.lognormal(np.log(60), 0.9, size=count)), 1, 512).astype(np.int64)


LOOP = Loop(
    num_engines=2,
    prompts_per_step=8,
    samples_per_prompt=4,
    prompt_length=10,
    max_num_seqs=16,
    lengths=constant(100),
    step_seconds=lambda active, cached: 0.01,
    prefill_seconds=lambda tokens: tokens * 1e-3,
    score_seconds=0.0,
    update_seconds=1.0,
    sync_seconds=0.5,
)
"""Each engine reads 4 prompts of 10 tokens (0.04 s) and writes 16 sequences at once, 100 steps (1 s)."""


def test_taking_turns_is_the_sum_of_the_phases() -> None:
    result = simulate(LOOP)
    assert result.step_seconds == pytest.approx(0.04 + 1.0 + 1.0 + 0.5)
    assert result.learner_utilization == pytest.approx(1 / 2.54)
    # The pause for a push is counted as work.
    assert result.engine_utilization == pytest.approx(1.54 / 2.54)
    assert (result.max_staleness, result.cancelled) == (0, 0.0)


def test_places_are_taken_again_when_they_become_free() -> None:
    """Half the places: two waves, and the prompts of the second are read when it begins."""
    result = simulate(replace(LOOP, max_num_seqs=8, update_seconds=0.0, sync_seconds=0.0))
    assert result.step_seconds == pytest.approx(2 * (0.02 + 1.0))


def test_a_step_costs_what_batch_and_cache_cost() -> None:
    def step_seconds(active: float, cached: float) -> float:
        return 1e-3 * active + 1e-6 * cached

    result = simulate(replace(LOOP, step_seconds=step_seconds, update_seconds=0.0, sync_seconds=0.0))
    # 16 sequences, 10 / 4 tokens of prompt and on average 50 written tokens each.
    assert result.step_seconds == pytest.approx(0.04 + 100 * (16e-3 + 1e-6 * 16 * (2.5 + 50)))


def test_running_ahead_hides_the_shorter_of_rollout_and_update() -> None:
    slow_learner = simulate(replace(LOOP, staleness=1, update_seconds=5.0), num_steps=8)
    assert slow_learner.step_seconds == pytest.approx(5.5, rel=1e-6)
    assert slow_learner.learner_utilization == pytest.approx(5 / 5.5, rel=1e-6)
    slow_rollout = simulate(replace(LOOP, staleness=1, update_seconds=0.1, sync_seconds=0.0), num_steps=8)
    # What is being written when weights arrive is computed again.
    assert slow_rollout.engine_utilization == pytest.approx(1.0, abs=1e-6)
    assert 1.04 <= slow_rollout.step_seconds <= 1.04 + 2 * 1.7


def test_scoring_beside_the_rollout_adds_its_last_chunk() -> None:
    """All groups end at once here: nothing is left to score beside."""
    scored = simulate(replace(LOOP, score_seconds=0.8))
    assert scored.step_seconds == pytest.approx(2.54 + 0.8)
    orchestrated = simulate(replace(LOOP, controller_seconds=0.01))
    assert orchestrated.step_seconds == pytest.approx(2.54 + 8 * 0.01)


@pytest.mark.parametrize("staleness", [0, 1, 3])
@pytest.mark.parametrize("oversample", [0.0, 0.5])
def test_the_bound_on_staleness_is_never_passed(staleness: int, oversample: float) -> None:
    for seed in range(3):
        loop = replace(LOOP, lengths=long_tailed, staleness=staleness, oversample=oversample)
        result = simulate(loop, seed=seed)
        assert result.max_staleness <= staleness
        assert 0 < result.engine_utilization <= 1 + 1e-9
        assert (result.cancelled > 0) == (oversample > 0)
    assert simulate(loop, seed=1) == simulate(loop, seed=1)


def test_a_long_tail_costs_most_where_everything_waits_for_it() -> None:
    loop = replace(LOOP, num_engines=8, prompts_per_step=32, lengths=long_tailed, update_seconds=2.0)
    in_turns, one_ahead, first_come = (
        simulate(replace(loop, **settings), num_steps=10)
        for settings in ({}, {"staleness": 1}, {"oversample": 0.25})
    )
    assert one_ahead.step_seconds < 0.75 * in_turns.step_seconds
    assert first_come.step_seconds < 0.9 * in_turns.step_seconds
    assert one_ahead.engine_utilization > in_turns.engine_utilization
