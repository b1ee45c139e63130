"""The estimate before a run: plain arithmetic, and a table that says what is finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.pipeline.estimate import (
    AUDIO_TOKENS,
    EFFICIENCY,
    PROMPT_TOKENS,
    TARGET_TOKENS,
    Work,
    describe,
    estimate,
    minutes,
)
from rlcore.bench.models import write_audio_model
from rlcore.config import load_config
from rlcore.plan.hardware import Hardware
from rlcore.plan.sizes import ModelSizes

SMALL = Path(__file__).resolve().parents[4] / "emotion_task" / "configs" / "small.yaml"
SIZES = ModelSizes(
    hidden=576,
    intermediate=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    vocab=49_155,
    layer=3_540_096,
    embedding=28_313_280,
    head=28_313_280,
    audio=20_000_000,
)
QUIET = Hardware(name="cpu", gpus_per_node=2, bf16_tflops=0.45, fp32_tflops=0.1, is_cpu=True)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    config = load_config([str(SMALL)], ["rl.cluster.num_cpus=2"], schema=PipelineConfig)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return Work(config=config, sizes=SIZES, hardware=QUIET, num_recordings=960, num_eval=240)


def test_sft_costs_its_floating_point_operations(work: Work) -> None:
    train = work.config.sft.train
    num_examples = train.num_steps * train.batch_size
    context = PROMPT_TOKENS + AUDIO_TOKENS + TARGET_TOKENS
    decoder = 30 * 3_540_096 + 576
    # Forward, and back through frozen weights: 4 operations a weight and token, and attention's.
    flops = 2 * num_examples * context * (2 * decoder + 2 * 30 * 576 * context)
    flops += 3 * 2 * 49_155 * 576 * num_examples * TARGET_TOKENS
    flops += 2 * 20e6 * 2 * AUDIO_TOKENS * 960
    assert work.seconds()["sft"] == pytest.approx(flops / (2 * EFFICIENCY * 0.45e12), rel=1e-9)


def test_the_whole_line_keeps_its_limits_on_two_quiet_cores(work: Work) -> None:
    seconds = work.seconds()
    assert list(seconds) == ["annotate", "reference", "alignment", "sft", "reward_model", "rl"]
    assert seconds["alignment"] + seconds["sft"] <= 45 * 60
    assert seconds["rl"] <= 90 * 60


def test_a_slower_machine_and_more_steps_take_longer(work: Work) -> None:
    slow = replace(work, hardware=replace(QUIET, bf16_tflops=0.225, fp32_tflops=0.05))
    for name in ("sft", "reward_model", "rl"):
        assert slow.seconds()[name] == pytest.approx(2 * work.seconds()[name])
    sft = work.config.sft
    longer = replace(sft, train=replace(sft.train, num_steps=2 * sft.train.num_steps))
    twice = replace(work, config=replace(work.config, sft=longer)).seconds()["sft"]
    assert twice > 1.8 * work.seconds()["sft"]  # the tower runs once a recording


def test_what_is_finished_is_not_to_do(work: Work) -> None:
    seconds = work.seconds()
    text = describe(work, {"annotate": 70.0, "sft": 1500.0})
    assert "sft" in text and "finished, took 25 min" in text and "finished, took 70 s" in text
    left = sum(value for name, value in seconds.items() if name not in ("annotate", "sft"))
    assert minutes(left) in text.splitlines()[-1]
    assert [minutes(s) for s in (40, 720, 9000)] == ["40 s", "12 min", "2.5 h"]


def test_what_arithmetic_says_nothing_of_is_not_estimated(tmp_path: Path, work: Work) -> None:
    """The tiny model, made in the run or before it, and GPUs, which this machine's cores say nothing of."""
    assert estimate(PipelineConfig()) is None
    assert estimate(PipelineConfig(base_model=str(write_audio_model(tmp_path)))) is None
    rl = work.config.rl
    on_gpus = replace(rl, learner=replace(rl.learner, num_gpus=1))
    assert estimate(replace(work.config, rl=on_gpus)) is None
