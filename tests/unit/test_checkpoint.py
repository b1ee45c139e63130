from __future__ import annotations

import dataclasses
import json

import pytest

from rlcore.checkpoint import config_digest, latest, read, writing
from rlcore.config import LearnerConfig, RunConfig
from rlcore.errors import CheckpointError

STATE = {"step": 40, "gate": {"is_open": True, "history": [0.5, 0.6]}}


def save(folder, step, **kwargs):
    with writing(folder, step=step, state=STATE | {"step": step}, digest="abc", **kwargs) as partial:
        (partial / "learner").mkdir()
        (partial / "learner" / "weights").write_text(str(step))


def test_a_checkpoint_is_what_was_written(tmp_path):
    save(tmp_path, 40, versions={"torch": "2.13.0"})
    assert latest(tmp_path) == tmp_path / "step_000040"
    assert read(tmp_path / "step_000040", digest="abc") == STATE
    assert (tmp_path / "step_000040" / "learner" / "weights").read_text() == "40"
    marker = json.loads((tmp_path / "step_000040" / "complete.json").read_text())
    assert marker == {"step": 40, "config_digest": "abc", "versions": {"torch": "2.13.0"}}


def test_the_newest_are_kept_and_a_step_may_be_written_again(tmp_path):
    for step in (1, 20, 3, 20, 100):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000020", "step_000100"]
    assert latest(tmp_path).name == "step_000100"


def test_a_failed_save_leaves_what_there_was(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(RuntimeError, match="rank 1"), writing(tmp_path, step=2, state={}, digest="abc"):
        raise RuntimeError("rank 1 is gone")
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_an_incomplete_one_is_passed_over_and_refused(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step_000002" / "learner").mkdir(parents=True)
    assert latest(tmp_path).name == "step_000001"
    with pytest.raises(CheckpointError, match="complete"):
        read(tmp_path / "step_000002")
    (tmp_path / "step_000001" / "controller.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"controller\.json"):
        read(tmp_path / "step_000001")
    assert latest(tmp_path / "nowhere") is None


def test_another_configuration_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="another configuration"):
        read(tmp_path / "step_000001", digest="def")


def test_the_digest_follows_settings_and_not_places():
    config = RunConfig()
    assert config_digest(dataclasses.replace(config, run_dir="elsewhere")) == config_digest(config)
    layout = LearnerConfig(num_ranks=8, num_gpus=1, zero_stage=3, offload_optimizer="cpu")
    assert config_digest(dataclasses.replace(config, learner=layout)) == config_digest(config)
    other = dataclasses.replace(config, learner=LearnerConfig(lr=2e-6))
    assert config_digest(other) != config_digest(config)
