"""docs/guides/preferences.md as it stands, and KTO on two ranks that train adapters: a loss that falls, and
held-out preferences that the exported policy has."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlcore.config import LearnerConfig, LoRAConfig, load_config
from rlcore.config.offline import PreferConfig
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.hf_model import load_model
from rlcore.offline.prefer import prefer
from rlcore.offline.recipe import PreferenceRecipe, Ranked
from rlcore.records.files import read_rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PROJECT = Path(__file__).resolve().parents[2]
GUIDE = (PROJECT / "docs" / "guides" / "preferences.md").read_text(encoding="utf-8")


def command(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    return ended.stdout


def margins(config: PreferConfig, model: str) -> list[float]:
    """What the exported policy prefers of the held-out pairs, against the base, by a forward pass of its
    own."""
    recipe = PreferenceRecipe(config)
    rows = [Ranked(**row) for row in read_rows(Path(config.run_dir) / "validation.jsonl")]  # type: ignore[typeddict-item]
    groups = recipe._groups(rows, np.zeros((len(rows), 2)))
    policy, base = (
        completion_logprobs(load_model(path), groups).logprobs.sum(-1) for path in (model, config.model.path)
    )
    ratios = (policy - base).view(len(groups), 2)
    return (config.beta * (ratios[:, 0] - ratios[:, 1])).tolist()


def test_preferences_of_a_file_become_the_policys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in re.findall(
        r"^```(?:python|yaml)\n(# \S+\.(?:py|yaml)\n.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE
    ):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    command("make_pairs.py")
    command("-m", "emotion_task.cli", "tiny-model", "runs/tiny", "--texts", "data/pairs.jsonl")
    said = command("-m", "rlcore.cli", "prefer", "--config", "dpo.yaml")
    assert "1 bad rows are left out" in said and "runs/dpo: finished" in said
    rows = list(read_rows("runs/dpo/metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, 21))
    first, last = rows[0], rows[-1]
    # The reference is the policy before its first step, to rounding.
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and abs(first["margin"]) < 1e-3
    assert last["loss"] < 0.2 and last["validation_loss"] < 0.2 and last["validation_accuracy"] == 1
    config = load_config(["dpo.yaml"], [], PreferConfig)
    found = margins(config, "runs/dpo/model")
    assert np.mean(found) == pytest.approx(last["validation_margin"], rel=1e-3)

    # The same command again goes nowhere; --resume finds the job finished and keeps its model.
    before = Path("runs/dpo/model/model.safetensors").read_bytes()
    assert prefer(config, resume=True)["step"] == 20
    assert Path("runs/dpo/model/model.safetensors").read_bytes() == before

    learner = LearnerConfig(num_ranks=2, num_cpus=0.9, lr=3e-3, zero_stage=3, lora=LoRAConfig(rank=4))
    labelled = replace(
        config, run_dir="runs/kto", loss="kto", train=replace(config.train, num_steps=10, learner=learner)
    )
    ended = prefer(labelled)
    rows = list(read_rows("runs/kto/metrics.jsonl"))
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-4) and rows[0]["kl"] < 1e-3
    assert ended["validation_accuracy"] > 0.9 and ended["validation_loss"] < 0.4
    assert len(json.loads(Path("runs/kto/reference.jsonl").read_text().splitlines()[0])["logprobs"]) == 2
