"""What an environment wrote is read and not learnt from: without its tokens, all would be the same."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcore.algorithms.aggregation import AGGREGATIONS, BatchTotals
from rlcore.algorithms.importance import CORRECTIONS
from rlcore.algorithms.kl import KL_ESTIMATORS
from rlcore.algorithms.ptr import MixedRewards
from rlcore.algorithms.surrogate import SURROGATES
from rlcore.config import AlgorithmConfig, RolloutConfig
from rlcore.engines.logprobs import CompletionLogprobs
from rlcore.engines.shares import PolicyObjective, Share
from rlcore.loop.batch import build_batch, estimate_advantages, shape_rewards
from rlcore.loop.metrics import completion_metrics, staleness_metrics
from rlcore.loop.scored import ScoredGroup, group_arrays
from rlcore.types import Completion, Group, Observation, Prompt, TrainBatch

VERSION = 3
SETTINGS = st.fixed_dictionaries(
    {
        "loss": st.sampled_from(list(SURROGATES)),
        "loss_aggregation": st.sampled_from(list(AGGREGATIONS)),
        "correction": st.sampled_from(list(CORRECTIONS)),
        "off_policy_threshold": st.sampled_from([None, 0.05]),
        "kl_coef": st.sampled_from([0.0, 0.3]),
        "kl_estimator": st.sampled_from([name for name in KL_ESTIMATORS if name != "k1"]),
        "entropy_coef": st.sampled_from([0.0, 0.05]),
        "kl_cov": st.sampled_from([0.0, 0.3]),
    }
)


@st.composite
def groups(draw) -> list[Group]:
    """Groups of three completions, each of one to four turns with observations between, some of them
    empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    return [
        Group(
            prompt=Prompt(id=f"p{g}", text=""),
            prompt_token_ids=(1, 2),
            completions=tuple(_episode(draw, rng) for _ in range(3)),
        )
        for g in range(draw(st.integers(1, 3)))
    ]


def _episode(draw, rng: np.random.Generator) -> Completion:
    token_ids: list[int] = []
    logprobs: list[float] = []
    spans: list[tuple[int, int]] = []
    seen: list[Observation] = []
    for turn in range(draw(st.integers(1, 4))):
        if turn:
            num = draw(st.integers(0, 3))
            seen.append(Observation(first=len(token_ids), num_tokens=num, offset=0, text="x"))
            token_ids += rng.integers(0, 50, num).tolist()
            logprobs += [0.0] * num
            spans.append((spans[-1][0], num))
        written = draw(st.integers(1, 3))
        token_ids += rng.integers(0, 50, written).tolist()
        logprobs += (-3 * rng.random(written)).tolist()
        spans.append((VERSION - 1 + int(turn > 1), written))
    return Completion(
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        text="",
        finish_reason="stop",
        policy_version=VERSION - 1,
        version_spans=tuple(spans),
        observations=tuple(seen),
    )


def alone(group: Group) -> Group:
    """The same without the tokens of observations."""

    def without(completion: Completion) -> Completion:
        kept = np.flatnonzero(completion.is_sampled)
        return replace(
            completion,
            token_ids=tuple(completion.token_ids[i] for i in kept),
            logprobs=tuple(completion.logprobs[i] for i in kept),
            version_spans=tuple((int(completion.token_versions[i]), 1) for i in kept),
            observations=(),
        )

    return replace(group, completions=tuple(map(without, group.completions)))


def sampled(batch: TrainBatch) -> list[np.ndarray]:
    return [row for group in batch.groups for row in group.is_sampled or map(np.ones_like, group.token_ids)]


def batch_of(made: list[Group], algorithm: AlgorithmConfig, seed: int) -> TrainBatch:
    """The whole way from rewards to the batch, with a reference, rewards and judged tokens."""
    rng = np.random.default_rng(seed)
    rewards = MixedRewards(
        rewards=rng.random((len(made), 3)), mask=np.ones((len(made), 3), dtype=bool), tau=np.ones(len(made))
    )
    reference = [[np.full(len(c.token_ids), -1.5, np.float32) for c in group.completions] for group in made]
    arrays = [group_arrays(*each) for each in zip(made, reference, strict=True)]
    scored = [
        ScoredGroup(group=group, scores={}, values={}, arrays=array)
        for group, array in zip(made, arrays, strict=True)
    ]
    shaped = shape_rewards(rewards, scored, algorithm, RolloutConfig())
    batch = build_batch(scored, estimate_advantages(shaped, rewards, scored, algorithm), VERSION)
    assert completion_metrics(scored)["completion/tokens"] == batch.num_tokens / batch.num_sequences
    assert staleness_metrics(scored, VERSION)["staleness/max"] == 1
    return batch


@given(
    made=groups(),
    settings=st.sampled_from(
        [
            {"kl_in": "reward", "kl_coef": 0.3},
            {"clip_cov": 0.3, "clip_cov_bounds": (0.0, 9.0)},
            {"kl_cov": 0.3},
            {},
        ]
    ),
)
def test_the_batch_is_that_of_the_policys_tokens(made: list[Group], settings: dict) -> None:
    algorithm = AlgorithmConfig(**settings)
    whole, bare = (batch_of(each, algorithm, 7) for each in (made, [alone(group) for group in made]))
    assert (whole.num_tokens, whole.num_sequences) == (bare.num_tokens, bare.num_sequences)
    for one, other in zip(whole.groups, bare.groups, strict=True):
        masks = [row.astype(bool) for row in one.is_sampled] or [np.ones(len(r), bool) for r in one.token_ids]
        np.testing.assert_allclose(one.advantages, other.advantages, rtol=1e-6)
        for name in ("token_ids", "rollout_logprobs", "is_current", "token_advantages", "held_back"):
            rows = [row[mask] for row, mask in zip(getattr(one, name), masks, strict=False)]
            for row, expected in zip(rows, getattr(other, name), strict=True):
                np.testing.assert_array_equal(row, expected)


@given(made=groups(), settings=SETTINGS, recompute=st.booleans(), seed=st.integers(0, 2**20))
def test_observations_have_no_gradient_and_change_no_loss_or_metric(
    made: list[Group], settings: dict, recompute: bool, seed: int
) -> None:
    if not recompute:
        settings = {**settings, "correction": "none"}
    algorithm = AlgorithmConfig(**settings)
    whole, bare = (batch_of(each, algorithm, seed) for each in (made, [alone(group) for group in made]))
    rng = np.random.default_rng(seed)
    # What the learner makes of an observation may be anything.
    values = [
        np.where(row, -3 * rng.random(len(row)), rng.choice([0, 80, math.nan])) for row in sampled(whole)
    ]
    logprobs, entropies, share = _share(whole, values, algorithm, recompute)
    share.loss.backward()
    kept = [row[mask.astype(bool)] for row, mask in zip(values, sampled(whole), strict=True)]
    bare_logprobs, bare_entropies, expected = _share(bare, kept, algorithm, recompute)
    expected.loss.backward()
    for tensor, other in ((logprobs, bare_logprobs), (entropies, bare_entropies)):
        rows = zip(_grad(tensor), _grad(other), sampled(whole), strict=True)
        for row, of_policy, mask in rows:
            is_policys = np.asarray(mask, dtype=bool)
            assert not row[: len(mask)][~is_policys].any()
            np.testing.assert_allclose(
                row[: len(mask)][is_policys], of_policy[: is_policys.sum()], rtol=1e-5, atol=1e-7
            )
    np.testing.assert_allclose(share.loss.item(), expected.loss.item(), rtol=1e-5, atol=1e-7)
    for found, wanted in ((share.sums, expected.sums), (share.maxima, expected.maxima)):
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value.item(), wanted[name].item(), rtol=1e-5, atol=1e-6, err_msg=name)


def _share(
    batch: TrainBatch, values: list[np.ndarray], algorithm: AlgorithmConfig, recompute: bool
) -> tuple[torch.Tensor, torch.Tensor, Share]:
    length = max(map(len, values))
    padded = np.zeros((len(values), length), dtype=np.float32)
    for target, row in zip(padded, values, strict=True):
        target[: len(row)] = row
    logprobs = torch.tensor(padded, requires_grad=True)
    entropies = torch.tensor(np.abs(padded) / 2, requires_grad=True)
    mask = torch.arange(length) < torch.tensor([len(row) for row in values])[:, None]
    objective = PolicyObjective(
        totals=BatchTotals(num_tokens=batch.num_tokens, num_sequences=batch.num_sequences, max_tokens=64),
        algorithm=algorithm,
        recompute_logprobs=recompute,
    )
    scored = CompletionLogprobs(logprobs=logprobs, entropies=entropies, mask=mask)
    return logprobs, entropies, objective.share(scored, batch.groups, 0)


def _grad(tensor: torch.Tensor) -> np.ndarray:
    return np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
