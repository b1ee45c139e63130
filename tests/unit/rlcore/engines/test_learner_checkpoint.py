"""The learner's files, with one rank and a state that needs no DeepSpeed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from rlcore.engines import learner_checkpoint
from rlcore.engines.learner_checkpoint import Progress
from rlcore.records.checkpoint import DamagedCheckpointError


class State:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.weights: dict[int, torch.Tensor] = {}

    def read(self, parameter: torch.nn.Parameter, *, with_moments: bool) -> dict[str, torch.Tensor]:
        return {kind: parameter.detach().clone() for kind in ("weight", "exp_avg", "exp_avg_sq")}

    def prepare(self, num_updates: int) -> None:
        self.events.append("prepare")

    def write(self, parameter: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        self.events.append("write")
        self.weights[id(parameter)] = tensors["weight"]

    def finish(self) -> None:
        self.events.append("finish")


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.nn.Parameter]:
    """Two, each in a file of its own, of the only rank."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "barrier", lambda: None)
    monkeypatch.setattr(dist, "all_gather_object", lambda found, own: found.__setitem__(0, own))
    monkeypatch.setattr(learner_checkpoint, "FILE_BYTES", 1)
    return {name: torch.nn.Parameter(torch.full((4,), value)) for name, value in (("a", 1.0), ("b", 2.0))}


def save(folder: Path, parameters: dict[str, torch.nn.Parameter]) -> None:
    progress = Progress(num_calls=2, num_updates=1, num_skipped=1, num_skipped_in_a_row=0)
    learner_checkpoint.save(folder, parameters, State(), progress, {})  # type: ignore[arg-type]


def test_files_are_on_the_disk_before_the_header(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    save(tmp_path, parameters)
    names = ["state-00000.safetensors", "state-00001.safetensors", ".engine.json.partial"]
    assert synced == [*(str(tmp_path / name) for name in names), str(tmp_path)]


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "cut"])
def test_a_damaged_file_is_found_before_anything_is_changed(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter], damage: str
) -> None:
    save(tmp_path, parameters)
    state = State()
    progress = learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert progress == Progress(num_calls=2, num_updates=1, num_skipped=1, num_skipped_in_a_row=0)
    assert state.events == ["prepare", "write", "write", "finish"]
    assert [float(state.weights[id(p)][0]) for p in parameters.values()] == [1.0, 2.0]

    path = tmp_path / "state-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"emptied": b"", "zeroed": bytes(len(whole)), "cut": whole[:-1]}[damage])
    state = State()
    with pytest.raises(DamagedCheckpointError, match=r"state-00001\.safetensors: damaged"):
        learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == []
