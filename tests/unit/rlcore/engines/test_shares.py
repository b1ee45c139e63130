from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.batching import take_samples
from rlcore.config import AlgorithmConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.engines.shares import PolicyObjective, SupervisedObjective
from rlcore.errors import DataError
from rlcore.types import TrainGroup

GROUP = TrainGroup(
    prompt_token_ids=np.array([1]),
    media_inputs={},
    token_ids=(np.array([5, 6]), np.array([7])),
    rollout_logprobs=(np.array([-1.0, -2.0], np.float32), np.array([-0.5], np.float32)),
    reference_logprobs=(),
    advantages=np.array([1.0, -1.0], np.float32),
)
NO_KL = AlgorithmConfig(kl_coef=0.0)


def scored(logprobs: list[list[float]], entropy_grad: bool = False) -> CompletionLogprobs:
    entropies = torch.tensor([[0.5, 0.7], [0.9, 0.0]], requires_grad=entropy_grad)
    mask = torch.tensor([[True, True], [True, False]])
    return CompletionLogprobs(
        logprobs=torch.tensor(logprobs, requires_grad=True), entropies=entropies, mask=mask
    )


def objective(algorithm: AlgorithmConfig = NO_KL, **changes) -> PolicyObjective:
    made = PolicyObjective(
        totals=BatchTotals(num_tokens=3, num_sequences=2, max_tokens=4),
        algorithm=algorithm,
        recompute_logprobs=False,
    )
    return replace(made, **changes)


FIRST = [[-1.0, -2.5], [-0.5, 0.0]]
LATER = [[-0.9, -2.5], [-0.7, 0.0]]


def test_the_rollouts_logprobs_are_the_old_ones_by_default() -> None:
    share = objective().share(scored(FIRST), [GROUP], 0)
    ratios = [1.0, max(math.exp(-0.5), 0.0), 1.0]
    assert share.loss.item() == pytest.approx(-(ratios[0] + ratios[1] - ratios[2]) / 3)
    assert share.sums["entropy"].item() == pytest.approx(2.1)
    assert share.sums["logprob_mean_diff"].item() == pytest.approx(0.5)
    assert share.maxima == {"logprob_max_diff": pytest.approx(0.5)}
    assert share.sums["current_fraction"].item() == 3


def test_advantages_of_tokens_are_added_to_the_samples() -> None:
    judged = (np.array([0.5, 0.25], np.float32), np.array([0.75], np.float32))
    share = objective().share(scored(FIRST), [replace(GROUP, token_advantages=judged)], 0)
    assert share.loss.item() == pytest.approx(-(1.5 + 1.25 * math.exp(-0.5) - 0.25) / 3)


def test_engines_are_compared_by_what_the_current_weights_wrote() -> None:
    """Older weights wrote the second token, on which rollout and learner differ by 0.5."""
    group = replace(GROUP, is_current=(np.array([True, False]), np.array([True])))
    share = objective().share(scored([[-1.0, -2.5], [-0.7, 0.0]]), [group], 0)
    assert share.maxima == {"logprob_max_diff": pytest.approx(0.2)}
    assert share.sums["logprob_mean_diff"].item() == pytest.approx(0.7)
    assert share.sums["current_fraction"].item() == 2


def test_the_learners_first_logprobs_are_remembered_for_later_updates() -> None:
    mine = objective(recompute_logprobs=True)
    first = mine.share(scored(FIRST), [GROUP], 0)
    assert first.loss.item() == pytest.approx(-(1 + 1 - 1) / 3)  # every ratio is 1
    mine.share(scored(LATER), [GROUP], 1)  # another micro-batch has its own
    later = mine.share(scored(LATER), [GROUP], 0)
    # A bad token may not shrink below 0.8: exp(-0.2) is 0.819.
    assert later.loss.item() == pytest.approx(-(math.exp(0.1) + 1 - math.exp(-0.2)) / 3)
    # The engines are still compared by the first logprobs.
    assert later.sums["correction_ratio_mean"].item() == pytest.approx(1 + math.exp(-0.5) + 1)
    assert later.maxima["correction_ratio_max"].item() == 1.0


def test_a_correction_weighs_in_what_the_engines_compute_differently() -> None:
    algorithm = AlgorithmConfig(kl_coef=0.0, correction="icepop", correction_low=0.7)
    share = objective(algorithm, recompute_logprobs=True).share(scored(FIRST), [GROUP], 0)
    assert share.loss.item() == pytest.approx(-(1 + 0 - 1) / 3)
    assert share.sums["correction_fraction"].item() == 1


def test_kl_in_the_reward_is_measured_and_not_in_the_loss() -> None:
    group = replace(
        GROUP, reference_logprobs=(np.array([-1.0, -2.0], np.float32), np.array([-1.5], np.float32))
    )
    algorithm = AlgorithmConfig(kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    share = objective(algorithm).share(scored(FIRST), [group], 0)
    assert share.loss.item() == share.sums["policy_loss"].item()
    assert share.sums["kl"].item() == pytest.approx(0.0 - 0.5 + 1.0)
    inside = objective(replace(algorithm, kl_in="loss")).share(scored(FIRST), [group], 0)
    # By the policy's own probability: the second token has e^-0.5 of the rollout's.
    kl = 0.0 - 0.5 * math.exp(-0.5) + 1.0
    assert inside.loss.item() == pytest.approx(share.loss.item() + 0.5 * kl / 3)


def test_an_entropy_bonus_lowers_the_loss_and_needs_a_gradient() -> None:
    algorithm = AlgorithmConfig(kl_coef=0.0, entropy_coef=0.1)
    with_gradient = scored(FIRST, entropy_grad=True)
    share = objective(algorithm).share(with_gradient, [GROUP], 0)
    assert share.loss.item() == pytest.approx(share.sums["policy_loss"].item() - 0.1 * 2.1 / 3)
    share.loss.backward()
    torch.testing.assert_close(with_gradient.entropies.grad, torch.tensor([[-0.1, -0.1], [-0.1, 0.0]]) / 3)
    with pytest.raises(AssertionError, match="no gradient"):
        objective(algorithm).share(scored(FIRST), [GROUP], 0)


def test_bad_sequences_that_the_policy_has_left_are_counted() -> None:
    """The second sequence, of advantage -1, is 0.2 nats less likely than when it was sampled."""
    algorithm = AlgorithmConfig(kl_coef=0.0, off_policy_threshold=0.1)
    share = objective(algorithm).share(scored(LATER), [GROUP], 0)
    assert share.sums["off_policy_fraction"].item() == 1
    assert share.loss.item() == pytest.approx(-(math.exp(0.1) + math.exp(-0.5)) / 3)
    assert "off_policy_fraction" not in objective().share(scored(LATER), [GROUP], 0).sums


def test_tokens_that_are_held_back_reach_the_loss() -> None:
    """The second token of the first sequence is 0.5 nats from the rollout's."""
    group = replace(GROUP, held_back=(np.array([False, True]), np.array([False])))
    algorithm = AlgorithmConfig(kl_coef=0.0, kl_cov=0.1, kl_cov_coef=3.0)
    share = objective(algorithm).share(scored(FIRST), [group], 0)
    without = objective(algorithm).share(scored(FIRST), [GROUP], 0)
    assert share.loss.item() - without.loss.item() == pytest.approx(3.0 * 0.5 / 3)


def test_constant_aggregation_divides_by_the_longest_allowed() -> None:
    algorithm = AlgorithmConfig(kl_coef=0.0, loss_aggregation="constant")
    share = objective(algorithm, recompute_logprobs=True).share(scored(FIRST), [GROUP], 0)
    assert share.loss.item() == pytest.approx(-(1 + 1 - 1) / (2 * 4))


def test_a_missing_reference_is_named() -> None:
    with pytest.raises(DataError, match=r"algorithm\.kl_coef"):
        objective(AlgorithmConfig()).share(scored(FIRST), [GROUP], 0)


def test_a_supervised_loss_is_the_weighted_mean() -> None:
    plain = TokenGroup(prompt_token_ids=np.array([1]), token_ids=GROUP.token_ids)
    weights = (np.array([1.0, 6.0], np.float32), np.array([2.0], np.float32))
    share = SupervisedObjective(total_weight=3.0).share(scored(FIRST), [plain], 0)
    assert share.loss.item() == pytest.approx((1.0 + 2.5 + 0.5) / 3)
    weighted = replace(plain, token_weights=weights)
    share = SupervisedObjective(total_weight=9.0).share(scored(FIRST), [weighted], 0)
    assert share.loss.item() == pytest.approx((1.0 + 6 * 2.5 + 2 * 0.5) / 9)
    assert share.sums["tokens"].item() == 3
    # Cut by samples, each keeps its own weights.
    assert [w.tolist() for w in take_samples(weighted, [1]).token_weights] == [[2.0]]
