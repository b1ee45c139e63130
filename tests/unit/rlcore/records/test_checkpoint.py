from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from small_files import no_file_beyond

from rlcore.config import (
    AlgorithmConfig,
    LearnerConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TrainConfig,
    WeightSyncConfig,
)
from rlcore.config.env_values import EnvStr
from rlcore.errors import CheckpointError, RewardError, StorageError
from rlcore.records.checkpoint import (
    Change,
    DamagedCheckpointError,
    changes,
    complete,
    read,
    run_settings,
    writing,
)
from rlcore.records.files import write_json
from rlcore.records.run_folder import resumable

SETTINGS = {"seed": 0, "learner": {"lr": 1e-6}}
STATE = {"step": 40, "gate": {"is_open": True, "history": [0.5, 0.6]}}


def save(folder, step, **kwargs):
    with writing(folder, step=step, state=STATE | {"step": step}, settings=SETTINGS, **kwargs) as partial:
        (partial / "learner").mkdir()
        (partial / "learner" / "weights").write_text(str(step))
        write_json(partial / "learner" / "engine.json", {"num_updates": step, "lr": 1e-6, "name": "\u00e4"})


def test_a_checkpoint_is_what_was_written(tmp_path):
    save(tmp_path, 40, versions={"torch": "2.13.0"})
    assert complete(tmp_path)[-1] == tmp_path / "step_000040"
    assert read(tmp_path / "step_000040", settings=SETTINGS) == STATE
    assert (tmp_path / "step_000040" / "learner" / "weights").read_text() == "40"
    marker = json.loads((tmp_path / "step_000040" / "complete.json").read_text())
    assert marker.pop("digests").keys() == {"complete.json", "controller.json", "learner/engine.json"}
    expected = {"step": 40, "settings": SETTINGS, "versions": {"torch": "2.13.0"}, "is_rolling": False}
    assert marker == expected


def test_the_newest_are_kept_and_a_step_may_be_written_again(tmp_path):
    for step in (1, 20, 3, 20, 100):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000020", "step_000100"]
    assert complete(tmp_path)[-1].name == "step_000100"


def test_a_rolling_one_gives_way_to_the_next_and_takes_no_lasting_ones_place(tmp_path):
    kept = []
    for step in (10, 20, 25, 30, 40, 50, 55):
        save(tmp_path, step, is_rolling=step % 25 > 0)
        kept.append([int(path.name.removeprefix("step_")) for path in complete(tmp_path)])
    assert kept == [[10], [20], [25], [25, 30], [25, 40], [25, 50], [25, 50, 55]]


def test_a_failed_save_leaves_what_there_was(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(RuntimeError, match="rank 1"), writing(tmp_path, step=2, state={}, settings={}):
        raise RuntimeError("rank 1 is gone")
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]


def test_every_flipped_bit_of_a_json_file_is_found(tmp_path):
    save(tmp_path, 7)
    folder = tmp_path / "step_000007"
    for name in ("complete.json", "controller.json", "learner/engine.json"):
        path, found = folder / name, 0
        whole = path.read_bytes()
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                assert read(folder, settings=SETTINGS) == STATE | {"step": 7}
                assert json.loads(flipped) == json.loads(whole)  # 1E-06 is 1e-06
            except DamagedCheckpointError as error:
                assert str(path) in str(error)
                found += 1
        assert found > 8 * len(whole) - 3
        path.write_bytes(whole)
    assert read(folder, settings=SETTINGS) == STATE | {"step": 7}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("learner", "learner/engine.json: damaged, or of another checkpoint"),
        ("controller.json", "controller.json: damaged, or of another checkpoint"),
        ("complete.json", "learner/engine.json: damaged, or of another checkpoint|controller.json: damaged"),
        ("", "complete.json: of step 20"),
    ],
)
def test_a_part_of_another_checkpoint_is_found(tmp_path, part, said):
    for step in (20, 40):
        save(tmp_path, step)
    old, new = tmp_path / "step_000020" / part, tmp_path / "step_000040" / part
    shutil.rmtree(new) if new.is_dir() else new.unlink()
    (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
    with pytest.raises(DamagedCheckpointError, match=said):
        read(tmp_path / "step_000040", settings=SETTINGS)


@pytest.mark.parametrize("text", ["null", "[]", "3", '"complete"', "{}", '{"step": 1, "settings": null}'])
def test_a_file_that_holds_something_else_is_named(tmp_path, text):
    for name in ("complete.json", "controller.json"):
        save(tmp_path, 1)
        (tmp_path / "step_000001" / name).write_text(text)
        with pytest.raises(DamagedCheckpointError, match=rf"step_000001/{name}: "):
            read(tmp_path / "step_000001", settings=SETTINGS)
        with pytest.raises(DamagedCheckpointError, match=rf"step_000001/{name}: "):
            changes(tmp_path / "step_000001", SETTINGS)


def test_one_of_an_earlier_version_is_read_with_a_warning(tmp_path, caplog):
    save(tmp_path, 1)
    path = tmp_path / "step_000001" / "complete.json"
    assert changes(path.parent, SETTINGS) == [] and not caplog.records
    write_json(path, {"step": 1, "settings": SETTINGS, "versions": {}})
    assert read(path.parent, settings=SETTINGS) == STATE | {"step": 1}
    assert changes(path.parent, SETTINGS) == []
    assert f"{path}: an earlier version wrote this checkpoint, without digests" in caplog.text
    write_json(path.parent / "controller.json", STATE)
    with pytest.raises(DamagedCheckpointError, match=r"controller\.json: of step 40, and complete"):
        read(path.parent)


def test_a_full_disk_costs_no_checkpoint_and_is_a_sentence(tmp_path):
    run_dir = tmp_path / "run"
    write_json(run_dir / "config.yaml", {})
    command = f"`rlcore train --config {run_dir}/config.yaml"

    def failed_save(step):
        settings = {"a": "b" * 300}
        with (
            pytest.raises(StorageError) as failed,
            resumable(run_dir),
            no_file_beyond(300),
            writing(run_dir / "checkpoints", step=step, state=STATE, settings=settings),
        ):
            pass
        return str(failed.value)

    said = failed_save(1)
    assert re.match(
        r"the checkpoint of step 1 is not saved: .*complete\.json: cannot be written: File too", said
    )
    assert said.endswith(f"No step was saved; {command} --overwrite` begins anew, once that is put right")
    save(run_dir / "checkpoints", 2)
    said = failed_save(3)
    saved = run_dir / "checkpoints" / "step_000002"
    going_on = f"{command} --resume` goes on from there, once that is put right"
    assert said.endswith(f". {saved} is saved, and {going_on}")
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step_000002"]
    with (
        pytest.raises(StorageError, match="step 3 is not saved: learner: no room"),
        writing(run_dir / "checkpoints", step=3, state=STATE, settings={}),
    ):
        raise CheckpointError("learner: no room")
    shutil.rmtree(run_dir)
    with pytest.raises(StorageError) as failed, resumable(run_dir):
        (run_dir / "metrics.jsonl").open("a")
    assert str(failed.value) == (
        f"{run_dir}/metrics.jsonl: No such file or directory. Put {run_dir} back with its checkpoints, and "
        "--resume goes on from the last"
    )


def test_what_is_no_file_of_the_run_keeps_its_error(tmp_path):
    for error in (
        RewardError("rewards.even: no answer"),
        FileNotFoundError(2, "No such file", "/else/x.wav"),
    ):
        with pytest.raises(type(error)) as raised, resumable(tmp_path):
            raise error
        assert raised.value is error


def test_an_incomplete_one_is_passed_over_and_refused(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step_000002" / "learner").mkdir(parents=True)
    assert complete(tmp_path)[-1].name == "step_000001"
    with pytest.raises(DamagedCheckpointError, match="complete"):
        read(tmp_path / "step_000002")
    (tmp_path / "step_000001" / "controller.json").write_text("{")
    with pytest.raises(DamagedCheckpointError, match=r"controller\.json"):
        read(tmp_path / "step_000001")
    assert complete(tmp_path / "nowhere") == []


def test_a_copy_under_another_name_is_left_alone(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "step_000001", tmp_path / "step_000001_backup")
    for step in (2, 3):
        save(tmp_path, step, keep=2)
    assert [path.name for path in complete(tmp_path)] == ["step_000002", "step_000003"]
    assert (tmp_path / "step_000001_backup" / "complete.json").is_file()


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor: int) -> None:
        assert not (tmp_path / "step_000001").exists() or not synced[-1].is_file()
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", fsync)
    save(tmp_path, 1)
    partial = tmp_path / ".step_000001.partial"
    names = [".controller.json.partial", "", ".complete.json.partial", ""]
    assert synced == [*(partial / name for name in names), tmp_path]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir():
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "a.json", {"a": 1}, durable=True)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_key_may_change_and_is_not_in_the_settings(tmp_path):
    def settings(key: str) -> dict:
        args = {"keys": [EnvStr(key, "${oc.env:KEY}")], "limit": 3}
        return run_settings(RunConfig(rewards={"a": RewardConfig(target="a:A", args=args)}))

    with writing(tmp_path, step=40, state=STATE, settings=settings("s3cret")):
        pass
    assert "s3cret" not in (tmp_path / "step_000040" / "complete.json").read_text()
    assert read(tmp_path / "step_000040", settings=settings("another")) == STATE
    changed = settings("another")
    changed["rewards"]["a"]["args"]["keys"] = []
    with pytest.raises(CheckpointError, match=r"args\.keys was \['\$\{oc\.env:KEY\}'\], is \[\]"):
        read(tmp_path / "step_000040", settings=changed)


def test_another_configuration_is_refused(tmp_path):
    save(tmp_path, 1)
    changed = {"seed": 0, "learner": {"lr": 2e-6}, "rewards": {"a": 1}}
    with pytest.raises(CheckpointError, match=r"learner.lr was 1e-06, is 2e-06; rewards was None, is .'a'"):
        read(tmp_path / "step_000001", settings=changed)


def test_what_may_change_is_told_from_what_may_not(tmp_path):
    def settings(**sections) -> dict:
        return run_settings(dataclasses.replace(RunConfig(seed=3), **sections))

    with writing(tmp_path, step=40, state=STATE, settings=settings()):
        pass
    checkpoint = tmp_path / "step_000040"
    longer = settings(train=TrainConfig(num_steps=200))
    assert read(checkpoint, settings=longer) == STATE
    assert changes(checkpoint, longer) == [Change("train.num_steps", 100, 200)]
    other = settings(learner=LearnerConfig(lr=1.0), rewards={"a": RewardConfig(target="a:A")})
    with pytest.raises(
        CheckpointError, match=r"lr was 1e-06, is 1\.0\. With --accept-changes beside --resume"
    ):
        read(checkpoint, settings=other)
    assert read(checkpoint, settings=other, accept_changes=True) == STATE
    assert [change.key for change in changes(checkpoint, other)] == ["rewards.a", "learner.lr"]
    never = settings(seed=4, learner=LearnerConfig(lr=1.0))
    with pytest.raises(
        CheckpointError, match=r"configuration: seed was 3, is 4\. These never change: resume"
    ):
        read(checkpoint, settings=never, accept_changes=True)


def test_keys_that_came_with_a_later_version_change_nothing_by_their_defaults(tmp_path):
    config = dataclasses.replace(RunConfig(seed=3), rewards={"a": RewardConfig(target="a:A")})
    older, now = run_settings(config), run_settings(config)
    del older["algorithm"]["kl_coef"], older["algorithm"]["ptr"]
    del older["rewards"]["a"]["weight"], older["learner"]["lora"]["rank"], older["rollout"]["stop"]
    with writing(tmp_path, step=40, state=STATE, settings=older):
        pass
    checkpoint = tmp_path / "step_000040"
    assert read(checkpoint, settings=now) == STATE and changes(checkpoint, now) == []
    other = dataclasses.replace(config, algorithm=AlgorithmConfig(kl_coef=0.5))
    with pytest.raises(CheckpointError, match=r"algorithm\.kl_coef was None, is 0\.5"):
        read(checkpoint, settings=run_settings(other))
    with pytest.raises(CheckpointError, match=r"rewards\.b was None, is \{"):
        more = {**config.rewards, "b": RewardConfig(target="b:B")}
        read(checkpoint, settings=run_settings(dataclasses.replace(config, rewards=more)))


def test_a_run_may_go_on_elsewhere_and_with_other_deadlines():
    config = RunConfig(rewards={"a": RewardConfig(target="a:A")})
    for other in (
        dataclasses.replace(config, run_dir="elsewhere"),
        dataclasses.replace(
            config,
            learner=LearnerConfig(
                num_ranks=8, num_gpus=1, zero_stage=3, offload_optimizer="cpu", precision="float32"
            ),
        ),
        dataclasses.replace(config, rollout=RolloutConfig(num_replicas=4, timeout_s=9e3, max_restarts=9)),
        dataclasses.replace(config, weight_sync=WeightSyncConfig(backend="gloo", timeout_s=9e3)),
        dataclasses.replace(config, rewards={"a": RewardConfig(target="a:A", replicas=2, timeout_s=9e3)}),
    ):
        assert run_settings(other) == run_settings(config)
    for other in (
        dataclasses.replace(config, learner=LearnerConfig(lr=2e-6)),
        dataclasses.replace(config, learner=LearnerConfig(num_gpus=1)),  # autocast by default
        dataclasses.replace(config, rollout=RolloutConfig(num_gpus=1)),  # bfloat16 by default
        dataclasses.replace(config, rollout=RolloutConfig(max_tokens=9)),
        dataclasses.replace(config, rewards={"a": RewardConfig(target="a:A", weight=0.5)}),
    ):
        assert run_settings(other) != run_settings(config)
