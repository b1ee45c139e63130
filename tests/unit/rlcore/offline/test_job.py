"""What the driver of a supervised job shows, and the order in which its workers make things safe."""

from __future__ import annotations

import errno
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from rlcore.errors import CheckpointError, StorageError
from rlcore.offline.job import VALIDATION_LOSS, _advance, _report, _resume
from rlcore.records.checkpoint import DamagedCheckpointError, write_marker
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
    assert _report(engine, {"step": 2}, math.inf, tmp_path) == math.inf
    with pytest.raises(CheckpointError, match="no space left"):
        _report(engine, {"step": 4}, math.inf, tmp_path, is_last=True)
    assert done == ["report step_000002 False None", "report step_000004 True None", "export model"]
    done.clear()
    assert _report(engine, {"step": 6, VALIDATION_LOSS: 0.75}, 0.5, tmp_path, is_last=True) == 0.5
    with pytest.raises(CheckpointError, match="no space left"):
        _report(engine, {"step": 8, VALIDATION_LOSS: 0.25}, 0.5, tmp_path)
    assert done == ["report step_000006 False 0.5", "report step_000008 True 0.25", "export model"]
    assert _report(engine, {"step": 9, VALIDATION_LOSS: math.nan}, 0.5, tmp_path) == 0.5


class Engine:
    """Loads what it is given."""

    rank = 0

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, folder: Path) -> None:
        self.loaded.append(folder.name)


def resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[int, float, bool], list[str]]:
    """Goes on from the newest checkpoint that Train knows of in `folder`."""
    engine: Any = Engine()
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: SimpleNamespace(path=str(folder / "step_000004")))
    return _resume(engine), engine.loaded


def test_a_job_goes_on_from_the_newest_checkpoint_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4, 6):  # Train was killed while it took in the last
        (tmp_path / f"step_{step:06d}").mkdir()
        state = {"step": step, "lowest_validation_loss": None, "is_model": step == 2}
        write_marker(tmp_path / f"step_{step:06d}" / "step.json", state)
    assert resume(tmp_path, monkeypatch) == ((4, math.inf, False), ["step_000004"])
    path = tmp_path / "step_000004" / "step.json"
    for text in ("null", "", path.read_text().replace(": false", ": true"), '{"step": 4, "is_model": true}'):
        path.write_text(text)
        assert resume(tmp_path, monkeypatch) == ((2, math.inf, True), ["step_000002"])
        assert f"The job goes on from {tmp_path / 'step_000002'}" in caplog.text
    path.write_text('{"step": 4, "is_model": false, "lowest_validation_loss": 0.5}')
    assert resume(tmp_path, monkeypatch) == ((4, 0.5, False), ["step_000004"])
    assert "step.json: an earlier version wrote this checkpoint, without digests" in caplog.text
    (tmp_path / "step_000002" / "step.json").unlink()
    path.unlink()
    with pytest.raises(DamagedCheckpointError, match=r"step_000002/step\.json: missing"):
        resume(tmp_path, monkeypatch)


def test_a_checkpoint_that_train_cannot_take_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ray.train.report", report)
    engine: Any = SimpleNamespace(rank=0, save=lambda folder: (Path(folder) / "x").write_bytes(bytes(2000)))
    with pytest.raises(StorageError) as failed:
        _report(engine, {"step": 2}, math.inf, tmp_path)
    said = str(failed.value)
    assert said.startswith(
        f"{tmp_path}: the checkpoint of step 2 is not saved: No space left on device; it takes"
    )
    assert " are free there" in said
