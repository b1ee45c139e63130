"""Losses of preferences against the papers' formulas, written with scalars of Python's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.preference import bradley_terry, dpo, ipo, kto, kto_kl, kto_margins, pointwise
from rlcore.config.offline import PreferConfig
from rlcore.engines.logprobs import CompletionLogprobs
from rlcore.engines.preferences import PreferenceGroup, PreferenceObjective, is_right

RATIOS = st.floats(-50, 50)
PAIRS = st.lists(st.tuples(RATIOS, RATIOS), min_size=1, max_size=5)
BETAS = st.floats(0.01, 2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@given(PAIRS, BETAS, st.floats(0, 0.49))
def test_dpo_is_the_likelihood_of_the_preference(pairs, beta: float, smoothing: float) -> None:
    ratios = tensor(pairs)
    losses = dpo(ratios, beta=beta, label_smoothing=smoothing)
    losses.sum().backward()
    for (chosen, rejected), loss, gradient in zip(pairs, losses.tolist(), ratios.grad.tolist(), strict=True):
        h = beta * (chosen - rejected)
        assert loss == pytest.approx(
            -(1 - smoothing) * log_sigmoid(h) - smoothing * log_sigmoid(-h), abs=1e-6
        )
        # The gradient of -log sigmoid(h) is -sigmoid(-h): pairs that are told apart no longer pull.
        pull = beta * (smoothing * sigmoid(h) - (1 - smoothing) * sigmoid(-h))
        assert gradient == pytest.approx([pull, -pull], abs=1e-6)


@given(PAIRS, BETAS)
def test_ipo_has_a_margin_as_its_goal(pairs, beta: float) -> None:
    losses = ipo(tensor(pairs), beta=beta).tolist()
    expected = [(chosen - rejected - 1 / (2 * beta)) ** 2 for chosen, rejected in pairs]
    assert losses == pytest.approx(expected, rel=1e-9, abs=1e-6)
    at_goal = tensor([[1 / (2 * beta), 0.0]])
    ipo(at_goal, beta=beta).sum().backward()
    assert at_goal.grad.abs().max() < 1e-6


@given(
    st.lists(st.tuples(RATIOS, st.booleans()), min_size=1, max_size=5),
    BETAS,
    st.floats(0, 20),
    st.floats(0.1, 3),
    st.floats(0.1, 3),
)
def test_kto_weighs_gains_and_losses_from_its_point_of_reference(
    answers, beta: float, kl: float, gain: float, loss: float
) -> None:
    ratios, desirable = tensor([r for r, _ in answers]), torch.tensor([d for _, d in answers])
    losses = kto(ratios, desirable, kl, beta=beta, desirable_weight=gain, undesirable_weight=loss)
    losses.sum().backward()
    margins = kto_margins(ratios, desirable, kl, beta=beta).tolist()
    rows = zip(answers, losses.tolist(), margins, ratios.grad.tolist(), strict=True)
    for (ratio, is_desirable), got, margin, gradient in rows:
        h, weight = (beta * (ratio - kl), gain) if is_desirable else (beta * (kl - ratio), loss)
        value = sigmoid(h)
        assert (got, margin) == pytest.approx((weight * (1 - value), h), abs=1e-6)
        sign = 1 if is_desirable else -1
        assert gradient == pytest.approx(-sign * weight * beta * value * (1 - value), abs=1e-6)


@given(PAIRS, st.lists(st.booleans(), min_size=5, max_size=5))
def test_reward_models_are_judged_by_likelihoods(pairs, labels: list[bool]) -> None:
    rewards = tensor(pairs)
    losses = bradley_terry(rewards)
    losses.sum().backward()
    for (chosen, rejected), loss, gradient in zip(pairs, losses.tolist(), rewards.grad.tolist(), strict=True):
        assert loss == pytest.approx(-log_sigmoid(chosen - rejected), abs=1e-6)
        pull = -sigmoid(rejected - chosen)
        assert gradient == pytest.approx([pull, -pull], abs=1e-6)
    single, desirable = tensor([chosen for chosen, _ in pairs]), torch.tensor(labels[: len(pairs)])
    for (reward, _), label, loss in zip(pairs, labels, pointwise(single, desirable).tolist(), strict=False):
        assert loss == pytest.approx(-log_sigmoid(reward if label else -reward), abs=1e-6)


def test_literal_numbers() -> None:
    pair = tensor([[1.0, -1.0], [0.0, 0.0]])
    assert dpo(pair, beta=0.5).tolist() == pytest.approx([0.3132616875182228, math.log(2)], abs=1e-9)
    smoothed = dpo(pair, beta=0.5, label_smoothing=0.1)[0]
    assert smoothed.item() == pytest.approx(0.4132616875182228, abs=1e-9)
    assert ipo(pair, beta=0.5).tolist() == pytest.approx([1.0, 1.0])
    assert bradley_terry(pair).tolist() == pytest.approx([0.1269280110429726, math.log(2)], abs=1e-9)
    labels = torch.tensor([True, False])
    assert pointwise(tensor([2.0, 2.0]), labels).tolist() == pytest.approx(
        [0.1269280110429726, 2.1269280110429727], abs=1e-9
    )
    both = kto(tensor([1.0, 1.0]), torch.tensor([True, False]), 0.5, beta=2.0, undesirable_weight=1.5)
    assert both.tolist() == pytest.approx([0.2689414213699951, 1.5 * 0.7310585786300049], abs=1e-9)
    assert [kto_kl(-3.0, 4), kto_kl(6.0, 4), kto_kl(0.0, 0)] == [0.0, 1.5, 0.0]


def test_losses_stay_finite_far_out_and_nan_is_not_hidden() -> None:
    far = tensor([[1e4, -1e4], [-1e4, 1e4]])
    losses = dpo(far, beta=1.0)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 2e4] and far.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]
    assert kto(tensor([1e4, -1e4]), torch.tensor([True, True]), 0.0, beta=1.0).tolist() == [0.0, 1.0]
    assert dpo(tensor([[math.nan, 0.0]]), beta=1.0).isnan().all()
    assert dpo(tensor(np.zeros((0, 2))), beta=1.0).shape == (0,)
    assert is_right(torch.tensor([2.0, 0.0, -0.5])).tolist() == [1.0, 0.5, 0.0]


def scored(rows: list[list[float]]) -> CompletionLogprobs:
    """Answers of these tokens, padded with what must not count."""
    length = max(map(len, rows))
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])
    logprobs = torch.tensor([row + [0.0] * (length - len(row)) for row in rows], requires_grad=True)
    return CompletionLogprobs(logprobs=logprobs, entropies=torch.zeros(mask.shape), mask=mask)


def group(reference: list[float], **fields: Any) -> PreferenceGroup:
    return PreferenceGroup(
        prompt_id="p",
        prompt_token_ids=np.array([1]),
        token_ids=tuple(np.array([1]) for _ in reference),
        reference=np.array(reference),
        **fields,
    )


def test_shares_of_micro_batches_add_up_to_the_batch() -> None:
    rows = [[-1.0, -2.0], [-0.5], [-3.0], [-1.0, -1.0, -1.0]]
    groups = [group([-2.0, -1.0]), group([-3.5, -2.0])]
    config = PreferConfig(beta=0.5)
    objective = PreferenceObjective(config=config, num_examples=2)
    whole = objective.share(scored(rows), groups, 0)
    parts = [objective.share(scored(rows[2 * i : 2 * i + 2]), groups[i : i + 1], i) for i in range(2)]
    ratios = [(-3 + 2) - (-0.5 + 1), (-3 + 3.5) - (-3 + 2)]
    expected = sum(-log_sigmoid(0.5 * ratio) for ratio in ratios) / 2
    assert whole.loss.item() == pytest.approx(expected, abs=1e-6)
    assert sum(part.loss.item() for part in parts) == pytest.approx(expected, abs=1e-6)
    assert float(whole.sums["margin"]) == pytest.approx(0.5 * sum(ratios) / 2, abs=1e-6)
    assert float(whole.sums["accuracy"]) == 0.5 and float(whole.sums["tokens"]) == 7


def test_padding_has_no_gradient_and_a_lone_answer_of_a_pair_none_at_all() -> None:
    objective = PreferenceObjective(config=PreferConfig(), num_examples=1)
    both = scored([[-1.0, -2.0], [-0.5]])
    objective.share(both, [group([-2.0, -1.0])], 0).loss.backward()
    assert both.logprobs.grad[0].tolist() == both.logprobs.grad[0][:1].tolist() * 2
    lone = scored([[-1.0]])
    loss = objective.share(lone, [group([-2.0])], 0).loss
    loss.backward()
    assert loss.item() == 0 and lone.logprobs.grad.tolist() == [[0.0]]


def test_kto_takes_each_answers_label() -> None:
    config = PreferConfig(loss="kto", beta=1.0, desirable_weight=2.0)
    objective = PreferenceObjective(config=config, num_examples=2, kl=0.25)
    groups = [group([-2.0], desirable=True), group([-2.0], desirable=False)]
    share = objective.share(scored([[-1.0], [-1.0]]), groups, 0)
    assert share.loss.item() == pytest.approx((2 * (1 - sigmoid(0.75)) + 1 - sigmoid(-0.75)) / 2, abs=1e-6)
    assert float(share.sums["accuracy"]) == 0.5 and float(share.sums["margin"]) == pytest.approx(0.0)


@pytest.mark.parametrize(("loss", "expected"), [("bradley_terry", 0.2), ("pointwise", 0.5)])
def test_a_reward_is_the_odds_of_the_verdict_alone(loss: str, expected: float) -> None:
    """Rows are answers with the verdict 1, then 0; what stands before the verdict does not count."""
    rows = [[-9.0, -0.5], [-9.0, -1.0], [-0.7], [-1.0]]
    config = PreferConfig(loss=loss)
    objective = PreferenceObjective(config=config, num_examples=1 if config.is_of_pairs else 2)
    groups = (
        [group([0.0] * 4)] if config.is_of_pairs else [group([0.0] * 2), group([0.0] * 2, desirable=False)]
    )
    given = scored(rows)
    share = objective.share(given, groups, 0)
    if loss == "bradley_terry":
        assert share.loss.item() == pytest.approx(-log_sigmoid(0.5 - 0.3), abs=1e-6)
        assert float(share.sums["margin"]) == pytest.approx(expected, abs=1e-6)
    else:
        assert share.loss.item() == pytest.approx(-(log_sigmoid(0.5) + log_sigmoid(-0.3)) / 2, abs=1e-6)
        assert float(share.sums["accuracy"]) == expected
    share.loss.backward()
    assert given.logprobs.grad[:2, 0].tolist() == [0, 0] and given.logprobs.grad[2:, 1].tolist() == [0, 0]
    assert given.logprobs.grad[0, 1] == -given.logprobs.grad[1, 1] < 0
