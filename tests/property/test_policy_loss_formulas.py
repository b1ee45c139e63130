"""The policy loss and its gradient against formulas written out token by token, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.aggregation import AGGREGATIONS, BatchTotals
from rlcore.algorithms.importance import CORRECTIONS
from rlcore.algorithms.kl import KL_ESTIMATORS
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.surrogate import SURROGATES
from rlcore.config import AlgorithmConfig

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
MAX_TOKENS = 9
SETTINGS = st.fixed_dictionaries(
    {
        "loss": st.sampled_from(list(SURROGATES)),
        "loss_aggregation": st.sampled_from(list(AGGREGATIONS)),
        "clip_low": st.sampled_from([0.1, 0.2, 1.0]),
        "clip_high": st.sampled_from([0.15, 0.3]),
        "clip_dual": st.none() | st.just(1.5),
        "correction": st.sampled_from(list(CORRECTIONS)),
        "correction_low": st.just(0.6),
        "correction_high": st.just(1.7),
        "gate": st.sampled_from([(1.0, 1.05), (0.5, 3.0)]),
        "off_policy_threshold": st.sampled_from([None, 0.05]),
        "kl_coef": st.sampled_from([0.0, 0.3]),
        "kl_estimator": st.sampled_from(list(KL_ESTIMATORS)),
        "entropy_coef": st.sampled_from([0.0, 0.05]),
    }
)


@dataclass(frozen=True)
class Batch:
    """[B, T] each but `advantages` [B]; `lengths` tokens of each row count."""

    logprobs: torch.Tensor
    behaviour: torch.Tensor
    old: torch.Tensor
    reference: torch.Tensor
    entropies: torch.Tensor
    advantages: torch.Tensor
    lengths: list[int]

    @property
    def of_tokens(self) -> torch.Tensor:
        """[B, T] advantages, where they are one a sequence too."""
        return self.advantages if self.advantages.ndim == 2 else self.advantages[:, None].expand_as(self.mask)

    @property
    def mask(self) -> torch.Tensor:
        return torch.arange(self.logprobs.shape[1]) < torch.tensor(self.lengths)[:, None]


@st.composite
def batches(draw) -> Batch:
    """Policies near and far from each other; empty sequences, and batches without a token, among them."""
    num_sequences, length = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    shape = (num_sequences, length)
    spread = draw(st.sampled_from([0.01, 0.3, 2.0]))

    def random() -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    logprobs = -3 * random()
    behaviour, old, reference = (logprobs + spread * (random() - 0.5) for _ in range(3))
    return Batch(
        logprobs=logprobs,
        behaviour=behaviour,
        old=old,
        reference=reference,
        entropies=2 * random(),
        advantages=torch.randn(
            shape if draw(st.booleans()) else num_sequences, generator=generator, dtype=torch.float64
        ),
        lengths=draw(st.lists(st.integers(0, length), min_size=num_sequences, max_size=num_sequences)),
    )


def ours(batch: Batch, settings: dict, rows: list[int]):
    """Loss of some rows and its gradient by the logprobs and entropies of all; no KL unless one is set."""
    logprobs, entropies = batch.logprobs.clone().requires_grad_(), batch.entropies.clone().requires_grad_()
    inputs = LossInputs(
        logprobs=logprobs[rows],
        behaviour_logprobs=batch.behaviour[rows],
        advantages=batch.advantages[rows],
        mask=batch.mask[rows],
        old_logprobs=batch.old[rows],
        reference_logprobs=batch.reference[rows],
        entropies=entropies[rows],
    )
    totals = BatchTotals(
        num_tokens=sum(batch.lengths), num_sequences=len(batch.lengths), max_tokens=MAX_TOKENS
    )
    algorithm = AlgorithmConfig(**{"kl_coef": 0.0, **settings})
    result = policy_loss(inputs, totals, algorithm.loss_settings)
    if not result.loss.requires_grad:
        return result, torch.zeros_like(logprobs), torch.zeros_like(entropies)
    grads = torch.autograd.grad(result.loss, (logprobs, entropies), allow_unused=True)
    return result, *(torch.zeros_like(logprobs) if grad is None else grad for grad in grads)


def plain(batch: Batch, settings: dict):
    """The loss of the whole batch and its gradient, from the papers' formulas with scalars alone."""
    gradient = torch.zeros_like(batch.logprobs)
    entropy_gradient = torch.zeros_like(batch.logprobs)
    total = 0.0
    for b, length in enumerate(batch.lengths):
        weight = weight_of_a_token(batch, settings["loss_aggregation"], length)
        for t in range(length):
            value, slopes = plain_token(batch, settings, b, t)
            total += weight * value
            for u, slope in slopes.items():
                gradient[b, u] += weight * slope
            total -= weight * settings["entropy_coef"] * float(batch.entropies[b, t])
            entropy_gradient[b, t] = -weight * settings["entropy_coef"]
    return total, gradient, entropy_gradient


def weight_of_a_token(batch: Batch, aggregation: str, length: int) -> float:
    if aggregation == "token":
        return 1 / max(sum(batch.lengths), 1)
    if aggregation == "sequence":
        return 1 / (len(batch.lengths) * max(length, 1))
    return 1 / (len(batch.lengths) * MAX_TOKENS)


def plain_token(batch: Batch, settings: dict, b: int, t: int) -> tuple[float, dict[int, float]]:
    """Surrogate and KL of one token, and their derivative by each logprob of its sequence."""
    length, advantage = batch.lengths[b], float(batch.of_tokens[b, t])
    new, old, rollout, reference = (
        [float(x) for x in rows[b, :length]]
        for rows in (batch.logprobs, batch.old, batch.behaviour, batch.reference)
    )
    low, high = 1 - settings["clip_low"], 1 + settings["clip_high"]
    w = plain_correction(settings, old, rollout, t)
    slopes = dict.fromkeys(range(length), 0.0)
    if settings["loss"] == "cispo":
        bounded = min(max(math.exp(new[t] - old[t]), low), high)
        value = -w * bounded * advantage * new[t]
        slopes[t] += -w * bounded * advantage
    elif settings["loss"] == "gspo":
        s = math.exp(sum(n - o for n, o in zip(new, old, strict=True)) / length)
        objective = min(s * advantage, min(max(s, low), high) * advantage)
        value = -w * objective
        if objective == s * advantage:
            slopes[t] += -w * advantage * s  # GSPO-token: of all tokens together it is the sequence's
    elif settings["loss"] == "sapo":
        ratio, temperature = math.exp(new[t] - old[t]), settings["gate"][0 if advantage > 0 else 1]
        gate = 1 / (1 + math.exp(-temperature * (ratio - 1)))
        value = -w * advantage * 4 / temperature * gate
        slopes[t] += -w * advantage * 4 * gate * (1 - gate) * ratio
    else:
        ratio = math.exp(new[t] - old[t])
        objective = min(ratio * advantage, min(max(ratio, low), high) * advantage)
        moves = objective == ratio * advantage
        if settings["clip_dual"] is not None and advantage < 0:
            floor = settings["clip_dual"] * advantage
            moves = moves and objective > floor
            objective = max(objective, floor)
        value = -w * objective
        if moves:
            slopes[t] += -w * advantage * ratio
    left = sum(r - n for r, n in zip(rollout, new, strict=True)) / length
    threshold = settings["off_policy_threshold"]
    if threshold is not None and advantage < 0 and left > threshold:
        value, slopes[t] = 0.0, 0.0
    log_r = reference[t] - new[t]
    kl, slope = {
        "k1": (-log_r, 1.0),
        "k2": (log_r**2 / 2, -log_r),
        "k3": (math.exp(log_r) - 1 - log_r, 1 - math.exp(log_r)),
        "k3_capped": (min(math.exp(log_r) - 1 - log_r, 10), 1 - math.exp(log_r)),
    }[settings["kl_estimator"]]
    of_policy = min(math.exp(new[t] - rollout[t]), settings["correction_high"])
    slopes[t] += settings["kl_coef"] * of_policy * slope
    return value + settings["kl_coef"] * of_policy * kl, slopes


def plain_correction(settings: dict, old: list[float], rollout: list[float], t: int) -> float:
    name, high = settings["correction"], settings["correction_high"]
    if name == "none":
        return 1.0
    if name == "geometric_mask":
        mean = math.exp(sum(o - r for o, r in zip(old, rollout, strict=True)) / len(old))
        return 1.0 if settings["correction_low"] <= mean <= high else 0.0
    if name.startswith("sequence"):
        ratio = math.prod(math.exp(o - r) for o, r in zip(old, rollout, strict=True))
    else:
        ratio = math.exp(old[t] - rollout[t])
    if name in ("tis", "sequence_tis"):
        return min(ratio, high)
    return ratio if settings["correction_low"] <= ratio <= high else 0.0


def everything(batch: Batch) -> list[int]:
    return list(range(len(batch.lengths)))


# The surrogates that know no dual clip are not given one, as the configuration refuses it.
def settled(settings: dict) -> dict:
    return settings if settings["loss"] == "ppo" else settings | {"clip_dual": None}


@given(batches(), SETTINGS)
def test_loss_and_gradient_are_the_plain_formulas(batch, settings):
    settings = settled(settings)
    result, gradient, entropy_gradient = ours(batch, settings, everything(batch))
    total, plain_gradient, plain_entropy_gradient = plain(batch, settings)
    assert result.loss.item() == pytest.approx(total, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, **TOLERANCE)
    torch.testing.assert_close(entropy_gradient, plain_entropy_gradient, **TOLERANCE)


@given(batches(), SETTINGS)
def test_float32_is_as_good_as_the_engines_need(batch, settings):
    settings = settled(settings)
    names = ("logprobs", "behaviour", "old", "reference", "entropies", "advantages")
    single = replace(batch, **{name: getattr(batch, name).float() for name in names})
    # The plain formulas see the rounded numbers: the arithmetic is compared, not the rounding.
    rounded = replace(batch, **{name: getattr(single, name).double() for name in names})
    result, gradient, _ = ours(single, settings, everything(batch))
    total, plain_gradient, _ = plain(rounded, settings)
    assert result.loss.item() == pytest.approx(total, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(gradient.double(), plain_gradient, rtol=1e-5, atol=1e-5)


@given(batches(), SETTINGS, st.data())
def test_sharding_and_micro_batching_change_nothing(batch, settings, data):
    settings = settled(settings)
    rows = everything(batch)
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    whole, gradient, entropy_gradient = ours(batch, settings, rows)
    parts = [[row for row in rows if owners[row] == rank] for rank in range(3)]
    shares = [ours(batch, settings, part) for part in parts if part]
    names = ("loss", "policy_loss", "kl_sum", "clipped_sum", "bounded_sum", "off_policy_sum", "ratio_sum")
    for name in (*names, "num_tokens"):
        total = sum(getattr(share, name) for share, _, _ in shares)
        torch.testing.assert_close(total, getattr(whole, name), **TOLERANCE)
    assert max(share.ratio_max for share, _, _ in shares) == whole.ratio_max
    torch.testing.assert_close(sum(grad for _, grad, _ in shares), gradient, **TOLERANCE)
    torch.testing.assert_close(sum(grad for _, _, grad in shares), entropy_gradient, **TOLERANCE)


@given(batches(), SETTINGS, st.sampled_from([float("nan"), float("inf"), -1e30]))
def test_what_is_masked_is_never_read_and_gets_no_gradient(batch, settings, garbage):
    settings = settled(settings)
    result, gradient, entropy_gradient = ours(batch, settings, everything(batch))
    names = ("logprobs", "behaviour", "old", "reference", "entropies")
    spoilt = replace(
        batch, **{name: getattr(batch, name).masked_fill(~batch.mask, garbage) for name in names}
    )
    other, other_gradient, _ = ours(spoilt, settings, everything(batch))
    torch.testing.assert_close(other.loss, result.loss, rtol=0, atol=0)
    torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=0)
    assert (gradient[~batch.mask] == 0).all() and (entropy_gradient[~batch.mask] == 0).all()


@given(batches(), SETTINGS)
def test_the_order_of_the_sequences_is_nothing(batch, settings):
    settings = settled(settings)
    rows = everything(batch)
    forward, gradient, _ = ours(batch, settings, rows)
    backward, other_gradient, _ = ours(batch, settings, rows[::-1])
    torch.testing.assert_close(forward.loss, backward.loss, **TOLERANCE)
    torch.testing.assert_close(gradient, other_gradient, **TOLERANCE)


@given(batches(), SETTINGS)
def test_a_batch_without_tokens_gives_zero(batch, settings):
    settings = settled(settings)
    empty = replace(batch, lengths=[0] * len(batch.lengths))
    result, gradient, _ = ours(empty, settings, everything(batch))
    assert result.loss.item() == 0 and not gradient.any()
    assert result.ratio_max.item() == result.num_tokens.item() == 0


@given(batches(), st.sampled_from(["ppo", "cispo", "sapo"]))
def test_on_policy_every_surrogate_has_the_policy_gradient(batch, surrogate):
    """At ratio 1 nothing is clipped and the gradient of a token is its advantage's."""
    settings = {"loss": surrogate, "loss_aggregation": "sequence", "clip_low": 0.2, "clip_high": 0.2}
    same = replace(batch, old=batch.logprobs, behaviour=batch.logprobs)
    _, gradient, _ = ours(same, settings, everything(batch))
    _, of_gspo, _ = ours(same, settings | {"loss": "gspo"}, everything(batch))
    lengths = torch.tensor(batch.lengths, dtype=torch.float64)[:, None].clamp(min=1)
    expected = (-batch.of_tokens / lengths / len(batch.lengths)) * batch.mask
    torch.testing.assert_close(gradient, expected, **TOLERANCE)
    torch.testing.assert_close(of_gspo, expected, **TOLERANCE)


@given(batches())
def test_correction_metrics_count_what_was_bounded(batch):
    base = {"loss": "ppo", "loss_aggregation": "token", "clip_low": 0.2, "clip_high": 0.2}
    bounds = {"correction_low": 0.6, "correction_high": 1.7}
    ratios = [
        math.exp(float(batch.old[b, t] - batch.behaviour[b, t]))
        for b, length in enumerate(batch.lengths)
        for t in range(length)
    ]
    rows = everything(batch)
    truncated, _, _ = ours(batch, base | bounds | {"correction": "tis"}, rows)
    masked, _, _ = ours(batch, base | bounds | {"correction": "icepop"}, rows)
    assert truncated.bounded_sum.item() == sum(ratio > 1.7 for ratio in ratios)
    assert masked.bounded_sum.item() == sum(not 0.6 <= ratio <= 1.7 for ratio in ratios)
    assert truncated.ratio_sum.item() == pytest.approx(sum(ratios))
    assert truncated.ratio_max.item() == pytest.approx(max(ratios, default=0.0))


@given(batches(), st.sampled_from(["token", "sequence"]))
def test_a_cold_gate_has_the_gradient_of_the_ratio_without_bounds(batch, aggregation):
    base = {"loss_aggregation": aggregation, "clip_low": 1.0, "clip_high": math.inf}
    rows = everything(batch)
    _, free, _ = ours(batch, base | {"loss": "ppo"}, rows)
    _, gated, _ = ours(batch, base | {"loss": "sapo", "gate": (1e-6, 1e-6)}, rows)
    torch.testing.assert_close(gated, free, **TOLERANCE)


@given(batches(), st.sampled_from(list(SURROGATES)))
def test_what_the_policy_has_left_gets_no_gradient_of_the_surrogate(batch, surrogate):
    """The KL keeps its own; on policy, and above every threshold, nothing is left out."""
    base = {"loss": surrogate, "loss_aggregation": "token", "clip_low": 0.2, "clip_high": 0.2}
    rows = everything(batch)
    whole, gradient, _ = ours(batch, base, rows)
    masked, masked_gradient, _ = ours(batch, base | {"off_policy_threshold": 0.05}, rows)
    log_ratios = ((batch.behaviour - batch.logprobs) * batch.mask).sum(-1)
    is_left = log_ratios / torch.tensor(batch.lengths).clamp(min=1) > 0.05
    left_out = (batch.of_tokens < 0) & is_left[:, None] & batch.mask
    assert masked.off_policy_sum.item() == left_out.sum().item() and whole.off_policy_sum.item() == 0
    assert not masked_gradient[left_out].any()
    torch.testing.assert_close(masked_gradient[~left_out], gradient[~left_out], **TOLERANCE)
    same = replace(batch, behaviour=batch.logprobs)
    assert ours(same, base | {"off_policy_threshold": 1e-9}, rows)[0].off_policy_sum.item() == 0


@given(batches())
def test_the_unbiased_kl_of_deepseek_is_k2_in_its_gradient(batch):
    """Equation of arXiv 2512.02556, section 3.1, with a gradient through the ratio: ratio * k3."""
    settings = {"loss": "ppo", "loss_aggregation": "token", "clip_low": 0.2, "clip_high": 0.2}
    unbounded = {"kl_coef": 1.0, "kl_estimator": "k2", "correction_high": math.inf}
    still = replace(batch, advantages=torch.zeros_like(batch.advantages))
    _, gradient, _ = ours(still, settings | unbounded, everything(batch))
    logprobs = batch.logprobs.clone().requires_grad_()
    ratio, log_r = (logprobs - batch.behaviour).exp(), batch.reference - logprobs
    estimate = (ratio * (log_r.exp() - log_r - 1) * batch.mask).sum() / max(sum(batch.lengths), 1)
    (expected,) = torch.autograd.grad(estimate, logprobs)
    torch.testing.assert_close(gradient, expected, **TOLERANCE)
