"""Compares the next rollout during the update (`train.staleness: 1`) with taking turns (0), in steps per
minute.

    python -m benchmarks.staleness [--quick] [--json FILE] [--gate]

TIMELINE_PNG in the environment names a file for a picture of both timelines.

Both runs have one rollout core, one learner core, a rule as the reward, the same seeds, and a learning rate
so low that the answers stay as long as they are. `--quick` takes fewer steps. The share of an update in a
step is printed with the result: where rollout and update take equally long, running ahead gives at most 2.
Goal: 1.3, on two idle cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from benchmarks.report import finish, parse_arguments
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.records.timeline import read_spans
from rlcore.records.tracking import read_metrics
from rlcore.types import Completion, Group, Prompt, Score

GOAL = 1.3
WARM_UP = 2
"""Number of first steps that are not counted."""


class QuestionTask:
    """Serves text prompts: the audio tower has no part in this benchmark."""

    def prompts(self, split: str) -> Sequence[Prompt]:
        return [Prompt(id=f"{split}{i}", text=f"what is emotion {i}") for i in range(64)]

    def load_media(self, prompt: Prompt) -> dict[str, object]:
        return {}

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        rewards = [score.value for score in scores["even"]]
        return {"reward": sum(rewards) / len(rewards)}


def even_tokens(prompt: Prompt, completion: Completion) -> float:
    """Returns the share of tokens with an even id."""
    return sum(token % 2 == 0 for token in completion.token_ids) / len(completion.token_ids)


def measure(config: RunConfig, staleness: int, folder: Path) -> dict[str, float | int]:
    from rlcore.run import train

    run_dir = folder / f"staleness_{staleness}"
    summary = train(replace(config, run_dir=str(run_dir), train=replace(config.train, staleness=staleness)))
    rows = [row for row in read_metrics(run_dir) if "seconds/update" in row]
    counted = rows[WARM_UP:]
    seconds = (rows[-1]["time"] - rows[WARM_UP - 1]["time"]) / len(counted)
    means = {
        phase: sum(row.get(f"seconds/{phase}", 0.0) for row in counted) / len(counted)
        for phase in ("rollout", "score", "update", "weight_sync")
    }
    return {
        "staleness": staleness,
        "steps_per_min": 60 / seconds,
        **{f"{phase}_s": value for phase, value in means.items()},
        "reward_before": summary["before"]["reward"],
        "reward_after": summary["after"]["reward"],
    }


def draw_timelines(run_dirs: Mapping[str, Path], path: Path, num_steps: int = 3) -> None:
    """Draws some late steps of each run, one run under the other, with a row per actor and a colour per
    phase."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * len(run_dirs)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    colours: dict[str, str] = {}
    for axes, (title, run_dir) in zip(
        np.atleast_1d(figure.subplots(len(run_dirs))), run_dirs.items(), strict=True
    ):
        spans = read_spans(run_dir)
        # Towards the end there is nothing left to run ahead to.
        last = max(span.step or 0 for span in spans if span.actor == "controller") - 2
        steps = range(last - num_steps + 1, last + 1)
        shown = [span for span in spans if span.actor == "controller" and span.step in steps]
        first = min(span.start for span in shown)
        end = max(span.end for span in shown)
        actors = sorted({span.actor for span in spans}, reverse=True)
        for span in spans:
            if span.end < first or span.start > end:
                continue
            colour = colours.setdefault(span.phase, f"C{len(colours)}")
            start = max(span.start, first)
            width = min(span.end, end) - start
            axes.barh(actors.index(span.actor), width, left=start - first, color=colour)
        axes.set_yticks(range(len(actors)), actors)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("seconds")
    handles = [Patch(color=colour, label=phase) for phase, colour in colours.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside right upper")
    figure.savefig(path)


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rlcore.run import ray_session

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_tiny_model(folder / "model", ["what is the emotion of the speaker"] * 10, TinyModelConfig())
        config = RunConfig(
            model=ModelConfig(path=str(folder / "model")),
            task=TargetConfig(target="benchmarks.staleness:QuestionTask"),
            rollout=RolloutConfig(
                num_cpus=0.9, samples_per_prompt=8, max_tokens=96, engine={"max_model_len": 256}
            ),
            rewards={"even": RewardConfig(target="benchmarks.staleness:even_tokens", num_cpus=0.1)},
            algorithm=AlgorithmConfig(kl_coef=0.0),
            learner=LearnerConfig(num_cpus=0.9, lr=1e-5),
            train=TrainConfig(num_steps=12 if arguments.quick else 60, prompts_per_step=16),
            cluster=ClusterConfig(num_cpus=2),
        )
        start = time.perf_counter()
        with ray_session(config.cluster):
            rows = [measure(config, staleness, folder) for staleness in (0, 1)]
        seconds = time.perf_counter() - start
        if picture := os.environ.get("TIMELINE_PNG"):
            titles = {0: "staleness 0: they take turns", 1: "staleness 1: the next rollout goes on"}
            runs = {title: folder / f"staleness_{number}" for number, title in titles.items()}
            draw_timelines(runs, Path(picture))
    turns, ahead = rows
    ratio = ahead["steps_per_min"] / turns["steps_per_min"]
    update_share = turns["update_s"] / (turns["update_s"] + turns["rollout_s"])
    headline = {"speed_up": ratio, "update_share": update_share, "seconds": seconds}
    finish("staleness", rows, headline, {f"staleness 1 gives at least {GOAL} of 0": ratio >= GOAL}, arguments)


if __name__ == "__main__":
    main()
