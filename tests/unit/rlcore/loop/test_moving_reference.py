from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rlcore.config import ModelConfig, ReferenceConfig, RunConfig
from rlcore.errors import WeightSyncError
from rlcore.loop.moving_reference import FOLDER, MovingReference
from rlcore.models.mixing import mix_into
from rlcore.records.checkpoint import DamagedCheckpointError
from rlcore.records.timeline import Recorder


def weights(folder: Path, **values: list[float]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, row) in enumerate(values.items()):
        save_file({name: torch.tensor(row)}, folder / f"model-{index}.safetensors")
    return folder


class Run:
    """A run that starts from [0], and whose policy is [step]; what replicas of the reference load is kept."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.loaded: list[float] = []
        self.step = 0
        start = weights(folder / "start", w=[0.0])
        config = RunConfig(
            run_dir=str(folder), model=ModelConfig(path=str(start)), reference=ReferenceConfig(**settings)
        )
        learner = SimpleNamespace(call=self.export, call_one=self.mix)
        actors: Any = SimpleNamespace(needed_learner=learner, reference=SimpleNamespace(move=self.load))
        self.reference = MovingReference(config, actors, Recorder())

    def export(self, method: str, folder: str, timeout_s: float) -> None:
        weights(Path(folder), w=[float(self.step)])

    def mix(self, rank: int, method: str, *arguments: Any, timeout_s: float) -> None:
        assert (rank, method) == (0, "mix_into")
        mix_into(*arguments)

    def load(self, path: str, timeout_s: float) -> None:
        self.loaded.append(load_file(Path(path) / "model-0.safetensors")["w"].item())

    def go(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step += 1
            self.reference.follow(self.step)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"sync_every": 3}, [3.0, 6.0]),
        ({"sync_every": 2, "sync_weight": 0.25}, [0.5, 0.25 * 4 + 0.75 * 0.5, 0.25 * 6 + 0.75 * 1.375]),
    ],
)
def test_the_reference_takes_on_its_share_of_the_policy(
    settings: dict[str, Any], expected: list[float], tmp_path: Path
) -> None:
    run = Run(tmp_path, **settings)
    run.go(7)
    assert run.loaded == expected


def test_a_checkpoint_brings_the_reference_back_and_costs_no_room(tmp_path: Path) -> None:
    run = Run(tmp_path, sync_every=2, sync_weight=0.5)
    checkpoints = [tmp_path / name for name in ("before", "after")]
    for checkpoint, num_steps in zip(checkpoints, (1, 2), strict=True):
        run.go(num_steps)
        checkpoint.mkdir()
        run.reference.save(checkpoint)
    assert not (checkpoints[0] / FOLDER).exists()
    file = checkpoints[1] / FOLDER / "model-0.safetensors"
    assert os.stat(file).st_ino == os.stat(tmp_path / FOLDER / file.name).st_ino
    run.go(3)  # the run's own folder moves on, the checkpoint's does not

    again = Run(tmp_path, sync_every=2, sync_weight=0.5)
    again.step = 3
    again.reference.restore(checkpoints[1])
    again.go(3)
    assert run.loaded == [1.0, 2.5, 4.25] and again.loaded == run.loaded
    again.reference.restore(checkpoints[0])
    again.reference.restore(None)  # the reference of the start has been loaded already
    assert again.loaded[3:] == [0.0]

    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedCheckpointError, match=r"model-0\.safetensors: damaged"):
        again.reference.restore(checkpoints[1])


@given(st.floats(0, 1), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_mean_of_checkpoints_is_of_each_tensor(
    tmp_path_factory: pytest.TempPathFactory, weight: float, dtype: torch.dtype
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    old, new = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)), torch.arange(6.0).view(3, 2)
    for name, tensor in (("old", old), ("new", new.to(dtype))):
        (folder / name).mkdir()
        save_file({"w": tensor}, folder / name / "model.safetensors")
    mix_into(str(folder / "old"), str(folder / "new"), weight)
    found = load_file(folder / "new" / "model.safetensors")["w"]
    expected = (1 - weight) * old.double() + weight * new.double()
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), expected, atol=1e-6, rtol=1e-6 if dtype.itemsize == 4 else 1e-2
    )


def test_another_model_is_no_reference(tmp_path: Path) -> None:
    old, new = weights(tmp_path / "old", w=[1.0]), weights(tmp_path / "new", w=[1.0, 2.0])
    with pytest.raises(WeightSyncError, match=r"old: w has the shape \(1,\), and \(2,\) in .*new"):
        mix_into(str(old), str(new), 0.5)
