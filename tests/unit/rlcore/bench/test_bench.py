"""Workloads, shares of ceilings and comparison of `rlcore bench`, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.gpu import samples_per_second
from rlcore import cli
from rlcore.bench.compare import compare
from rlcore.bench.machine import _commit
from rlcore.bench.measure import Measured
from rlcore.bench.roofline import shares
from rlcore.bench.suite import run_workloads
from rlcore.bench.workloads import WORKLOADS, WordTask, even_tokens
from rlcore.config import LearnerConfig, LoRAConfig, ModelConfig, RolloutConfig, RunConfig, TrainConfig
from rlcore.errors import ConfigError, DataError
from rlcore.plan.hardware import Hardware, this_machine
from rlcore.plan.sizes import ModelSizes
from rlcore.records.timeline import Span
from rlcore.types import Completion

SIZES = ModelSizes(
    hidden=8,
    intermediate=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    vocab=32,
    layer=500,
    embedding=256,
    head=0,
)


def test_ragged_lengths_are_long_tailed_and_within_bounds() -> None:
    lengths = np.array(WORKLOADS["text-ragged"].lengths)
    assert (lengths.min(), np.median(lengths), lengths.max()) == (16, 64, 512)
    log_mean, sigma = math.log(64), 0.9
    draws = np.random.default_rng(0).lognormal(log_mean, sigma, 200_000).clip(16, 512)
    assert lengths.mean() == pytest.approx(draws.mean(), rel=0.01)
    assert np.percentile(lengths, 95) > 4 * np.median(lengths) * 0.95
    # Neighbours, which are the samples of one prompt, are no more alike than others.
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < 0.1
    assert WORKLOADS["text-ragged"].lengths == WORKLOADS["audio-ragged"].lengths


def test_prompts_are_the_same_every_time() -> None:
    first, again = WordTask(has_audio=True).prompts("train"), WordTask(has_audio=True).prompts("train")
    assert first == again and len({prompt.text for prompt in first}) == len(first) == 256
    assert first[0].text.count("<|AUDIO|>") == 1 and first[0].text.count("<") == 128 + 3
    media = WordTask(has_audio=True).load_media(first[3])
    assert len(media["audio"][0]) == 4 * 16000
    tokens = Completion(token_ids=(2, 3, 4, 5, 6), logprobs=(), text="", finish_reason="", policy_version=0)
    assert even_tokens(first[0], tokens) == 0.6


def measured(lengths: tuple[tuple[int, ...], ...], spans: list[tuple[str, str, float]]) -> Measured:
    return Measured(
        step_seconds=(2.0,) * len(lengths),
        phases={},
        lengths=lengths,
        prompt_tokens=10,
        peak_mb={},
        spans=tuple(
            Span(actor=actor, phase=phase, start=0.0, end=seconds) for actor, phase, seconds in spans
        ),
    )


def test_rates_are_over_all_counted_steps() -> None:
    run = replace(measured(((3, 5), (4, 4, 4, 4)), []), step_seconds=(1.0, 3.0))
    assert run.samples_per_second == 6 / 4
    assert run.tokens_per_second == 24 / 4


def test_shares_of_the_ceilings() -> None:
    config = RunConfig(
        model=ModelConfig(path="none"),
        rollout=RolloutConfig(samples_per_prompt=2, num_replicas=2),
        learner=LearnerConfig(num_ranks=2),
        train=TrainConfig(prompts_per_step=2),
    )
    spans = [
        ("rollout[0]", "generate", 0.5),
        ("rollout[1]", "generate", 0.25),
        ("learner", "update", 0.4),
        ("learner", "push_weights", 0.1),
        ("controller", "update", 9.0),
    ]
    hardware = Hardware(bandwidth_gb_s=2.0, fp32_tflops=0.5, bf16_tflops=7.0)
    run = measured(((3, 1, 2, 2),), spans)
    rollout, update, sync = shares(run, config, SIZES, hardware, audio_seconds=0.0)

    weights = 2 * 500 + 8 + 256  # layers, final norm, and the embedding as output head
    values = 2 * 2 * 1 * 4  # keys and values of a token
    # Engine 0 has lengths 3 and 1: two sequences at 10 tokens each, then one at 11 and at 12.
    first = 4 * (3 * weights + values * (20 + 11 + 12)) / 1e9
    # Engine 1 has 2 and 2: less to read.
    assert rollout.work == pytest.approx(first, rel=1e-6)
    assert (rollout.seconds, rollout.unit, rollout.ceiling) == (0.5, "GB/s", 2.0)
    assert rollout.share == pytest.approx(first / 0.5 / 2.0, rel=1e-6)

    tokens, completions = 2 * 10 + 8, 8
    layers = tokens * (2 * (2 * 500 + 8) + 2 * 2 * 8 * 10)
    flops = 3 * layers + 4 * 2 * 32 * 8 * completions
    assert update.work == pytest.approx(flops / 1e9, rel=1e-6)
    assert (update.seconds, update.unit, update.ceiling) == (0.4, "GFLOP/s", 0.5e3 * 2)
    assert sync.work == pytest.approx(4 * (256 + 2 * 500 + 8) / 1e9, rel=1e-6)
    assert (sync.ceiling, sync.seconds) == (1.0, 0.1)


def test_a_push_of_adapters_is_as_large_as_their_factors() -> None:
    config = RunConfig(
        model=ModelConfig(path="none", dtype="bfloat16"),
        learner=LearnerConfig(lora=LoRAConfig(rank=2, target_modules=("q_proj",), push="adapters")),
    )
    spans = [
        ("rollout[0]", "generate", 0.5),
        ("learner", "update", 0.4),
        ("learner", "push_weights", 0.1),
    ]
    *_, sync = shares(measured(((3, 1),), spans), config, SIZES, Hardware(), audio_seconds=0.0)
    assert sync.work == pytest.approx(4 * 2 * 2 * (8 + 8) / 1e9)  # float32, two layers


def result(**changed: Any) -> dict[str, Any]:
    row = {
        "name": "text-forced",
        "samples_per_second": 100.0,
        "tokens_per_second": 6400.0,
        "step_seconds": 1.0,
        "seconds": {"rollout": 0.6, "update": 0.4, "weight_sync": 0.01},
        "peak_mb": {"LearnerWorker": 1000.0},
    }
    machine = {"cpu": "a", "num_cpus": 2, "gpu": None, "config": [], "load": 1.0}
    return {"benchmark": "rlcore bench", **machine, "workloads": [{**row, **changed}]}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(file: str, **changed: Any) -> Path:
        path = tmp_path / file
        path.write_text(json.dumps(result(**changed)))
        return path

    return write


@pytest.mark.parametrize(
    ("changed", "worse"),
    [
        ({}, []),
        ({"samples_per_second": 91.0}, []),
        ({"samples_per_second": 89.0}, ["text-forced: samples_per_second"]),
        ({"samples_per_second": 300.0, "tokens_per_second": 9000.0}, []),
        ({"seconds": {"rollout": 0.6, "update": 0.45}}, ["text-forced: seconds of update"]),
        ({"seconds": {"rollout": 0.3, "update": 0.4, "weight_sync": 0.04}}, []),
        ({"seconds": {"rollout": 0.6, "weight_sync": 0.06}}, ["text-forced: seconds of weight_sync"]),
        ({"peak_mb": {"LearnerWorker": 1200.0}}, ["text-forced: peak MB of LearnerWorker"]),
    ],
)
def test_what_is_worse_by_more_than_a_tenth_ends_with_1(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str], changed: Any, worse: list[str]
) -> None:
    before, after = written("before.json"), written("after.json", **changed)
    changes, warnings = compare(before, after)
    assert [change.name for change in changes if change.loss > 0.1] == worse and warnings == []
    assert cli.main(["bench", "compare", str(before), str(after)]) == bool(worse)
    assert capsys.readouterr().out.count("WORSE") == len(worse)
    assert cli.main(["bench", "compare", str(before), str(after), "--threshold", "10"]) == 0


def test_another_machine_is_said(written: Callable[..., Path]) -> None:
    before, after = written("before.json"), written("after.json")
    after.write_text(json.dumps({**result(), "num_cpus": 8, "load": 9.5}))
    assert compare(before, after)[1] == [
        "num_cpus differs: 2, now 8",
        "the machine was busy: load 1.0, now 9.5",
    ]


def test_files_that_cannot_be_compared(written: Callable[..., Path], tmp_path: Path) -> None:
    before = written("before.json")
    with pytest.raises(DataError, match="cannot be read"):
        compare(before, tmp_path / "absent.json")
    with pytest.raises(DataError, match="no workload of"):
        compare(before, written("other.json", name="audio-forced"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="is no result of rlcore bench"):
        compare(tmp_path / "list.json", before)


def test_a_workload_is_not_changed_from_outside(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of text-forced, text-ragged"):
        run_workloads(["text"])
    with pytest.raises(ConfigError, match="--steps: got 0, must be at least 1"):
        run_workloads(["text"], num_steps=0)
    file = tmp_path / "more.yaml"
    file.write_text("rollout: {samples_per_prompt: 4}")
    with pytest.raises(ConfigError, match=r"rollout\.samples_per_prompt: the workload's own"):
        run_workloads(["text-forced"], files=[str(file)])


def test_this_machine_has_rates() -> None:
    machine = this_machine()
    assert machine.is_cpu and machine.name == "cpu"
    assert 1e-3 < machine.fp32_tflops < 10 and 0.1 < machine.bandwidth_gb_s < 1000


def test_samples_a_second_from_the_moments_of_scoring() -> None:
    # Steps of 4 completions, scored two at a time; they end at 10, 20, 26 and 32.
    marks = [(t, 2) for t in (9.0, 10.0, 19.0, 20.0, 25.0, 26.0, 30.0, 32.0)]
    assert samples_per_second(marks, 4) == 4 * 2 / (32.0 - 20.0)
    with pytest.raises(SystemExit, match="at least 3"):
        samples_per_second(marks[:4], 4)


def test_results_that_were_just_written_make_no_other_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make bench` writes one after the other; what they measure is still what was committed."""

    def git(*command: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    results, code = tmp_path / "benchmarks" / "results" / "a.json", tmp_path / "rlcore" / "a.py"
    for path in (results, code):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    assert _commit(tmp_path) is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    results.write_text("2")
    assert _commit(code.parent) == commit
    code.write_text("2")
    assert _commit(code.parent) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert _commit(code.parent) is None
