"""The learner's files, with one rank and a state that needs no DeepSpeed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from small_files import no_file_beyond

from rlcore.engines import learner_checkpoint
from rlcore.engines.learner_checkpoint import Progress
from rlcore.errors import CheckpointError
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


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda whole: b"",
    "zeroed": lambda whole: bytes(len(whole)),
    "cut": lambda whole: whole[:-1],
    "flipped": lambda whole: whole[:-1] + bytes([whole[-1] ^ 0x40]),  # the last value's exponent
}


@pytest.mark.parametrize("damage", list(DAMAGES))
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
    path.write_bytes(DAMAGES[damage](whole))
    state = State()
    with pytest.raises(DamagedCheckpointError, match=r"state-00001\.safetensors: damaged"):
        learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == []


def without(name: str, header: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in header.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: without("num_updates", header), r"engine\.json: not what a learner wrote \(KeyError"),
        (lambda header: header | {"parameters": None}, r"engine\.json: not what a learner wrote"),
        (
            lambda header: header | {"parameters": {"a": {"shape": 4}}},
            r"engine\.json: not what a learner wrote",
        ),
        (lambda header: header | {"digests": {}}, r"state-00000\.safetensors: damaged, or of another"),
        (lambda header: None, r"engine\.json: no JSON object, but None"),
    ],
)
def test_a_header_that_is_not_what_it_says_is_found(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter], change: Callable[[Any], Any], said: str
) -> None:
    save(tmp_path, parameters)
    path, state = tmp_path / "engine.json", State()
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DamagedCheckpointError, match=said):
        learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == []


def test_what_an_earlier_version_wrote_is_read_and_its_tensors_counted(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter]
) -> None:
    save(tmp_path, parameters)
    header, state = tmp_path / "engine.json", State()
    header.write_text(json.dumps(without("digests", json.loads(header.read_text()))))
    learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == ["prepare", "write", "write", "finish"]
    path, state = tmp_path / "state-00001.safetensors", State()
    tensors = load_file(path)
    for wrong in (without("b/exp_avg", tensors), tensors | {"b/exp_avg": torch.zeros(3)}):
        save_file(wrong, path)
        with pytest.raises(
            DamagedCheckpointError, match=r"00001\.safetensors: has no b/exp_avg of shape \[4\]"
        ):
            learner_checkpoint.load(tmp_path, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == []


def test_a_full_disk_is_told_with_what_the_checkpoint_takes(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter]
) -> None:
    with pytest.raises(CheckpointError) as failed, no_file_beyond(20):
        save(tmp_path / "learner", parameters)
    said = str(failed.value)
    assert said.startswith(f"{tmp_path}/learner: the checkpoint cannot be written there: ")
    assert "too large" in said and "it takes at least 96 bytes, " in said and " are free there" in said


@pytest.mark.parametrize("name", ["../state-00000.safetensors", "/state-00000.safetensors"])
def test_no_file_outside_of_the_folder_is_read(
    tmp_path: Path, parameters: dict[str, torch.nn.Parameter], name: str
) -> None:
    folder = tmp_path / "learner"
    save(folder, parameters)
    (tmp_path / "state-00000.safetensors").write_bytes((folder / "state-00000.safetensors").read_bytes())
    header = json.loads((folder / "engine.json").read_text())
    header["parameters"]["a"]["file"] = name
    (folder / "engine.json").write_text(json.dumps(header))
    state = State()
    with pytest.raises(DamagedCheckpointError, match=rf"outside of its folder, '{name}'"):
        learner_checkpoint.load(folder, parameters, state, {})  # type: ignore[arg-type]
    assert state.events == []
