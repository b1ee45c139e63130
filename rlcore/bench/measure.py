"""Times some steps of the real loop: the run's own actors and controller, without evaluation, checkpoints
and tracking."""

from __future__ import annotations

import itertools
import statistics
from contextlib import closing
from dataclasses import dataclass, replace
from time import perf_counter, time

from rlcore.config import RunConfig
from rlcore.config.targets import build_target
from rlcore.records.timeline import Recorder, Span, busy_seconds, within

WARM_UP = 2
"""Steps that are not counted: kernels and caches are warm, and rounds that run ahead are under way."""
LAST = 1
"""Steps after the counted ones: what an engine did is told with its next report, perhaps in the next step."""
_WORKERS = ("rollout[", "learner")
_WORK = {"generate": "rollout", "update": "update", "push_weights": "weight_sync"}
PHASES = ("rollout", "score", "update", "weight_sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measurements of the counted steps of a run, in seconds, tokens and memory."""

    step_seconds: tuple[float, ...]
    phases: dict[str, float]
    """Median seconds that the controller waited in each of `PHASES`. With staleness the rest of a rollout
    goes on beside the update."""
    lengths: tuple[tuple[int, ...], ...]
    """Completion lengths of each counted step, in tokens."""
    prompt_tokens: int
    """Tokens of the longest prompt, with its audio."""
    peak_mb: dict[str, float]
    """Highest resident memory (MB) of a process, by role."""
    spans: tuple[Span, ...]
    """Spans of the counted steps, cut at the first step's start and the last one's end, by start."""

    @property
    def samples_per_second(self) -> float:
        """Completions per second."""
        return sum(map(len, self.lengths)) / sum(self.step_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second."""
        return sum(map(sum, self.lengths)) / sum(self.step_seconds)

    @property
    def busy_seconds(self) -> dict[str, float]:
        """Seconds per step, by phase, of the engine or rank that had most to do in it."""
        seconds: dict[str, float] = {}
        for actor, phases in busy_seconds(self.spans).items():
            for phase, name in _WORK.items():
                if actor.startswith(_WORKERS) and phase in phases:
                    seconds[name] = max(seconds.get(name, 0.0), phases[phase] / len(self.lengths))
        return seconds


def measure(config: RunConfig, *, num_steps: int) -> Measured:
    """Trains `WARM_UP`, `num_steps` and `LAST` steps in the open Ray session, and counts those in the middle.

    The updates are real. Raises as `rlcore.actors.spawn.spawn` and `Controller.train`.
    """
    from rlcore.actors.spawn import spawn
    from rlcore.loop.controller import Controller, StepResult

    total = WARM_UP + num_steps + LAST
    # Rounds are opened to the end, as in the middle of a run.
    train = replace(config.train, num_steps=total + config.train.staleness)
    config = replace(config, train=train)
    prompts = build_target(config.task.target, config.task.args, where="task").prompts("train")
    recorder = Recorder()
    with (
        spawn(config, recorder=recorder) as actors,
        closing(Controller(config, prompts, actors, recorder)) as controller,
    ):
        controller.push_weights()
        marks, rows, lengths = [perf_counter()], list[dict[str, float]](), list[tuple[int, ...]]()
        prompt_tokens: list[int] = []
        ends: list[float] = []

        def after_step(result: StepResult) -> None:
            ends.append(time())
            marks.append(perf_counter())
            rows.append(result.metrics)
            completions = [completion for group in result.groups for completion in group.completions]
            lengths.append(tuple(len(completion.token_ids) for completion in completions))
            prompt_tokens.append(len(result.groups[0].prompt_token_ids))

        controller.train(total, after_step=after_step, should_stop=lambda: False)
        peak_mb = process_memory()
    counted = slice(WARM_UP, WARM_UP + num_steps)
    steps = [end - start for start, end in itertools.pairwise(marks)]
    spans = within(recorder.take(), ends[WARM_UP - 1], ends[WARM_UP - 1 + num_steps])
    return Measured(
        step_seconds=tuple(steps[counted]),
        phases={
            phase: statistics.median(row.get(f"seconds/{phase}", 0.0) for row in rows[counted])
            for phase in PHASES
        },
        lengths=tuple(lengths[counted]),
        prompt_tokens=max(prompt_tokens),
        peak_mb=peak_mb,
        spans=tuple(spans),
    )


def process_memory() -> dict[str, float]:
    """Returns the peak resident MB of this process (`controller`) and of Ray's workers below it.

    Workers are named by their class of actor; of several of one class the highest counts.
    """
    import psutil

    peaks = {"controller": _peak_mb("self")}
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0] if process.cmdline() else ""
            if title.startswith("ray::") and not title.startswith("ray::IDLE"):
                name = title.removeprefix("ray::").split(".")[0].split(":")[0].strip()
                peaks[name] = max(peaks.get(name, 0.0), _peak_mb(str(process.pid)))
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue  # it ended meanwhile
    return peaks


def _peak_mb(pid: str) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
