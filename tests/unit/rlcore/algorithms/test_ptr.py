from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rlcore.algorithms.ptr import mix_rewards, trust_weight
from rlcore.algorithms.ptr_schedule import Annealing, ProgressiveGate

OUTCOME = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
REASONING = np.array([[0.8, 0.6, 0.2, 0.4], [0.3, 0.9, 0.7, 0.8]])
WEIGHTS = {"format": 0.3, "outcome": 1.0, "reasoning": 0.5}
SCORES = {"format": np.ones((2, 4)), "outcome": OUTCOME, "reasoning": REASONING}
PTR = {"outcome": "outcome", "reasoning": "reasoning"}


def test_trust_weight_by_hand():
    assert trust_weight(OUTCOME[0], REASONING[0]) == 1.0  # the right ones are reasoned better
    assert trust_weight(OUTCOME[1], REASONING[1]) == pytest.approx(math.exp(0.3 - 0.8))
    # An outcome of 0.5 is not right.
    assert trust_weight(np.array([1.0, 0.5]), np.array([0.2, 0.8])) == pytest.approx(math.exp(0.2 - 0.8))


@pytest.mark.parametrize("outcomes", [[1, 1], [0, 0], [1, np.nan]])
def test_trust_weight_is_one_where_a_side_is_empty(outcomes):
    assert trust_weight(np.array(outcomes, dtype=float), np.array([0.1, 0.9])) == 1.0


def test_mixing_weighs_trust_into_the_reasoning_term_alone():
    mixed = mix_rewards(SCORES, WEIGHTS, **PTR)
    tau = math.exp(-0.5)
    np.testing.assert_allclose(mixed.tau, [1.0, tau])
    np.testing.assert_allclose(mixed.rewards[0], [1.7, 1.6, 0.4, 0.5])
    np.testing.assert_allclose(mixed.rewards[1], 0.3 + OUTCOME[1] + 0.5 * tau * REASONING[1])
    assert mixed.mask.all()


def test_ablations_without_trust_without_gate_and_plain_sum():
    plain = 0.3 + OUTCOME + 0.5 * REASONING
    np.testing.assert_allclose(mix_rewards(SCORES, WEIGHTS, **PTR, trust=False).rewards, plain)
    np.testing.assert_allclose(mix_rewards(SCORES, WEIGHTS).rewards, plain)
    closed = mix_rewards(SCORES, WEIGHTS, **PTR, factor=0.0)
    np.testing.assert_allclose(closed.rewards, 0.3 + OUTCOME)
    assert closed.tau[1] < 1  # still measured
    faded = mix_rewards(SCORES, WEIGHTS, **PTR, trust=False, factor=Annealing(20).factor(30))
    np.testing.assert_allclose(faded.rewards, 0.3 + OUTCOME + 0.5 * math.exp(-1.5) * REASONING)


def test_a_failed_score_masks_its_sample_only_where_it_counts():
    broken = REASONING.copy()
    broken[0, 1] = np.nan
    scores = SCORES | {"reasoning": broken}
    opened, closed = mix_rewards(scores, WEIGHTS, **PTR), mix_rewards(scores, WEIGHTS, **PTR, factor=0.0)
    assert opened.mask.tolist() == [[True, False, True, True], [True] * 4]
    assert opened.rewards[0, 1] == 0
    assert closed.mask.all()
    assert mix_rewards(scores, WEIGHTS | {"reasoning": 0.0}, **PTR).mask.all()


def test_terms_keep_their_rewards_and_carry_trust_and_schedule_as_weights():
    mixed = mix_rewards(
        SCORES | {"idle": REASONING}, WEIGHTS | {"idle": 0.0}, **PTR, factor=0.5, decoupled=True
    )
    of_format, of_outcome, of_reasoning = mixed.terms
    np.testing.assert_array_equal(of_reasoning.values, REASONING)
    np.testing.assert_allclose(of_format.weights, [0.3, 0.3])
    np.testing.assert_allclose(of_outcome.weights, [1.0, 1.0])
    np.testing.assert_allclose(of_reasoning.weights, [0.25, 0.25 * math.exp(-0.5)])
    assert mix_rewards(SCORES, WEIGHTS, **PTR).terms == ()


def test_rewards_whose_sum_is_equal_are_signal_where_each_counts_by_itself():
    scores = {"a": np.array([[1.0, 0.0], [0.5, 0.5]]), "b": np.array([[0.0, 2.0], [0.1, 0.1]])}
    weights = {"a": 1.0, "b": 0.5}
    assert mix_rewards(scores, weights).has_signal.tolist() == [False, False]
    assert mix_rewards(scores, weights, decoupled=True).has_signal.tolist() == [True, False]


def test_mixing_names_what_disagrees():
    with pytest.raises(ValueError, match="weights of"):
        mix_rewards(SCORES, {"format": 1.0})
    with pytest.raises(ValueError, match="shape"):
        mix_rewards({"a": np.ones((1, 2)), "b": np.ones((2, 2))}, {"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="outcome reward 'label'"):
        mix_rewards(SCORES, WEIGHTS, outcome="label", reasoning="reasoning")


def openings(gate: ProgressiveGate, *outcomes: float) -> list[bool]:
    """Whether the gate is open after each outcome."""
    return [gate.observe(outcome) or gate.is_open for outcome in outcomes]


def test_gate_waits_for_a_full_window_and_stays_open():
    gate = ProgressiveGate(threshold=0.5, window=4, max_spread=0.1)
    assert openings(gate, 0.6, 0.6, 0.6, 0.6, 0.0, 0.0) == [False, False, False, True, True, True]


def test_gate_opens_at_the_bounds_themselves():
    mean_is_threshold = ProgressiveGate(threshold=0.5, window=3, max_spread=0.0)
    assert openings(mean_is_threshold, 0.5, 0.5, 0.5)[-1]
    # A line without noise, from 0.6 to 0.9.
    rising = 0.6, 0.7, 0.8, 0.9
    assert openings(ProgressiveGate(threshold=0.5, window=4, max_spread=0.3), *rising)[-1]
    assert not openings(ProgressiveGate(threshold=0.5, window=4, max_spread=0.29), *rising)[-1]
    assert not openings(ProgressiveGate(threshold=0.5, window=4, max_spread=0.29), *rising[::-1])[-1]


def test_gate_asks_for_three_standard_errors():
    # No slope; the residuals +-0.1 leave a deviation of sqrt(4 * 0.01 / (4 - 2)) = 0.1414. So the mean 0.75
    # is known to 0.0707, and the change over the window to 3 * 0.1414 / sqrt(5) = 0.1897.
    outcomes = 0.85, 0.65, 0.65, 0.85
    low = 0.75 - 3 * 0.0707107
    assert openings(ProgressiveGate(threshold=low - 1e-4, window=4, max_spread=1.0), *outcomes)[-1]
    assert not openings(ProgressiveGate(threshold=low + 1e-4, window=4, max_spread=1.0), *outcomes)[-1]
    assert openings(ProgressiveGate(threshold=0.5, window=4, max_spread=0.5693), *outcomes)[-1]
    assert not openings(ProgressiveGate(threshold=0.5, window=4, max_spread=0.5691), *outcomes)[-1]


def test_gate_below_the_threshold_stays_closed():
    gate = ProgressiveGate(threshold=0.5, window=3, max_spread=0.1)
    assert not any(openings(gate, *[0.49] * 20))


def test_gate_survives_json_and_ignores_steps_without_an_outcome():
    gate = ProgressiveGate(threshold=0.5, window=3, max_spread=0.5)
    assert openings(gate, 0.6, float("nan"), 0.6) == [False, False, False]
    other = ProgressiveGate(threshold=0.5, window=3, max_spread=0.5)
    other.load_state_dict(json.loads(json.dumps(gate.state_dict())))
    assert openings(other, 0.6) == openings(gate, 0.6) == [True]
