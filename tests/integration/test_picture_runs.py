"""Reinforcement learning on sound and frames together, with every actor for real."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from loop_cases import loop_config
from PIL import Image
from tiny_models import make_qwen2_5_omni, tone

from emotion_task.records import Utterance, write_manifest
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    ModelConfig,
    RewardConfig,
    TargetConfig,
)
from rlcore.models.hf_model import load_model
from rlcore.records.tracking import read_metrics
from rlcore.run import ray_session, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def write_utterances(folder: Path) -> Path:
    """Eight utterances, of which all but one are seen: three frames each."""
    rng, rows = np.random.default_rng(0), []
    for number in range(8):
        frames = folder / f"frames{number}"
        frames.mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 256, (28, 56, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(frames / f"{k}.png")
        soundfile.write(folder / f"{number}.wav", tone(number, 0.8), 16000)
        rows.append(
            Utterance(
                id=f"u{number}",
                audio=f"{number}.wav",
                video=f"frames{number}" if number else None,
                emotion=("sad", "happy")[number % 2],
                split="eval" if number == 7 else "train",
            )
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def test_a_run_on_sound_and_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    # Ray's workers import loop_cases by name.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"), prepend=os.pathsep)
    model = make_qwen2_5_omni(tmp_path / "base")
    task = {"manifest": str(write_utterances(tmp_path / "data")), "model_path": str(model), "video": True}
    config = loop_config(
        tmp_path / "run",
        model,
        task=TargetConfig(target="emotion_task.task:EmotionTask", args=task),
        rewards={"even": RewardConfig(target="loop_cases:even_tokens", num_cpus=0.05)},
        algorithm=AlgorithmConfig(kl_coef=0.1),
        learner=LearnerConfig(num_ranks=2, num_cpus=0.3, lr=3e-3),
    )
    engine = {"max_model_len": 512, "max_num_seqs": 16, "kv_cache_memory_bytes": 64 << 20}
    config = replace(
        config,
        model=ModelConfig(path=str(model), media="raw", freeze=("visual",)),
        rollout=replace(config.rollout, engine=engine, max_tokens=40),
        train=replace(config.train, num_steps=2, prompts_per_step=6),
    )
    with ray_session(ClusterConfig(num_cpus=2)):
        summary = train(config)
    steps = read_metrics(config.run_dir)[1:]
    assert len(steps) == 2 and max(row["logprob_max_diff"] for row in steps) < 1e-4
    # The six training prompts with frames went through the vision tower once, for the reference too.
    assert [row["media/encoded"] for row in steps] == [6, 0]
    assert abs(steps[0]["kl"]) < 1e-6 < steps[1]["kl"]
    before, after = (load_model(path).state_dict() for path in (str(model), summary["model"]))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert any("audio_tower" in name for name in moved) and any(".mlp." in name for name in moved)
    assert not any("visual" in name for name in moved)
