from __future__ import annotations

import numpy as np
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlcore.algorithms.advantage import ADVANTAGES, group_advantages
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.batching import micro_batches, num_packed_tokens, num_samples, shard_groups
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.ptr import trust_weight
from rlcore.algorithms.ptr_schedule import ProgressiveGate
from rlcore.config import AlgorithmConfig, PTRConfig, RewardConfig, RunConfig, TrainConfig
from rlcore.loop.mixing import make_schedule
from rlcore.types import TrainGroup

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 8))
REWARDS = SIZES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-3, 3, width=16)))
TOTALS = BatchTotals(num_tokens=17, num_sequences=5, max_tokens=6)


@given(REWARDS, st.sampled_from(["grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"]))
def test_advantages_sum_to_zero_and_ignore_shifts(rewards, estimator):
    advantages = group_advantages(rewards, estimator=ADVANTAGES[estimator])
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-4)
    shifted = group_advantages(rewards + 2.0, estimator=ADVANTAGES[estimator])
    np.testing.assert_allclose(advantages, shifted, atol=1e-4)


@given(REWARDS, st.integers(0, 2**16))
def test_advantages_follow_a_permutation(rewards, seed):
    order = np.random.default_rng(seed).permutation(rewards.shape[1])
    np.testing.assert_allclose(
        group_advantages(rewards)[:, order], group_advantages(rewards[:, order]), atol=1e-5
    )


@given(REWARDS, st.data())
def test_masking_a_sample_equals_leaving_it_out(rewards, data):
    mask = data.draw(hnp.arrays(bool, rewards.shape))
    advantages = group_advantages(rewards, mask)
    assert (advantages[~mask] == 0).all()
    for row, keep, got in zip(rewards, mask, advantages, strict=True):
        np.testing.assert_allclose(got[keep], group_advantages(row[keep][None])[0], atol=1e-5)


UNIT = st.floats(0, 1)


@given(st.lists(st.tuples(st.booleans(), UNIT), min_size=1, max_size=16))
def test_trust_weight_lies_above_zero_and_not_above_one(samples):
    outcomes, reasoning = (np.array(x, dtype=float) for x in zip(*samples, strict=True))
    assert 0 < trust_weight(outcomes, reasoning) <= 1


@given(st.lists(UNIT, max_size=30), st.integers(3, 6), UNIT, UNIT)
def test_gate_never_closes_again_and_never_opens_early(outcomes, window, threshold, max_spread):
    gate = ProgressiveGate(threshold, window, max_spread)
    states = [gate.observe(x) or gate.is_open for x in outcomes]
    assert states == sorted(states)
    assert not any(states[: window - 1])


def outcome_means(levels: np.ndarray, noise: str, seed: int) -> np.ndarray:
    """Outcome means of 16 prompts of 8 samples, at the accuracies `levels` [N]. Samples of a prompt are drawn
    by themselves (`even`), at a difficulty of the prompt's own (`prompts`), or are all alike (`alike`)."""
    rng, levels = np.random.default_rng(seed), levels[:, None]
    if noise == "alike":
        of_prompts = np.broadcast_to(levels, (len(levels), 16))
        return rng.binomial(1, of_prompts).mean(1)
    of_prompts = rng.beta(levels, 1 - levels, (len(levels), 16)) if noise == "prompts" else levels
    return rng.binomial(8, of_prompts, (len(levels), 16)).mean(1) / 8


def opening(levels: np.ndarray, noise: str, seed: int) -> int | None:
    """Steps after which the default gate of a run of 3000 steps opens."""
    ptr = PTRConfig(outcome="outcome", reasoning="reasoning")
    rewards = {name: RewardConfig(target="my:Reward") for name in ("outcome", "reasoning")}
    config = RunConfig(rewards=rewards, algorithm=AlgorithmConfig(ptr=ptr), train=TrainConfig(num_steps=3000))
    gate = make_schedule(config)
    for step, outcome in enumerate(outcome_means(levels, noise, seed), start=1):
        gate.observe(outcome)
        if gate.factor(step):
            return step
    return None


NOISES, SEEDS = st.sampled_from(("even", "prompts", "alike")), st.integers(0, 2**32 - 1)
WINDOW = 150  # of the default gate in 3000 steps


@settings(max_examples=15)
@given(NOISES, SEEDS)
def test_gate_never_opens_below_the_threshold(noise, seed):
    assert opening(np.full(3000, 0.45), noise, seed) is None


@settings(max_examples=30)
@given(NOISES, SEEDS)
def test_gate_opens_within_two_windows_of_stability(noise, seed):
    climb = np.linspace(0.2, 0.55, 100)
    opened = opening(np.concatenate([climb, np.full(2 * WINDOW, 0.55)]), noise, seed)
    assert opened is not None and opened > len(climb)


@settings(max_examples=30)
@given(NOISES, SEEDS, st.floats(1.5, 10))
def test_gate_does_not_open_while_accuracy_climbs(noise, seed, times):
    num_steps = round(0.75 / (times * PTRConfig().max_spread) * WINDOW)
    assert opening(np.linspace(0.2, 0.95, num_steps), noise, seed) is None


@given(st.lists(UNIT, min_size=3, max_size=40), UNIT, UNIT)
def test_gate_agrees_with_the_textbook_regression(outcomes, threshold, max_spread):
    gate = ProgressiveGate(threshold, len(outcomes), max_spread)
    for outcome in outcomes:
        gate.observe(outcome)
    fit = scipy.stats.linregress(np.arange(len(outcomes)), outcomes)
    steps, middle = len(outcomes) - 1, (len(outcomes) - 1) / 2
    # The line's height in the middle is the mean; its error there is that of the intercept, moved.
    error = np.sqrt(max(0.0, fit.intercept_stderr**2 - (middle * fit.stderr) ** 2))
    level = fit.intercept + fit.slope * middle - 3 * error - threshold
    change = max_spread - steps * (abs(fit.slope) + 3 * fit.stderr)
    assume(min(abs(level), abs(change)) > 1e-6)
    assert gate.is_open == (level > 0 and change > 0)


@st.composite
def token_batches(draw):
    num_sequences, length = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    logprobs, behaviour, reference = -3 * torch.rand(3, num_sequences, length, generator=generator)
    lengths = torch.tensor(
        draw(st.lists(st.integers(0, length), min_size=num_sequences, max_size=num_sequences))
    )
    mask = torch.arange(length) < lengths[:, None]
    advantages = torch.randn(num_sequences, generator=generator)
    return logprobs, behaviour, advantages, mask, reference


def gradient(logprobs, behaviour, advantages, mask, reference, aggregation, rows):
    """Loss of some of the rows, and its gradient with respect to all of them."""
    logprobs = logprobs.clone().requires_grad_()
    inputs = LossInputs(
        logprobs=logprobs[rows],
        behaviour_logprobs=behaviour[rows],
        advantages=advantages[rows],
        mask=mask[rows],
        reference_logprobs=reference[rows],
    )
    algorithm = AlgorithmConfig(loss_aggregation=aggregation, clip_low=0.2, clip_high=0.3, kl_coef=0.1)
    loss = policy_loss(inputs, TOTALS, algorithm.loss_settings).loss
    loss.backward()
    return loss.detach(), logprobs.grad


@given(token_batches(), st.sampled_from(["token", "sequence"]), st.data())
def test_sharding_changes_neither_loss_nor_gradient(batch, aggregation, data):
    num_sequences = len(batch[0])
    owners = data.draw(st.lists(st.integers(0, 2), min_size=num_sequences, max_size=num_sequences))
    whole_loss, whole_grad = gradient(*batch, aggregation, slice(None))
    parts = [[row for row, owner in enumerate(owners) if owner == rank] for rank in range(3)]
    results = [gradient(*batch, aggregation, rows) for rows in parts if rows]
    torch.testing.assert_close(sum(loss for loss, _ in results), whole_loss)
    torch.testing.assert_close(sum(grad for _, grad in results), whole_grad)


@given(token_batches(), st.sampled_from(["token", "sequence"]), st.floats(-1e6, 1e6) | st.just(float("nan")))
def test_masked_tokens_get_no_gradient_and_give_no_loss(batch, aggregation, garbage):
    logprobs, behaviour, advantages, mask, reference = batch
    loss, grad = gradient(*batch, aggregation, slice(None))
    assert (grad[~mask] == 0).all()
    spoilt = [x.masked_fill(~mask, garbage) for x in (logprobs, behaviour, reference)]
    other_loss, other_grad = gradient(
        spoilt[0], spoilt[1], advantages, mask, spoilt[2], aggregation, slice(None)
    )
    torch.testing.assert_close(other_loss, loss, rtol=0, atol=0)
    torch.testing.assert_close(other_grad, grad, rtol=0, atol=0)


def make_group(name: int, prompt: int, lengths: list[int]) -> TrainGroup:
    """A group whose samples are known by their advantage."""
    return TrainGroup(
        prompt_token_ids=np.zeros(prompt, np.int64),
        media_inputs={},
        token_ids=tuple(np.zeros(length, np.int64) for length in lengths),
        rollout_logprobs=tuple(np.zeros(length, np.float32) for length in lengths),
        reference_logprobs=(),
        advantages=np.arange(len(lengths), dtype=np.float32) + 100 * name,
    )


SHAPES = st.lists(
    st.tuples(st.integers(1, 20), st.lists(st.integers(1, 30), min_size=1, max_size=6)),
    min_size=1,
    max_size=10,
)


@given(SHAPES, st.integers(1, 4), st.integers(1, 300))
def test_every_sample_is_in_one_micro_batch_of_one_rank(shapes, num_ranks, budget):
    groups = [make_group(i, *shape) for i, shape in enumerate(shapes)]
    samples = sorted(a for group in groups for a in group.advantages)
    num_ranks = min(num_ranks, len(samples))
    shards = shard_groups(groups, num_ranks)
    assert len(shards) == num_ranks and all(shards)
    batches = [batch for shard in shards for batch in micro_batches(shard, budget)]
    assert sorted(a for batch in batches for group in batch for a in group.advantages) == samples
    for batch in batches:
        assert sum(map(num_samples, batch)) == 1 or sum(map(num_packed_tokens, batch)) <= budget
    loads = [sum(map(num_packed_tokens, shard)) for shard in shards]
    assert max(loads) - min(loads) <= max(num_packed_tokens(group) for shard in shards for group in shard)
