"""The composition root: from a configuration to a finished run.

`train` reserves the cluster's resources, spawns the actors, and lets the controller loop; what happens
between steps (tracking, evaluation, checkpoints, a signal's clean end) is here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlcore.actors.crew import Actors
from rlcore.actors.group import last_line
from rlcore.actors.ray_metrics import RayMetrics
from rlcore.actors.session import local_processes
from rlcore.actors.session import ray_session as ray_session
from rlcore.actors.spawn import spawn as spawn
from rlcore.config import RunConfig
from rlcore.config.precisions import precisions
from rlcore.config.targets import build_target
from rlcore.errors import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    RewardError,
    StoppedError,
)
from rlcore.loop.controller import Controller, StepResult
from rlcore.loop.failure_policy import outliving_learners
from rlcore.loop.metrics import TruncationAlarm, bar_values, check_learnt, headline
from rlcore.loop.mixing import closed_for_good, make_schedule
from rlcore.loop.resuming import changes_since, check_changes, go_on
from rlcore.records import checkpoint
from rlcore.records.alarms import drop_earlier_alarms, kept_alarms
from rlcore.records.files import make_closed, write_text
from rlcore.records.model_card import model_card
from rlcore.records.plots import plot_run
from rlcore.records.progress import Progress, tell
from rlcore.records.run_folder import check_folder, resumable
from rlcore.records.run_lock import run_lock
from rlcore.records.signals import StopFlag
from rlcore.records.timeline import SPANS, Recorder, keep_spans
from rlcore.records.tracking import Tracker, keep_earlier, read_metrics
from rlcore.records.versions import versions
from rlcore.records.witness import witnessed
from rlcore.rewards.loading import check_rewards
from rlcore.rewards.reading import check_reading
from rlcore.task import Task
from rlcore.types import Prompt

log = logging.getLogger(__name__)


def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, accept_changes: bool = False
) -> dict[str, Any]:
    """Trains the policy and returns the summary: held-out metrics `before` and `after`, paths, seconds.

    The final policy lies in `run_dir/model` as a Hugging Face folder. SIGINT, SIGTERM and SIGHUP end the run
    cleanly after the step at hand.

    Args:
        resume: goes on from the last checkpoint, of a finished run too where there are more steps now.
        overwrite: begins anew where `run_dir` holds a run, which is deleted once all actors are up. Together
            with `resume` that happens only where there is no checkpoint, as schedulers that retry need it.
        accept_changes: lets `resume` go on with settings of which the run's results depend
            (`rlcore.config.resuming`).

    Raises:
        ConfigError: another process is in `run_dir`, the folder holds a run and neither `resume` nor
            `overwrite` is given, or no reward by rule could read a perfect answer (`check_reading`).
        ClusterError: a process of the run's own Ray died; a checkpoint is written first, where that can still
            be done.
        CheckpointError: there is no checkpoint to resume from, the checkpoint is another run's, or the model
            cannot be written.
        RewardError: a score failed whose `on_error` is `abort` (a checkpoint is written first), or all scores
            of a reward failed.
        NoUpdateError: every update was skipped.
    """
    run_dir = make_closed(config.run_dir)
    with run_lock(run_dir), resumable(run_dir), kept_alarms(run_dir):
        tell("reading prompts and trying the rewards")
        task, prompts = check(config, resume=resume, overwrite=overwrite, accept_changes=accept_changes)
        recorder = Recorder(run_dir / SPANS)
        with (
            witnessed(run_dir) as witness,
            recorder.running(),
            ray_session(config.cluster),
            StopFlag() as stop,
            witness.watch(local_processes(), stop),
            spawn(config, recorder=recorder) as actors,
            closing(Controller(config, prompts, actors, recorder)) as controller,
        ):
            start = _resume(config, run_dir, controller, accept_changes) if resume else None
            changes = [] if start is None else changes_since(config, run_dir / "checkpoints", start)
            rewards = reward_records(config, actors)
            if start is None:
                checkpoint.clear(run_dir / "checkpoints")
                drop_earlier_alarms(run_dir)
            keep_spans(run_dir, last_step=controller.step)
            with Tracker(run_dir, config, resume_step=start) as tracker:
                tracker.log_changes(controller.step, changes)
                tracker.update_summary({"rewards": rewards, "precision": precisions(config)})
                for role, said in precisions(config).items():
                    tell(f"{role}: {said}")
                run = _Run(config, run_dir, controller, task, tracker, saved_step=start)
                try:
                    return run.train(stop)
                finally:
                    witness.rest()


def check(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, accept_changes: bool = False
) -> tuple[Task, Sequence[Prompt]]:
    """Looks for what would end a run before any actor has started; starts and writes nothing. Returns the
    task and the prompts to train on. Arguments and errors are those of `train`."""
    if accept_changes and not resume:
        raise ConfigError(
            "--accept-changes: goes with --resume alone; a run that begins has nothing to change"
        )
    run_dir = Path(config.run_dir).resolve()
    check_folder(run_dir, resume=resume, overwrite=overwrite)
    if resume:
        check_changes(config, run_dir / "checkpoints", accept_changes)
    check_rewards(config.rewards)
    make_schedule(config)
    if reason := closed_for_good(config):
        log.warning(reason)
    task = _task(config)
    prompts = task.prompts("train")
    check_reading(config, task, prompts)
    return task, prompts


def evaluate(config: RunConfig) -> dict[str, float]:
    """Returns the metrics of greedy answers to the held-out prompts by the policy at `model.path`. Records go
    to `run_dir/eval`; those of an earlier evaluation there are kept as `run_dir/eval.1`, `eval.2`, ...

    Raises StoppedError on SIGINT, SIGTERM or SIGHUP, ClusterError as `train`.
    """
    run_dir = make_closed(config.run_dir) / "eval"
    run_dir.mkdir(exist_ok=True)
    check_rewards(config.rewards)
    task = _task(config)
    prompts = task.prompts("eval")
    check_reading(config, task, prompts)
    untrained = replace(config, train=replace(config.train, prompts_per_step=1))  # no matter how many prompts
    with (
        run_lock(run_dir),
        kept_alarms(run_dir),
        witnessed("The same command evaluates anew") as witness,
        ray_session(config.cluster),
        StopFlag() as stop,
        witness.watch(local_processes(), stop),
        spawn(config, with_learner=False) as actors,
        closing(Controller(untrained, prompts, actors)) as controller,
    ):
        keep_earlier(run_dir)
        with Tracker(run_dir, config) as tracker:
            metrics = _Run(config, run_dir, controller, task, tracker).evaluate(stop)
        if metrics is None:
            raise StoppedError(f"the evaluation was stopped by {stop.reason}")
        return metrics


def _resume(config: RunConfig, run_dir: Path, controller: Controller, accept_changes: bool) -> int | None:
    """As `go_on`; a learner that is lost meanwhile is started anew."""

    def begin(is_lost: bool) -> int | None:
        if is_lost:
            controller.restart_learner()
        return go_on(config, run_dir / "checkpoints", controller, accept_changes)

    return outliving_learners(begin, config, controller)


def _task(config: RunConfig) -> Task:
    task: Task = build_target(config.task.target, config.task.args, where="task")
    return task


def reward_records(config: RunConfig, actors: Actors) -> dict[str, Any]:
    """Returns which rewards these are: each one's package, version, file hash and arguments."""
    timeout_s = config.cluster.startup_timeout_s
    return {name: pool.ready(0).result(timeout_s=timeout_s) for name, pool in actors.rewards.items()}


class _Run:
    """What happens around the controller's steps. `saved_step` is that of the checkpoint that it goes on
    from."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        controller: Controller,
        task: Task,
        tracker: Tracker,
        *,
        saved_step: int | None = None,
    ):
        self.config, self.run_dir, self.saved_step = config, run_dir, saved_step
        self.controller, self.task, self.tracker = controller, task, tracker
        self.recorder, self.ray_metrics = controller.recorder, RayMetrics(run_dir.name)
        self.truncation = TruncationAlarm(config.rollout.max_tokens)
        self.eval_prompts = task.prompts("eval")[: config.train.max_eval_prompts]
        self.headline: dict[str, str] = {}

    def train(self, stop: StopFlag) -> dict[str, Any]:
        """Runs to the end, from the last checkpoint once more where the learner was lost on the way."""
        began, first = time.perf_counter(), self.controller.state_dict()

        def begin(is_lost: bool) -> dict[str, Any]:
            if is_lost:
                with self.recorder.phase("restart"):
                    self.step_back(first)
            return self.run_to_end(stop, began)

        return outliving_learners(begin, self.config, self.controller)

    def step_back(self, first: Mapping[str, Any]) -> None:
        """Brings a new learner, the controller and the records to the last checkpoint, or to the start of the
        run, where the controller's state was `first`."""
        controller, began = self.controller, time.perf_counter()
        controller.restart_learner()
        # Changes that this run began with were accepted then.
        folder = self.run_dir / "checkpoints"
        self.saved_step = go_on(self.config, folder, controller, accept_changes=True)
        if self.saved_step is None:
            controller.load_state_dict(first)
            controller.reference.restore(None)
        self.tracker.rewind(controller.step)
        seconds = time.perf_counter() - began
        log.warning("a new learner goes on after step %d, %.0f s later", controller.step, seconds)

    def run_to_end(self, stop: StopFlag, began: float) -> dict[str, Any]:
        """Trains from the controller's step on, and writes what a run leaves behind. `began` is when the run
        did, of `time.perf_counter`."""
        train, controller = self.config.train, self.controller
        summary: dict[str, Any] = {"seed": self.config.seed, "versions": versions()}
        if controller.step == 0 and (before := self.evaluate(stop)):
            summary["before"] = before
            self.tracker.update_summary(summary)
        # Engines start from model.path as version 0, and have weights of a learner that was lost.
        with self.recorder.phase("weight_sync"):
            controller.push_weights()
        good = controller.state_dict()
        tell(f"training from step {controller.step} to {train.num_steps}")
        steps = {"total": train.num_steps, "initial": controller.step, "unit": "step"}
        with Progress(desc="step", line_every_s=0, **steps) as bar:

            def after_step(result: StepResult) -> None:
                nonlocal good
                good = controller.state_dict()
                self.log_step(result, bar)
                self.save_if_due()
                self.evaluate_if_due(stop)

            self.evaluate_if_due(stop)  # a run that was stopped after this step has left it out
            try:
                controller.train(train.num_steps, after_step=after_step, should_stop=lambda: bool(stop))
            except (NonFiniteError, RewardError):
                # The learner is that of the last good step; the failed one has taken its round already.
                self.save(good)
                raise
        self.save()
        self.export()
        summary |= {"steps": controller.step, "stopped_by": stop.reason, "model": str(self.run_dir / "model")}
        if after := self.evaluate(stop):
            summary["after"] = after
        rows = read_metrics(self.run_dir)
        differences = [row["logprob_max_diff"] for row in rows if row.get("logprob_max_diff") is not None]
        summary["logprob_max_diff"] = max(differences, default=None)
        shares = [row["completion/truncated"] for row in rows if row.get("completion/truncated") is not None]
        summary["completion_truncated"] = sum(shares) / len(shares) if shares else None
        summary["seconds"] = round(time.perf_counter() - began, 1)
        plot_run(self.run_dir)
        merged = self.tracker.update_summary(summary)
        with suppress(OSError):  # a full disk: the model itself is written
            write_text(self.run_dir / "model" / "README.md", model_card(self.config, merged))
        if not stop:
            check_learnt(rows, self.config.rewards, self.run_dir)
        return merged

    def export(self) -> None:
        """Writes the policy to `run_dir/model`, which comes after the checkpoint: a failure costs no step."""
        try:
            folder, timeout_s = str(self.run_dir / "model"), self.config.learner.timeout_s
            tell("writing the model")
            with self.recorder.phase("export", self.controller.step):
                self.controller.learner.call("export", folder, timeout_s=timeout_s)
        except CheckpointError as error:
            raise CheckpointError(
                f"{last_line(error)}. The checkpoint of step {self.controller.step} is whole: once the "
                "reason is gone, --resume writes the model"
            ) from error

    def log_step(self, result: StepResult, bar: Any) -> None:
        metrics, step = result.metrics, self.controller.step
        self.log(metrics)
        self.truncation.note(metrics["completion/truncated"], "training")
        self.tracker.log_samples(
            step, result.groups, result.scores, rewards=result.rewards, advantages=result.advantages.samples
        )
        bar.set_postfix(bar_values(metrics, self.config.rewards) | self.headline, refresh=False)
        bar.update(1)

    def evaluate_if_due(self, stop: StopFlag) -> None:
        """The evaluation of a step between the first and the last."""
        train, step = self.config.train, self.controller.step
        is_due = train.eval_every and step % train.eval_every == 0
        if is_due and 0 < step < train.num_steps:
            self.evaluate(stop)

    def evaluate(self, stop: StopFlag) -> dict[str, float] | None:
        """Greedy answers to the held-out prompts: metrics of the task, tokens and latency. Those of this
        step's evaluation, where the run that is resumed has made it.

        One who is asked to stop gives it up (None) and leaves it to the resumed run: there may be no time."""
        step = self.controller.step
        if stop:
            return None
        if found := self.tracker.evaluation(step):
            self.headline = headline(found)
            return found
        tell(f"evaluating {len(self.eval_prompts)} held-out prompts at step {step}")
        began = time.perf_counter()
        with self.recorder.phase("evaluate", step):
            groups = self.controller.generate(self.eval_prompts, greedy=True, should_stop=lambda: bool(stop))
            if groups is None:
                return None
            seconds = time.perf_counter() - began
            scores = self.controller.score(groups)
        flat = {name: [group[0] for group in per_group] for name, per_group in scores.items()}
        metrics = self.task.evaluate(groups, flat)
        self.headline = headline(metrics)
        # Their answers are neither right nor wrong: the other metrics are of fewer prompts.
        metrics["truncated"] = sum(g.completions[0].finish_reason == "length" for g in groups) / len(groups)
        self.truncation.note(metrics["truncated"], "evaluation")
        metrics["unanswered_prompts"] = float(len(self.eval_prompts) - len(groups))
        num_replicas = max(1, self.controller.num_replicas)  # none where the only one has just been lost
        metrics["latency_ms"] = 1000 * seconds * num_replicas / len(groups)
        self.tracker.log_samples(step, groups, scores, split="eval")
        # Last: an evaluation whose metrics are there is whole.
        self.log({f"eval/{name}": value for name, value in metrics.items()})
        return metrics

    def log(self, metrics: Mapping[str, float]) -> None:
        """To the run's folder, and to Ray's metrics endpoint."""
        self.tracker.log(self.controller.step, metrics)
        self.ray_metrics.log(self.controller.step, metrics)

    def save_if_due(self) -> None:
        """The checkpoint of a step between the first and the last."""
        train, step = self.config.train, self.controller.step
        if train.checkpoint_every and step % train.checkpoint_every == 0:
            self.save()
        elif train.rolling_every and step % train.rolling_every == 0 and step < train.num_steps:
            self.save(is_rolling=True)

    def save(self, state: Mapping[str, Any] | None = None, *, is_rolling: bool = False) -> None:
        """A checkpoint of learner and controller, unless this step has one; `state` is an earlier one of the
        controller's."""
        controller = self.controller
        if self.saved_step == controller.step:
            return
        with (
            self.recorder.phase("save", controller.step),
            checkpoint.writing(
                self.run_dir / "checkpoints",
                step=controller.step,
                state=controller.state_dict() if state is None else state,
                settings=checkpoint.run_settings(self.config),
                versions=versions(),
                is_rolling=is_rolling,
            ) as folder,
        ):
            controller.learner.call("save", str(folder / "learner"), timeout_s=self.config.learner.timeout_s)
            controller.reference.save(folder)
        self.saved_step = controller.step
