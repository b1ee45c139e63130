"""What the driver of a supervised job shows, and the order in which its workers make things safe."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from emotion_task.config import SupervisedConfig
from emotion_task.sft.examples import Example
from emotion_task.sft.job import VALIDATION_LOSS, Validation, _advance, _report
from rlcore.errors import CheckpointError
from rlcore.records.files import append_rows


def test_the_bar_goes_on_over_a_step_whose_loss_is_no_number(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    with tqdm(total=3, file=io.StringIO()) as bar:
        _advance(bar, metrics)
        assert bar.n == 0
        append_rows(metrics, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}])
        _advance(bar, metrics)
        assert bar.n == 2


def test_a_checkpoint_is_safe_before_the_model_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def export(folder: Path) -> None:
        done.append(f"export {folder.name}")
        raise CheckpointError("no space left")

    def report(metrics: dict[str, float], *, checkpoint: Any, checkpoint_dir_name: str) -> None:
        state = json.loads((Path(checkpoint.path) / "step.json").read_text())
        done.append(f"report {checkpoint_dir_name} {state['is_model']} {state['lowest_validation_loss']}")

    monkeypatch.setattr("ray.train.report", report)
    engine: Any = SimpleNamespace(rank=0, save=lambda folder: None, model=SimpleNamespace(export=export))
    config = SupervisedConfig()
    without = Validation([], "base", config, math.inf)
    _report(engine, {"step": 2}, without, tmp_path)
    with pytest.raises(CheckpointError, match="no space left"):
        _report(engine, {"step": 4}, without, tmp_path, is_last=True)
    assert done == ["report step_000002 False None", "report step_000004 True None", "export model"]
    done.clear()
    example = Example(id="a", audio=None, prompt="?", target="!")
    held_back = Validation([example], "base", config, 0.5)
    _report(engine, {"step": 6, VALIDATION_LOSS: 0.75}, held_back, tmp_path, is_last=True)
    with pytest.raises(CheckpointError, match="no space left"):
        _report(engine, {"step": 8, VALIDATION_LOSS: 0.25}, held_back, tmp_path)
    assert done == ["report step_000006 False 0.5", "report step_000008 True 0.25", "export model"]
