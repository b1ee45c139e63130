"""What is around the loop, with a loop that fails when the test wants."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlcore.config import LearnerConfig, RewardConfig, RunConfig, TrainConfig
from rlcore.errors import (
    ActorError,
    CheckpointError,
    ConfigError,
    DeadlineError,
    NonFiniteError,
    NoUpdateError,
    PlacementError,
    RewardError,
    RLCoreError,
)
from rlcore.loop import resuming
from rlcore.loop.metrics import MAX_TRUNCATED, TruncationAlarm, bar_values, headline
from rlcore.loop.moving_reference import MovingReference
from rlcore.loop.rounds import GroupBuffer
from rlcore.records import checkpoint
from rlcore.records.files import write_json
from rlcore.records.run_folder import resumable
from rlcore.records.signals import StopFlag
from rlcore.records.timeline import Recorder
from rlcore.records.tracking import Tracker
from rlcore.run import _resume, _Run, train
from rlcore.types import Completion, Group, Prompt


def saved_state(step: int) -> dict[str, Any]:
    """What a controller gives a checkpoint of `step`."""
    rounds = {"next_position": 0, "open_rounds": {}}
    return {"step": step, "policy_version": step, "schedule": {}, "statistics": {}, "rounds": rounds}


def unmoved() -> MovingReference:
    """Returns the reference of a run that leaves it alone."""
    actors: Any = SimpleNamespace(reference=None)
    return MovingReference(RunConfig(), actors, Recorder())


class FailingLoop:
    """Of two prompts a step; step 2 (from 0) fails, when its round has been taken."""

    step = 1
    num_restarts = 0
    recorder, reference = Recorder(), unmoved()

    def __init__(self, error: RLCoreError) -> None:
        self.error = error
        self.buffer: GroupBuffer[str] = GroupBuffer(2)
        self.buffer.load_state_dict({"next_position": 2, "open_rounds": {}}, step=1)
        self.learner = SimpleNamespace(
            call=lambda method, folder, timeout_s: Path(folder).mkdir(parents=True)
        )

    def push_weights(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "rounds": self.buffer.state_dict()}

    def train(self, num_steps: int, *, after_step: Callable[[Any], None], should_stop: Any) -> None:
        for _ in range(2):
            for ticket in self.buffer.open(self.step, num_steps):
                self.buffer.add(ticket, "group")
            self.buffer.take(self.step)
            if self.step == 2:
                raise self.error
            self.step += 1
            after_step(None)


@pytest.mark.parametrize(
    "error", [NonFiniteError("6 steps in a row were skipped"), RewardError("rewards.even: failed")]
)
def test_a_run_that_gives_up_keeps_the_prompts_of_the_step_that_failed(
    error: RLCoreError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Run, "log_step", lambda self, result, bar: None)
    loop, config = FailingLoop(error), RunConfig(train=TrainConfig(num_steps=4))
    task, tracker = SimpleNamespace(prompts=lambda split: []), SimpleNamespace()
    run = _Run(config, tmp_path, loop, task, tracker)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        run.train(SimpleNamespace())  # type: ignore[arg-type]
    saved = checkpoint.complete(tmp_path / "checkpoints")[-1]
    assert saved.name == "step_000002"
    resumed: GroupBuffer[str] = GroupBuffer(2)
    resumed.load_state_dict(checkpoint.read(saved)["rounds"], step=2)
    assert [ticket.position for ticket in resumed.open(2, 4)] == [4, 5]


class Loop:
    """A controller whose steps do nothing, from `step` on; `learner` writes down what it is called for."""

    recorder, reference = Recorder(), unmoved()

    def __init__(self, step: int = 0) -> None:
        self.step, self.num_restarts, self.num_replicas = step, 0, 1
        self.calls: list[str] = []
        self.learner = SimpleNamespace(call=self.call)

    def call(self, method: str, folder: str, timeout_s: float) -> None:
        self.calls.append(f"{method} {self.step}")
        Path(folder).mkdir(parents=True)

    def push_weights(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return saved_state(self.step)

    def generate(self, prompts: Any, *, greedy: bool, should_stop: Callable[[], bool]) -> list[Group] | None:
        self.calls.append(f"evaluate {self.step}")
        if should_stop():
            return None
        answer = Completion(token_ids=(1,), logprobs=(0.0,), text="a", finish_reason="stop", policy_version=0)
        prompt = Prompt(id="p", text="?")
        return [Group(prompt=prompt, prompt_token_ids=(0,), completions=(answer,))]

    def score(self, groups: Any) -> dict[str, Any]:
        return {}

    def train(self, num_steps: int, *, after_step: Callable[[Any], None], should_stop: Any) -> None:
        while self.step < num_steps and not should_stop():
            self.step += 1
            after_step(None)


class Stop(StopFlag):
    """A signal that comes while the loop is at `step`, in the evaluation before training at 0."""

    def __init__(self, loop: Loop, step: int) -> None:
        super().__init__()
        self.loop, self.step = loop, step

    def __bool__(self) -> bool:
        if self.loop.step == self.step and self.loop.calls:
            self.request("SIGTERM")
        return super().__bool__()


def run(
    folder: Path,
    loop: Loop,
    *,
    resume_step: int | None = None,
    stop_at: int | None = None,
    max_restarts: int = 0,
) -> dict[str, Any]:
    """Of four steps, with an evaluation and a checkpoint after every second."""
    config = RunConfig(
        train=TrainConfig(num_steps=4, eval_every=2, checkpoint_every=2),
        learner=LearnerConfig(max_restarts=max_restarts),
    )
    task = SimpleNamespace(
        prompts=lambda split: [], evaluate=lambda groups, scores: {"accuracy": 0.1 * loop.step}
    )
    stop = StopFlag() if stop_at is None else Stop(loop, stop_at)
    shutil.rmtree(folder / "model", ignore_errors=True)
    with resumable(folder), Tracker(folder, config, resume_step=resume_step) as tracker:
        started: Any = _Run(config, folder, loop, task, tracker, saved_step=resume_step)  # type: ignore[arg-type]
        return started.train(stop)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray and no pictures; of a step, one metric."""
    monkeypatch.setattr(_Run, "log_step", lambda self, result, bar: self.log({"kl": 0.5}))
    monkeypatch.setattr("rlcore.run.RayMetrics.log", lambda self, step, metrics: None)
    monkeypatch.setattr("rlcore.run.plot_run", lambda run_dir: None)


def records(folder: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """Metrics that do not hang on the clock, a row a line; step and split of the samples."""
    metrics, samples = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "samples.jsonl")
    )
    lasting = [{k: v for k, v in row.items() if k not in ("time", "eval/latency_ms")} for row in metrics]
    return lasting, [(row["step"], row["split"]) for row in samples]


@pytest.mark.usefixtures("quiet")
def test_who_is_stopped_saves_first_and_evaluates_when_resumed(tmp_path: Path) -> None:
    whole = Loop()
    summary = run(tmp_path / "whole", whole)
    assert whole.calls == ["evaluate 0", "save 2", "evaluate 2", "save 4", "export 4", "evaluate 4"]

    stopped = Loop()
    assert "after" not in run(tmp_path / "stopped", stopped, stop_at=2)
    assert stopped.calls == ["evaluate 0", "save 2", "export 2"]
    resumed = Loop(step=2)
    again = run(tmp_path / "stopped", resumed, resume_step=2)
    assert resumed.calls == ["evaluate 2", "save 4", "export 4", "evaluate 4"]
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")
    assert (again["before"]["accuracy"], again["after"]["accuracy"]) == (0.0, 0.4)
    assert again["after"].keys() == summary["after"].keys()


@pytest.mark.usefixtures("quiet")
def test_an_engine_that_is_lost_after_its_answers_took_time_all_the_same(tmp_path: Path) -> None:
    loop = Loop()
    loop.num_replicas = 0
    assert run(tmp_path, loop)["before"]["latency_ms"] > 0


@pytest.mark.usefixtures("quiet")
def test_an_evaluation_in_which_the_signal_comes_is_left_to_the_resumed_run(tmp_path: Path) -> None:
    """And that of a run which is over is made once."""
    run(tmp_path / "whole", Loop())
    folder = tmp_path / "stopped"
    first = Loop()
    run(folder, first, stop_at=0)
    assert first.calls == ["evaluate 0", "save 0", "export 0"]
    second = Loop()
    run(folder, second, resume_step=0)
    assert second.calls == [
        "evaluate 0",
        "save 2",
        "evaluate 2",
        "save 4",
        "export 4",
        "evaluate 4",
    ]
    third = Loop(step=4)
    summary = run(folder, third, resume_step=4)
    assert third.calls == ["export 4"] and summary["after"]["accuracy"] == 0.4
    assert records(folder) == records(tmp_path / "whole")


@pytest.mark.usefixtures("quiet")
def test_a_model_that_cannot_be_written_costs_no_step(tmp_path: Path) -> None:
    class Full(Loop):
        def call(self, method: str, folder: str, timeout_s: float) -> None:
            if method == "export":
                raise CheckpointError(f"ray::LearnerWorker\n{folder}: cannot be written there: disk full")
            super().call(method, folder, timeout_s)

    with pytest.raises(CheckpointError) as told:
        run(tmp_path, Full())
    assert str(told.value) == (
        f"{tmp_path}/model: cannot be written there: disk full. The checkpoint of step 4 is whole: once the "
        "reason is gone, --resume writes the model"
    )
    again = Loop(step=4)
    assert run(tmp_path, again, resume_step=4)["steps"] == 4
    assert again.calls == ["export 4", "evaluate 4"]


@pytest.mark.usefixtures("quiet")
def test_an_evaluation_that_was_cut_short_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", Loop())
    folder, log = tmp_path / "killed", _Run.log

    def killed(self: _Run, metrics: Any) -> None:
        if "eval/accuracy" in metrics and self.controller.step == 4:
            raise KeyboardInterrupt
        log(self, metrics)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "log", killed)
        run(folder, Loop())
    assert records(folder)[1] == [(0, "eval"), (2, "eval"), (4, "eval")]
    run(folder, Loop(step=4), resume_step=4)
    assert records(folder) == records(tmp_path / "whole")


class MortalLoop(Loop):
    """A loop whose actors die: each of `deaths` is a stage and a step, and the error."""

    def __init__(self, deaths: dict[tuple[str, int], RLCoreError]) -> None:
        super().__init__()
        self.deaths = deaths

    def reach(self, stage: str) -> None:
        if error := self.deaths.pop((stage, self.step), None):
            raise error

    def call(self, method: str, folder: str, timeout_s: float) -> None:
        self.reach(method)
        if method == "load":
            self.calls.append(f"load {Path(folder).parent.name}")
        else:
            super().call(method, folder, timeout_s)

    def push_weights(self) -> None:
        self.reach("push")
        self.calls.append(f"push {self.step}")

    def restart_learner(self) -> None:
        self.num_restarts += 1
        self.calls.append("restart")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.calls.append(f"back to {self.step}")

    def train(self, num_steps: int, *, after_step: Callable[[Any], None], should_stop: Any) -> None:
        while self.step < num_steps:
            self.reach("update")
            self.step += 1
            after_step(None)


def lost(role: str = "learner") -> ActorError:
    error = ActorError(f"{role}[1] died in update on 10.0.0.2")
    error.role = role
    return error


@pytest.mark.parametrize("max_restarts", [1, 2])
def test_a_learner_that_is_lost_while_a_run_resumes_is_started_anew_as_often_as_is_allowed(
    max_restarts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the load of the checkpoint, and then in the start that follows."""
    deaths = [lost(), lost()]

    def reach(*_: Any) -> int:
        if deaths and len(deaths) == 2 - controller.num_restarts:
            raise deaths.pop()
        return 4

    class Controller(MortalLoop):
        def restart_learner(self) -> None:
            super().restart_learner()
            reach()

    controller: Any = Controller({})
    monkeypatch.setattr("rlcore.run.go_on", reach)
    config = RunConfig(learner=LearnerConfig(max_restarts=max_restarts))
    if max_restarts == 1:
        with pytest.raises(ActorError, match=r"started anew 1 times and learner\.max_restarts"):
            _resume(config, tmp_path, controller, False)
    else:
        assert _resume(config, tmp_path, controller, False) == 4
    assert not deaths and controller.num_restarts == max_restarts


@pytest.mark.usefixtures("quiet")
def test_where_a_learner_is_lost_a_new_one_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    late = DeadlineError("learner[0].export gave no answer within 600 s")
    late.role = "learner"
    deaths = {("push", 0): lost(), ("update", 3): lost(), ("save", 4): lost()}
    loop = MortalLoop(deaths | {("export", 4): late})
    run(tmp_path / "mortal", loop, max_restarts=4)
    assert not deaths.keys() & loop.deaths.keys()
    assert loop.calls == [
        "evaluate 0",
        *["restart", "back to 0", "push 0", "save 2", "evaluate 2"],  # what was evaluated is not again
        *["restart", "load step_000002", "back to 2", "push 2"],
        *["restart", "load step_000002", "back to 2", "push 2", "save 4"],
        *["restart", "load step_000004", "back to 4", "push 4", "export 4", "evaluate 4"],
    ]
    run(tmp_path / "whole", Loop())
    assert records(tmp_path / "mortal") == records(tmp_path / "whole")


@pytest.mark.usefixtures("quiet")
def test_a_new_learner_that_dies_as_well_is_one_more(tmp_path: Path) -> None:
    """The last error names the victim, what is saved, and the command that goes on."""
    loop = MortalLoop({("update", 3): lost(), ("load", 3): lost()})
    folder = tmp_path / "run"
    with pytest.raises(ActorError) as ended:
        run(folder, loop, max_restarts=1)
    assert str(ended.value) == (
        "learner[1] died in update on 10.0.0.2. It was started anew 1 times and learner.max_restarts allows "
        f"no more. {folder}/checkpoints/step_000002 is saved, and `rlcore train --config {folder}/config"
        ".yaml --resume` goes on from there"
    )
    assert loop.calls[-1] == "restart"


@pytest.mark.usefixtures("quiet")
def test_what_is_not_the_learners_death_ends_the_run(tmp_path: Path) -> None:
    loop = MortalLoop({("update", 1): lost("rollout")})
    with pytest.raises(
        ActorError, match=r"^rollout\[1\] died .*\. No step was saved; `rlcore train .* --overw"
    ):
        run(tmp_path / "one", loop, max_restarts=4)
    refused = RewardError("rewards.even: failed")
    with pytest.raises(RewardError) as raised:
        run(tmp_path / "other", MortalLoop({("update", 1): refused}), max_restarts=4)
    assert raised.value is refused and loop.num_restarts == 0


@pytest.mark.usefixtures("quiet")
def test_answers_that_are_cut_are_told_once_and_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of four answers ends by length in the second evaluation, four in the third."""

    class Cut(Loop):
        def generate(self, *arguments: Any, **more: Any) -> list[Group] | None:
            (whole,) = super().generate(*arguments, **more) or ()
            (answer,) = whole.completions
            cut = replace(whole, completions=(replace(answer, finish_reason="length"),))
            num_cut = {0: 0, 2: 1, 4: 4}[self.step]
            return [cut] * num_cut + [whole] * (4 - num_cut)

    def log_step(self: _Run, result: Any, bar: Any) -> None:
        share = self.controller.step / 8
        self.log({"completion/truncated": share})
        self.truncation.note(share, "training")

    monkeypatch.setattr(_Run, "log_step", log_step)
    summary = run(tmp_path, Cut())
    assert (summary["before"]["truncated"], summary["after"]["truncated"]) == (0.0, 1.0)
    assert summary["completion_truncated"] == sum([1, 2, 3, 4]) / 8 / 4
    evaluation, training = sorted(record.getMessage() for record in caplog.records)
    assert evaluation.startswith(
        "evaluation: 25 % of the completions were cut at the token limit, rollout.max_t"
    )
    assert training.startswith("training: 25 % of the completions") and "rollout.max_tokens = 256" in training


@pytest.mark.usefixtures("quiet")
def test_few_answers_that_are_cut_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    alarm = TruncationAlarm(72)
    alarm.note(MAX_TRUNCATED, "training")
    assert not caplog.records
    alarm.note(MAX_TRUNCATED + 0.01, "training")
    assert len(caplog.records) == 1 and "rollout.max_tokens = 72" in caplog.text


class Learner:
    """Loads any checkpoint but those that are damaged."""

    def __init__(self, damaged: dict[int, type[CheckpointError]]) -> None:
        self.damaged, self.loaded = damaged, list[int]()

    def call(self, method: str, folder: str, timeout_s: float) -> None:
        step = int(Path(folder).parent.name.removeprefix("step_"))
        if step in self.damaged:
            raise self.damaged[step](f"{folder}: not as it was")
        self.loaded.append(step)


def go_on(folder: Path, damaged: dict[int, type[CheckpointError]]) -> tuple[int | None, list[int]]:
    learner = Learner(damaged)
    controller = SimpleNamespace(learner=learner, reference=unmoved(), step=0)
    controller.load_state_dict = lambda state: setattr(controller, "step", state["step"])
    step = resuming.go_on(RunConfig(), folder, controller)  # type: ignore[arg-type]
    assert step is None or step == controller.step
    return step, learner.loaded


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert go_on(tmp_path, {}) == (None, [])
    for step in (2, 4):
        settings = checkpoint.run_settings(RunConfig())
        with checkpoint.writing(tmp_path, step=step, state=saved_state(step), settings=settings):
            pass
    damage = checkpoint.DamagedCheckpointError
    assert go_on(tmp_path, {}) == (4, [4]) and not caplog.text
    assert go_on(tmp_path, {4: damage}) == (2, [2])
    assert "step_000004/learner: not as it was. The run goes on from" in caplog.text
    with pytest.raises(CheckpointError, match="step_000002"):
        go_on(tmp_path, {2: damage, 4: damage})
    with pytest.raises(CheckpointError, match="step_000004"):
        go_on(tmp_path, {4: CheckpointError})  # another model's
    (tmp_path / "step_000004" / "controller.json").write_text("")
    assert go_on(tmp_path, {}) == (2, [2])
    # Of an earlier version, which made no digests; the learner is asked for nothing before all is checked.
    for name, content in (("complete", {"step": 4, "settings": settings}), ("controller", {"step": 4})):
        write_json(tmp_path / "step_000004" / f"{name}.json", content)
    assert go_on(tmp_path, {}) == (2, [2])
    assert "controller.json: lacks 'policy_version'; use an older checkpoint. The run goes on" in caplog.text


class Cluster:
    """Stands for Ray and all actors. `train` on it gets as far as `until`, and the files of the folder that
    lie there after each stage are noted."""

    def __init__(self, folder: Path, until: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.until, self.seen = folder, until, dict[str, list[str]]()
        for name in ("ray_session", "spawn", "Controller", "_task", "reward_records", "_Run"):
            patch.setattr(f"rlcore.run.{name}", getattr(self, name))

    def reach(self, stage: str) -> None:
        self.seen[stage] = files(self.folder)
        if stage == self.until:
            raise PlacementError(f"no {stage}")

    @contextmanager
    def ray_session(self, config: Any) -> Iterator[None]:
        self.reach("cluster")
        yield

    @contextmanager
    def spawn(self, config: Any, recorder: Any) -> Iterator[None]:
        self.reach("actors")
        yield

    def Controller(self, *_: Any) -> Any:
        state = SimpleNamespace(step=0, learner=Learner({}), reference=unmoved(), close=lambda: None)
        state.load_state_dict = lambda saved: setattr(state, "step", saved["step"])
        return state

    def _task(self, config: Any) -> Any:
        return SimpleNamespace(prompts=lambda split: [])

    def reward_records(self, *_: Any) -> dict[str, Any]:
        self.reach("rewards")
        return {}

    def _Run(self, *_: Any, saved_step: int | None) -> Any:
        self.reach("loop")
        return SimpleNamespace(train=lambda stop: {"resumed": saved_step})


def files(folder: Path) -> list[str]:
    """Returns the records that hold something, and the checkpoints."""
    rows = [path.name for path in folder.glob("*.jsonl") if path.stat().st_size]
    return sorted([*rows, *(path.name for path in (folder / "checkpoints").glob("*"))])


def a_run(folder: Path, *, step: int | None) -> list[str]:
    """Leaves a run in the folder, with a checkpoint of its own and a copy of the user's."""
    with Tracker(folder, RunConfig(run_dir=str(folder))) as tracker:
        tracker.log(1, {"kl": 0.5})
    (folder / "checkpoints" / "step_000001_backup").mkdir(parents=True)
    if step is not None:
        settings = checkpoint.run_settings(RunConfig())
        with checkpoint.writing(
            folder / "checkpoints", step=step, state=saved_state(step), settings=settings
        ) as new:
            (new / "learner").mkdir()
    return files(folder)


def test_a_run_is_deleted_only_on_demand_and_once_the_actors_are_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = a_run(tmp_path, step=2)
    assert before == ["metrics.jsonl", "step_000001_backup", "step_000002"]
    config = RunConfig(run_dir=str(tmp_path))
    cluster = Cluster(tmp_path, "", monkeypatch)
    with pytest.raises(ConfigError) as refused:
        train(config)
    assert str(refused.value) == (
        f"run_dir: {tmp_path} holds a run (step_000002, metrics.jsonl): --resume goes on from its last "
        "checkpoint, --overwrite deletes it and begins anew. Or choose another run_dir"
    )
    assert not cluster.seen and files(tmp_path) == before
    for stage in ("cluster", "actors", "rewards"):
        with pytest.raises(PlacementError, match=stage):
            cluster = Cluster(tmp_path, stage, monkeypatch)
            train(config, overwrite=True)
        assert files(tmp_path) == before
    cluster = Cluster(tmp_path, "", monkeypatch)
    assert train(config, overwrite=True) == {"resumed": None}
    assert cluster.seen["rewards"] == before and cluster.seen["loop"] == ["step_000001_backup"]
    assert train(config) == {"resumed": None}  # what is left is no run


def test_what_is_resumed_has_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with `overwrite`, a run begins anew where there is none."""
    Cluster(tmp_path, "", monkeypatch)
    config = RunConfig(run_dir=str(tmp_path))
    with pytest.raises(CheckpointError, match=f"{tmp_path} holds no complete checkpoint that --resume could"):
        train(config, resume=True)
    before = a_run(tmp_path, step=None)
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        train(config, resume=True)
    assert files(tmp_path) == before
    assert train(config, resume=True, overwrite=True) == {"resumed": None}
    assert files(tmp_path) == ["step_000001_backup"]
    shutil.rmtree(tmp_path / "checkpoints")
    a_run(tmp_path, step=2)
    for overwrite in (False, True):
        assert train(config, resume=True, overwrite=overwrite) == {"resumed": 2}
        assert files(tmp_path) == ["metrics.jsonl", "step_000001_backup", "step_000002"]


def changed(folder: Path) -> list[tuple[object, ...]]:
    rows = [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]
    return [(row["step"], row["key"], row["before"], row["now"]) for row in rows]


def test_a_finished_run_is_extended_and_the_change_is_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Cluster(tmp_path, "", monkeypatch)
    a_run(tmp_path, step=100)
    longer = RunConfig(run_dir=str(tmp_path), train=TrainConfig(num_steps=200))
    assert train(longer, resume=True) == {"resumed": 100}
    assert changed(tmp_path) == [(100, "train.num_steps", 100, 200)]
    assert "after step 100: train.num_steps was 100, is 200" in caplog.text
    # Resumed from the same checkpoint once more, and differently.
    faster = replace(longer, learner=LearnerConfig(lr=1e-3))
    assert train(faster, resume=True, accept_changes=True) == {"resumed": 100}
    both = [(100, "learner.lr", 1e-6, 1e-3), (100, "train.num_steps", 100, 200)]
    assert changed(tmp_path) == both
    # A later checkpoint has the new settings; what was changed before stays written.
    settings = checkpoint.run_settings(faster)
    with checkpoint.writing(tmp_path / "checkpoints", step=150, state=saved_state(150), settings=settings):
        pass
    slower = replace(longer, learner=LearnerConfig(lr=1e-4))
    assert train(slower, resume=True, accept_changes=True) == {"resumed": 150}
    assert changed(tmp_path) == [*both, (150, "learner.lr", 1e-3, 1e-4)]
    assert train(slower, overwrite=True) == {"resumed": None}
    assert not changed(tmp_path)


def test_a_change_that_is_not_meant_is_refused_before_any_actor_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, "", monkeypatch)
    before, config = a_run(tmp_path, step=50), RunConfig(run_dir=str(tmp_path))
    for other, message in (
        (replace(config, learner=LearnerConfig(lr=1e-3)), "lr was 1e-06, is 0.001. With --accept-changes"),
        (replace(config, seed=1), "seed was 0, is 1. These never change"),
        (
            replace(config, train=TrainConfig(num_steps=49)),
            f"train.num_steps: got 49, must be at least 50, the step of {tmp_path}",
        ),
    ):
        for overwrite in (False, True):
            with pytest.raises(CheckpointError, match=re.escape(message)):
                train(other, resume=True, overwrite=overwrite)
    with pytest.raises(ConfigError, match="--accept-changes: goes with --resume alone"):
        train(config, accept_changes=True)
    assert not cluster.seen and files(tmp_path) == before
    assert train(replace(config, train=TrainConfig(num_steps=50)), resume=True) == {"resumed": 50}


def test_a_model_that_lies_there_is_not_trained_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(tmp_path, "", monkeypatch)
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"holds a run \(model\)"):
        train(RunConfig(run_dir=str(tmp_path)))


def made(**metrics: float) -> dict[str, float]:
    """Returns the metrics of a step that went well, but for these."""
    well = {
        "update_skipped": 0,
        "skipped_steps": 0,
        "optimizer_steps": 2,
        "reward_errors/even": 0,
        "reward/even": 0.5,
    }
    return well | metrics


FAILED = {"reward_errors/even": 8, "reward/even": float("nan")}


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([made(**FAILED), made(**FAILED)], RewardError, "rewards.even: all of its scores in 2 steps failed"),
        ([made(**FAILED), made(**FAILED | {"reward_errors/even": 7, "reward/even": 0.0})], None, ""),
        (
            [made(update_skipped=1), made(skipped_steps=2)],
            NoUpdateError,
            "none of 2 steps changed the policy: 1 had too few completions left to train on, 1 a loss",
        ),
        ([made(update_skipped=1)] * 2, NoUpdateError, "2 had too few"),
        (
            [{"update_skipped": 0, "skipped_steps": 0, "optimizer_steps": 2}, made()],
            None,
            "",
        ),  # the reward came later
        (
            [{"update_skipped": 0, "skipped_steps": 0, "optimizer_steps": 2}, made(**FAILED)],
            RewardError,
            "all of its scores in 1 steps failed",
        ),
        ([made(update_skipped=1), made(skipped_steps=1)], None, ""),  # one of two updates was made
        ([made(skipped_steps=2), made(skipped_steps=2)], None, ""),
        (
            [{"update_skipped": 0, "skipped_steps": 1}, made(skipped_steps=3)],
            None,
            "",
        ),  # of an earlier version
    ],
)
@pytest.mark.usefixtures("quiet")
def test_a_run_that_learnt_nothing_is_saved_and_does_not_finish(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[dict[str, float]],
    error: type[RLCoreError] | None,
    message: str,
) -> None:
    monkeypatch.setattr(_Run, "log_step", lambda self, *_: self.log(steps[self.controller.step - 1]))
    loop = Loop()
    rewards, learner = {"even": RewardConfig(target="a.b:C")}, LearnerConfig(updates_per_batch=2)
    config = RunConfig(train=TrainConfig(num_steps=2), rewards=rewards, learner=learner)
    task = SimpleNamespace(prompts=lambda split: [], evaluate=lambda *_: {"accuracy": 0.5})
    with Tracker(tmp_path, config) as tracker:
        started: Any = _Run(config, tmp_path, loop, task, tracker)  # type: ignore[arg-type]
        with pytest.raises(error, match=message) if error else nullcontext():
            started.train(StopFlag())
    assert loop.calls == ["evaluate 0", "save 2", "export 2", "evaluate 2"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["after"]["accuracy"] == 0.5


def test_the_bar_shows_rewards_and_kl_but_none_that_is_0_by_construction() -> None:
    metrics = {"reward/outcome": 0.0, "reward/claims": 0.0, "reward/claims/token_values": 0.1, "kl": 0.25}
    assert bar_values(metrics, ["outcome", "claims"]) == {"outcome": "0.000", "kl": "0.250"}
    both = metrics | {"reward/claims": 0.5}
    assert bar_values(both, ["outcome", "claims"]) == {"outcome": "0.000", "claims": "0.500", "kl": "0.250"}
    assert headline({"accuracy": 0.5, "tokens": 3.0}) == {"eval/accuracy": "0.500"} and headline({}) == {}
