"""The whole line, from recordings to a model that explains emotions better than before.

    corpus -> annotate -> base model -> (alignment) -> prosody SFT -> (cold start) -> reward model
        -> GRPO-PTR -> report;  beside it: classifiers, perception test, full-label SFT

Every stage writes a folder of its own below `run_dir` and is not run again once it is finished there with the
same settings and the same files, so that an interrupted run goes on where it stopped. With more steps, a
finished GRPO-PTR goes on from its last one. This module knows the order of the stages and what each takes
from those before it; the work itself is in `recordings`, `teaching`, `reinforcement` and `comparisons`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from emotion_task.config import PipelineConfig
from emotion_task.pipeline import comparisons, recordings, teaching
from emotion_task.pipeline.early_checks import check_annotated, check_config
from emotion_task.pipeline.estimate import describe, estimate, minutes
from emotion_task.pipeline.inputs import stage_inputs
from emotion_task.pipeline.reinforcement import reinforce
from emotion_task.pipeline.results import (
    Aligned,
    Annotated,
    Listed,
    Metrics,
    Model,
    Perceived,
    References,
    Reinforced,
    Result,
)
from emotion_task.pipeline.settings import extendable, stage_settings
from emotion_task.pipeline.stages import R, Say, Stage, Stages
from emotion_task.pipeline.summary import FinalReport, write_summary
from emotion_task.pipeline.workspace import Workspace
from rlcore.config import save_config
from rlcore.records.files import make_closed

log = logging.getLogger(__name__)


class Pipeline:
    """A pipeline is one run of the line.

    Args:
        say: takes what the person who waits is told: the estimate, and each stage that begins.
    """

    def __init__(self, config: PipelineConfig, say: Say = log.info):
        self.config = config
        self.run_dir = Path(config.run_dir).resolve()
        self.stages = Stages(self.run_dir, say)
        self.work = Workspace(config, self.run_dir, say)

    def line(self) -> tuple[Stage[Result], ...]:
        """Returns the stages in their order, each with the models that it takes from earlier ones."""
        settings, work, model = stage_settings(self.config), self.work, self.model
        inputs = stage_inputs(self.config, self.run_dir, work.listed)

        def stage(
            name: str,
            kind: type[R],
            do: Callable[[bool], R],
            *,
            is_beside: bool = False,
            lasting: object = None,
        ) -> Stage[R]:
            return Stage(name, kind, settings[name], do, is_beside, inputs.get(name, dict), lasting)

        return (
            stage("corpus", Listed, lambda _: recordings.corpus(work)),
            stage("annotate", Annotated, lambda _: recordings.annotate(work)),
            stage("reference", References, lambda _: comparisons.classifiers(work), is_beside=True),
            stage("base_model", Model, lambda _: teaching.base_model(work)),
            stage("alignment", Aligned, lambda go_on: teaching.align(work, model("base_model"), go_on)),
            stage("sft", Model, lambda go_on: teaching.sft(work, model("alignment"), go_on)),
            stage("cold_start", Model, lambda go_on: teaching.cold_start(work, model("sft"), go_on)),
            stage(
                "perception",
                Perceived,
                lambda _: comparisons.perception(work, model("base_model"), model("cold_start")),
                is_beside=True,
            ),
            stage(
                "reward_model", Model, lambda go_on: teaching.reward_model(work, model("cold_start"), go_on)
            ),
            stage(
                "rl",
                Reinforced,
                lambda go_on: reinforce(work, go_on),
                lasting=extendable(self.config.rl),
            ),
            stage(
                "full_label_sft",
                Metrics,
                lambda go_on: comparisons.full_label_sft(work, model("cold_start"), go_on),
            ),
        )

    def model(self, stage: str) -> str:
        """Returns the checkpoint that a stage of this run has made."""
        return self.stages.result(stage, Model).model

    def check(self) -> None:
        """Finds mistakes of later stages before the first is run. Raises as `check_config`."""
        check_config(self.config)

    def prospect(self, until: str | None = None) -> str:
        """Checks as `run` does before its first stage, starts and writes nothing, and returns what `run`
        would do: a line a stage, and its seconds where it is finished. Raises as `check`."""
        self.check()
        stages = self.line()
        finished = self.stages.finished(stages)
        names = [stage.name for stage in stages]
        lines = [f"{self.run_dir}: nothing speaks against it; nothing was started"]
        for name in names[: names.index(until) + 1] if until else names:
            state = f"finished, took {minutes(finished[name])}" if name in finished else "to do"
            lines.append(f"  {name:<16}{state}")
        return "\n".join(lines)

    def run(self, until: str | None = None) -> Result:
        """Runs the stages, up to and with `until` (all by default), and returns the last one's result.

        Raises:
            ConfigError, DataError: a mistake in the configuration, found before the first stage.
            StoppedError: a signal; the same configuration goes on from there.
        """
        from emotion_task.sft.projector import check_base_model
        from rlcore.actors.session import ray_session

        config = self.config
        self.check()
        make_closed(self.run_dir)
        save_config(config, self.run_dir / "config.yaml")
        stages = self.line()
        finished = self.stages.finished(stages)
        if config.base_model is not None and "sft" not in finished:
            check_base_model(config.base_model, fits=config.alignment.fit)
        if (planned := estimate(config)) is not None:
            self.stages.expected = planned.seconds()
            self.work.say(describe(planned, finished))
        with ray_session(config.rl.cluster):
            for stage in stages:
                result = self.stages.run(stage)
                if stage.name == "annotate":
                    check_annotated(self.work)
                if stage.name == until:
                    break
        return result

    def finish(self) -> FinalReport:
        """Runs all stages, writes `summary.json` and `report.md`, and returns them. Raises as `run`."""
        self.run()
        return write_summary(self.work, self.stages)
