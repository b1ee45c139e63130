"""Functions from a file outside the repository, in the place of every kind of choice."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.algorithms.advantage import group_advantages
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.algorithms.importance import Correction
from rlcore.algorithms.loss import LossInputs, LossSettings, policy_loss
from rlcore.algorithms.schedule import LR_SCHEDULES, lr_factor
from rlcore.algorithms.shaping import sequence_kl
from rlcore.config import RunConfig, load_config, to_yaml
from rlcore.config.targets import choice
from rlcore.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[4]
NEEDED = ["model.path=m", "task.target=a:B"]
LN = math.log

SOURCE = """
import numpy as np
from rlcore.algorithms.importance import Correction

NOT_A_FUNCTION = 3

def median(rewards, mask, eps):
    return rewards - np.nanmedian(np.where(mask, rewards, np.nan), axis=1, keepdims=True)

def likelihood(logprobs, old_logprobs, advantages, mask, clip):
    return -advantages * logprobs * (clip.dual or 1.0), old_logprobs > logprobs

def longest(values, mask, totals):
    return values.sum() / totals.max_tokens

def halved(log_ratios, mask, bounds):
    ratios = log_ratios.exp()
    return Correction(weights=ratios.new_full(ratios.shape, 0.5), ratios=ratios, bounded=ratios > bounds.high)

def absolute(logprobs, reference_logprobs):
    return (logprobs - reference_logprobs).abs()

def squared(progress):
    return (1.0 - progress) ** 2
"""
KEYS = {
    "algorithm.advantage": "median",
    "algorithm.loss": "likelihood",
    "algorithm.loss_aggregation": "longest",
    "algorithm.correction": "halved",
    "algorithm.kl_estimator": "absolute",
    "learner.lr_schedule": "squared",
}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that lies outside the repository."""
    (tmp_path / "my_choices.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_choices", raising=False)  # another test's
    return "my_choices"


def config_of(*overrides: str) -> RunConfig:
    return load_config([], [*NEEDED, "learner.recompute_logprobs=true", *overrides])


@pytest.mark.parametrize(("key", "function"), KEYS.items())
def test_a_configuration_takes_and_keeps_a_name_from_outside(
    outside: str, key: str, function: str, tmp_path: Path
) -> None:
    config = config_of(f"{key}={outside}:{function}")
    section, name = key.split(".")
    assert getattr(getattr(config, section), name) == f"{outside}:{function}"
    (tmp_path / "saved.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config([tmp_path / "saved.yaml"]) == config


def test_each_process_finds_the_function_by_its_name(outside: str, tmp_path: Path) -> None:
    """A configuration travels to actors as it is pickled: with the name, and without the function."""
    config = config_of(*(f"{key}={outside}:{function}" for key, function in KEYS.items()))
    program = (
        "import pickle, sys; a = pickle.load(sys.stdin.buffer).algorithm; s = a.loss_settings; print("
        "*(f.__name__ for f in (a.advantage_estimator, s.surrogate, s.aggregation, s.correction, "
        "s.kl_estimator)), 'torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(config),
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(tmp_path)])},
    )
    assert answer.stdout.split() == b"median likelihood longest halved absolute False".split()


def test_an_advantage_of_your_own(outside: str) -> None:
    algorithm = config_of(f"algorithm.advantage={outside}:median").algorithm
    rewards = np.array([[1.0, 2.0, 6.0, 9.0], [0.0, 5.0, 1.0, np.nan]])
    got = group_advantages(rewards, np.isfinite(rewards), estimator=algorithm.advantage_estimator)
    np.testing.assert_array_equal(got, [[-3.0, -2.0, 2.0, 5.0], [-1.0, 4.0, 0.0, 0.0]])


def loss_of(*overrides: str) -> tuple[list[float], list[list[float]]]:
    """Loss, sums and gradient of two sequences of two tokens and one."""
    logprobs = torch.tensor([[LN(0.5), LN(0.25)], [LN(0.9), float("nan")]], requires_grad=True)
    inputs = LossInputs(
        logprobs=logprobs,
        behaviour_logprobs=torch.tensor([[LN(0.5), LN(0.5)], [LN(0.3), float("nan")]]),
        advantages=torch.tensor([1.0, 2.0]),
        mask=torch.tensor([[True, True], [True, False]]),
        old_logprobs=torch.tensor([[LN(0.5), LN(0.5)], [LN(0.9), float("nan")]]),
        reference_logprobs=torch.tensor([[LN(0.5), LN(0.5)], [LN(0.9), float("nan")]]),
    )
    totals = BatchTotals(num_tokens=3, num_sequences=2, max_tokens=4)
    settings = config_of("algorithm.kl_coef=0.1", *overrides).algorithm.loss_settings
    result = policy_loss(inputs, totals, settings)
    result.loss.backward()
    sums = [result.loss, result.policy_loss, result.kl_sum, result.clipped_sum, result.bounded_sum]
    assert logprobs.grad is not None
    return [x.item() for x in sums], logprobs.grad.tolist()


def test_a_loss_made_of_functions_of_your_own(outside: str) -> None:
    sums, gradient = loss_of(
        f"algorithm.loss={outside}:likelihood",
        f"algorithm.loss_aggregation={outside}:longest",
        f"algorithm.correction={outside}:halved",
        f"algorithm.kl_estimator={outside}:absolute",
        "algorithm.clip_dual=3.0",
    )
    # Half of 3 * -A log p over 4 tokens, and 0.1 times the one distance of ln 2 over 4, at a token that the
    # policy gives half the behaviour's probability.
    surrogate = -0.5 * 3 * (LN(0.5) + LN(0.25) + 2 * LN(0.9)) / 4
    assert sums == pytest.approx([surrogate + 0.05 * LN(2) / 4, surrogate, LN(2), 1, 1], rel=1e-6)
    expected = [[-0.375, -0.375 - 0.0125], [-0.75, 0.0]]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_a_surrogate_alone_of_your_own(outside: str) -> None:
    sums, gradient = loss_of(f"algorithm.loss={outside}:likelihood", "algorithm.kl_coef=0")
    assert sums[0] == sums[1] == pytest.approx(-(LN(0.5) + LN(0.25) + 2 * LN(0.9)) / 3)
    np.testing.assert_allclose(gradient, [[-1 / 3, -1 / 3], [-2 / 3, 0.0]], rtol=1e-6)


def test_a_divergence_of_your_own_in_the_reward(outside: str) -> None:
    config = config_of("algorithm.kl_in=reward", f"algorithm.kl_estimator={outside}:absolute")
    ours, reference = np.array([-1.0, -2.0], np.float32), np.array([-1.5, -1.0], np.float32)
    assert sequence_kl(ours, reference, config.algorithm.kl_function) == 1.5


def test_a_schedule_of_your_own(outside: str) -> None:
    name = config_of(f"learner.lr_schedule={outside}:squared").learner.lr_schedule
    schedule = choice(LR_SCHEDULES, name, where="learner.lr_schedule")
    factors = [lr_factor(i, schedule, warmup_steps=1, num_steps=5) for i in range(6)]
    assert factors == [1.0, 1.0, 0.5625, 0.25, 0.0625, 0.0]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:f", "{key}: module 'no_such_module_here' of 'no_such_module_here:f' cannot be"),
        (
            "my_choices:medain",
            "{key}: module 'my_choices' has no 'medain'; it has ['NOT_A_FUNCTION', 'median',",
        ),
        ("my_choices:NOT_A_FUNCTION", "{key}: my_choices:NOT_A_FUNCTION is no function, but of type int"),
        ("my_choices:", "{key}: got 'my_choices:', must be `module:name`"),
    ],
)
def test_what_is_missing_outside_is_named(outside: str, key: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(f"{key}='{name}'")
    assert message.format(key=key) in str(error.value)


@pytest.mark.parametrize(
    ("override", "names"),
    [
        (
            "algorithm.advantage=gpro",
            "grpo, dr_grpo, rloo, reinforce_pp, reinforce_pp_baseline, maxrl, pass_at_k, gdpo",
        ),
        ("algorithm.loss=pop", "ppo, gspo, cispo, sapo"),
        ("algorithm.loss_aggregation=tokens", "token, sequence, constant"),
        ("algorithm.correction=tsi", "none, tis, icepop, sequence_tis, sequence_icepop, geometric_mask"),
        ("algorithm.kl_estimator=k4", "k1, k2, k3, k3_capped"),
        ("learner.lr_schedule=step", "constant, linear, cosine"),
    ],
)
def test_a_misspelt_name_is_told_what_is_allowed(override: str, names: str) -> None:
    key, _, name = override.partition("=")
    with pytest.raises(ConfigError) as error:
        config_of(override)
    assert str(error.value) == f"{key}: got {name!r}, must be one of {names}, or your own as `module:name`"


def test_losses_of_another_shape_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def whole(logprobs, old, advantages, mask, clip):\n    return logprobs.sum(), mask\n"
    (tmp_path / "my_sum.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"algorithm\.loss \(losses\): must return a tensor \(2, 2\), got \(\)"
    ):
        loss_of("algorithm.loss=my_sum:whole")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "module 'broken' of 'broken:f' fails when it is imported: ZeroDivisionError"),
        ("def f(:", "fails when it is imported: SyntaxError"),
        ("raise SystemExit(7)", "fails when it is imported: SystemExit: 7"),
        ("def f(rewards, mask): return rewards", r"broken:f must take \(rewards, mask, eps\): too many"),
    ],
)
def test_a_module_that_is_broken_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError, match=f"^algorithm.advantage: .*{message}"):
        load_config([], [*NEEDED, "algorithm.advantage=broken:f"])
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError, match=r"got '\.broken:f', must be `module:name`"):
        load_config([], [*NEEDED, "algorithm.advantage=.broken:f"])


def settings(**functions: object) -> LossSettings:
    return replace(RunConfig().algorithm.loss_settings, **functions)


BATCH = LossInputs(
    logprobs=torch.zeros(2, 2, requires_grad=True),
    behaviour_logprobs=torch.zeros(2, 2),
    advantages=torch.ones(2),
    mask=torch.ones(2, 2, dtype=torch.bool),
    reference_logprobs=torch.zeros(2, 2),
)
"""As many sequences as tokens: what is of another shape would be broadcast without a word."""


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            {"kl_estimator": lambda ours, theirs: (ours - theirs).sum(-1)},
            r"kl_estimator: .* \(2, 2\), got \(2,\)",
        ),
        ({"kl_estimator": lambda ours, theirs: (ours - theirs).sum()}, r"kl_estimator: .*got \(\)"),
        ({"surrogate": lambda *arguments: arguments[0]}, "algorithm.loss: must return .losses, clipped."),
        (
            {"surrogate": lambda *a: (a[0], a[0])},
            "algorithm.loss .clipped.: must return booleans, got torch.float",
        ),
        ({"correction": lambda difference, mask, bounds: difference}, "must return a Correction, got Tensor"),
        (
            {"correction": lambda d, mask, bounds: Correction(weights=d[:, 0], ratios=d, bounded=mask)},
            r"algorithm.correction .weights.: must return a tensor \(2, 2\), got \(2,\)",
        ),
        ({"aggregation": lambda values, mask, totals: values.sum(-1)}, r"loss_aggregation: .*got \(2,\)"),
        (
            {"aggregation": lambda values, mask, totals: 0.0},
            "loss_aggregation: must return a tensor .*got float",
        ),
    ],
)
def test_what_has_the_wrong_shape_is_never_broadcast(functions: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(BATCH, BatchTotals(num_tokens=4, num_sequences=2, max_tokens=2), settings(**functions))


def test_an_estimator_may_write_into_its_arguments_and_give_no_nan() -> None:
    rewards, mask = np.array([[1.0, 0.0, 3.0]]), np.array([[True, True, False]])

    def careless(rewards: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
        mask[:] = False
        rewards += 1.0
        return rewards

    assert group_advantages(rewards, mask, estimator=careless).tolist() == [[2.0, 1.0, 0.0]]
    assert mask.tolist() == [[True, True, False]] and rewards.tolist() == [[1.0, 0.0, 3.0]]
    for bad in (np.nan, 1e300):
        with pytest.raises(ValueError, match=r"algorithm\.advantage: an advantage is NaN or infinite"):
            group_advantages(rewards, mask, estimator=lambda r, m, e, bad=bad: np.full(r.shape, bad))
