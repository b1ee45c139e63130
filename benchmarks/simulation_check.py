"""Compares the simulator with the loop's own code.

The real pipeline, buffer and dispatcher run over engines, rewards and a learner that do nothing but take the
time that they are told to.

    python -m benchmarks.simulation_check [--quick] [--json FILE] [--gate]

There are four engines and 16 prompts of 4 samples per step, with long-tailed lengths and the same draws on
both sides. The figure is seconds per step after the steps that fill the pipeline. Goal: within 15 % in every
case.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.report import finish, parse_arguments
from benchmarks.simulator import Loop, simulate
from rlcore.actors.dispatch import Dispatcher
from rlcore.config import ModelConfig, RolloutConfig, RunConfig, TrainConfig
from rlcore.loop.rollouts import RolloutPipeline
from rlcore.loop.scored import ScoredGroup
from rlcore.loop.scoring import num_scorers
from rlcore.records.timeline import Clock, Recorder
from rlcore.types import FinishedJob, Prompt, RolloutJob

GOAL = 0.15
NUM_STEPS = 8
TOKEN_SECONDS = 0.01


def long_tailed(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.clip(np.round(rng.lognormal(np.log(60), 0.8, size=count)), 1, 400).astype(np.int64)


LOOP = Loop(
    num_engines=4,
    prompts_per_step=16,
    samples_per_prompt=4,
    prompt_length=0,
    max_num_seqs=64,
    lengths=long_tailed,
    step_seconds=lambda active, cached: TOKEN_SECONDS,
    prefill_seconds=lambda tokens: 0.0,
    score_seconds=0.4,
    update_seconds=0.6,
    sync_seconds=0.1,
)
CASES: dict[str, dict[str, Any]] = {
    "take turns": {},
    "take turns, few places": {"max_num_seqs": 8},
    "a quarter more prompts": {"oversample": 0.25},
    "one ahead": {"staleness": 1, "update_seconds": 1.2},
    "one ahead, few places": {"staleness": 1, "max_num_seqs": 8},
    "one ahead, slow update": {"staleness": 1, "update_seconds": 4.0},
    "three ahead, few places": {"staleness": 3, "max_num_seqs": 8},
}
QUICK = ("take turns", "one ahead")


@dataclass(slots=True)
class Wait:
    """Stands in for a call whose answer comes at a given time (`time.monotonic`)."""

    until: float

    def done(self) -> bool:
        return time.monotonic() >= self.until

    def when_done(self, callback: Callable[[], None]) -> None:
        timer = threading.Timer(max(0.0, self.until - time.monotonic()), callback)
        timer.daemon = True
        timer.start()

    def result(self, *, timeout_s: float) -> None:
        time.sleep(max(0.0, self.until - time.monotonic()))


class SleepingPool:
    """Stands in for `RolloutPool`, without actors. Jobs go to the engines that the real dispatcher chooses.

    A job's end is known from the start, because a decoding step takes the same time whatever its batch."""

    stale: Sequence[int] = ()

    def __init__(self, loop: Loop):
        self._loop, self._rng = loop, np.random.default_rng(0)
        self._dispatcher = Dispatcher(loop.num_engines)
        for rank in range(loop.num_engines):
            self._dispatcher.started(rank, 0)
        self._places = [[0.0] * loop.max_num_seqs for _ in range(loop.num_engines)]
        self._ends: dict[int, tuple[float, int]] = {}
        """Each job's end and engine."""
        self._woken = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    def submit(self, jobs: Sequence[RolloutJob]) -> None:
        now = time.monotonic()
        self._dispatcher.add(job.id for job in jobs)
        rank_of = {job: rank for rank, given in self._dispatcher.assign().items() for job in given}
        for job in jobs:
            places, ends = self._places[rank_of[job.id]], []
            for length in self._loop.lengths(self._rng, self._loop.samples_per_prompt):
                end = max(heapq.heappop(places), now) + float(length) * TOKEN_SECONDS
                heapq.heappush(places, end)
                ends.append(end)
            self._ends[job.id] = max(ends), rank_of[job.id]

    def poll(self, timeout_s: float) -> list[FinishedJob]:
        until = min([time.monotonic() + timeout_s, *(end for end, _ in self._ends.values())])
        self._woken.wait(max(0.0, until - time.monotonic()))
        self._woken.clear()
        now = time.monotonic()
        over = [job for job, (end, _) in self._ends.items() if end <= now]
        finished = [job for job in over if self._dispatcher.finish(self._ends.pop(job)[1], job)]
        return [FinishedJob(id=job, group=job, num_encoded=0) for job in finished]  # type: ignore[arg-type]

    def cancel(self, job_ids: Iterable[int]) -> None:
        job_ids = list(job_ids)
        self._dispatcher.cancel(job_ids)
        for job in job_ids:
            self._ends.pop(job, None)

    def pause(self, seconds: float) -> None:
        """Delays every unfinished job by this many seconds."""
        now = time.monotonic()
        self._ends = {job: (max(end, now) + seconds, rank) for job, (end, rank) in self._ends.items()}
        self._places = [sorted(max(end, now) + seconds for end in places) for places in self._places]

    def describe(self) -> str:
        return f"{len(self._ends)} jobs"


def measure(loop: Loop) -> float:
    """Returns the seconds per step of the real pipeline."""
    warm_up = 2 * (1 + loop.staleness)
    config = RunConfig(
        model=ModelConfig(path="none"),
        rollout=RolloutConfig(samples_per_prompt=loop.samples_per_prompt),
        train=TrainConfig(
            # Rounds are opened to the end, as in the middle of a run.
            num_steps=warm_up + NUM_STEPS + loop.staleness + 1,
            prompts_per_step=loop.prompts_per_step,
            staleness=loop.staleness,
            oversample=loop.oversample,
            groups_per_score=loop.groups_per_score,
        ),
    )
    scorer = threading.Lock()

    def score(groups: list[Any], step: int) -> list[ScoredGroup]:
        with scorer:
            time.sleep(loop.score_seconds * len(groups) / loop.prompts_per_step)
        return [ScoredGroup(group=group, scores={}, values={}, arrays=group) for group in groups]

    pool, recorder, marks = SleepingPool(loop), Recorder(), []
    scorers = ThreadPoolExecutor(num_scorers(config))
    pipeline = RolloutPipeline(
        config,
        [Prompt(id=str(i), text="") for i in range(64)],
        pool,
        score=lambda groups, step: scorers.submit(score, groups, step),
        counts=lambda group, step: True,
        restore=lambda step: None,
    )
    for step in range(warm_up + NUM_STEPS):
        pipeline.open(step)
        pipeline.take(step, Clock(recorder, step + 1))
        pipeline.wait(Wait(time.monotonic() + loop.update_seconds), timeout_s=60)
        pool.pause(loop.sync_seconds)
        time.sleep(loop.sync_seconds)
        marks.append(time.monotonic())
    pipeline.stop()
    scorers.shutdown()
    return (marks[-1] - marks[warm_up - 1]) / NUM_STEPS


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    rows = []
    for name, settings in CASES.items():
        if arguments.quick and name not in QUICK:
            continue
        loop = replace(LOOP, **settings)
        measured, simulated = measure(loop), simulate(loop, num_steps=NUM_STEPS).step_seconds
        row = {"case": name, "measured_s": measured, "simulated_s": simulated}
        rows.append(row | {"error": simulated / measured - 1})
    worst = max(rows, key=lambda row: abs(row["error"]))
    headline = {"worst_error": worst["error"], "in": worst["case"]}
    finish("simulation_check", rows, headline, {"within 15 %": abs(worst["error"]) <= GOAL}, arguments)


if __name__ == "__main__":
    main()
