"""Measures what orchestration costs per step, from 8 to 512 engines: the controller and all that it drives.

    python -m benchmarks.scale [--quick] [--json FILE] [--gate] [--plot FILE]

Real are Controller, RolloutPipeline, GroupBuffer, RolloutPool, Dispatcher, RewardPool with its two actors,
and the learner's ActorGroup. Every call of an engine is a Ray call of its own, and groups (8 completions of
128 tokens, with their log-probabilities) and batches travel as in a run. Simulated is the work of engines and
learner, which only take the time that they are told to. One machine cannot hold a process for each engine:
engines live in two host actors, as coroutines that sleep (`EngineHosts`). Their start, and a cluster's
network, are not measured.

A synchronous step takes 10 s (rollout 7.0, update 2.5, weights 0.5), with two prompts per engine and lengths
spread over 0.3 to 1 of the longest. The longest prompt is the last to be handed out, so that the time of
handing out counts whole at every size. Orchestration is what a step takes beyond those 10 s, the median of
the steps after the first. Hosts and controller share the machine, which counts against orchestration. Goals:
at most 5 % of the step at 256 engines, and from 64 to 512 engines no more than eight times as much.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row, argument_parser, finish
from rlcore.actors.crew import Actors
from rlcore.actors.group import ActorGroup, PendingCall
from rlcore.actors.reward_pool import open_pool
from rlcore.actors.rollout_pool import RolloutPool
from rlcore.actors.rollout_worker import RolloutReport
from rlcore.actors.session import ray_session
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
    WeightSyncConfig,
)
from rlcore.loop.controller import Controller
from rlcore.types import Completion, FinishedJob, Group, Prompt, RolloutJob, TrainBatch
from rlcore.weight_sync.base import Push

SIZES = (8, 16, 32, 64, 128, 256, 512)
QUICK_SIZES = (8, 32)
NUM_STEPS, QUICK_STEPS = 4, 3
ROLLOUT_S, UPDATE_S, SYNC_S = 7.0, 2.5, 0.5
STEP_S = ROLLOUT_S + UPDATE_S + SYNC_S
PROMPTS_PER_ENGINE, SAMPLES, TOKENS = 2, 8, 128
NUM_HOSTS = 2
SHARE_GOAL, SHARE_AT = 0.05, 256
GROWTH_FROM, GROWTH_TO = 64, 512


class SimulatedEngine:
    """Stands in for `RolloutWorker`, as coroutines. All prompts are answered at once; each takes its own
    time."""

    def __init__(self, prompts_per_step: int, answers: Sequence[tuple[Completion, ...]]):
        self._prompts_per_step, self._answers = prompts_per_step, answers
        self._version = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._finished: list[FinishedJob] = []
        self._news = asyncio.Event()

    async def ready(self) -> int:
        return self._version

    async def submit(self, jobs: Sequence[RolloutJob], version: int) -> None:
        assert version == self._version, (version, self._version)
        loop = asyncio.get_running_loop()
        for job in jobs:
            self._timers[job.id] = loop.call_later(self._seconds(job.id), self._finish, job)

    def _seconds(self, job_id: int) -> float:
        if (job_id + 1) % self._prompts_per_step == 0:
            return ROLLOUT_S  # the last of its step
        return ROLLOUT_S * float(np.random.default_rng(job_id).uniform(0.3, 1.0))

    def _finish(self, job: RolloutJob) -> None:
        del self._timers[job.id]
        group = Group(
            prompt=job.prompt,
            prompt_token_ids=tuple(range(200)),
            completions=tuple(
                Completion(
                    token_ids=answer.token_ids,
                    logprobs=answer.logprobs,
                    text=answer.text,
                    finish_reason="stop",
                    policy_version=self._version,
                )
                for answer in self._answers[job.id % len(self._answers)]
            ),
        )
        self._finished.append(FinishedJob(id=job.id, group=group, num_encoded=0))
        self._news.set()

    async def collect(self, timeout_s: float) -> RolloutReport:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        finished, self._finished = tuple(self._finished), []
        return RolloutReport(
            finished=finished,
            policy_version=self._version,
            num_unfinished=len(self._timers),
            stalled_s=0.0,
            spans=(),
        )

    async def cancel(self, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            self._timers.pop(job_id).cancel()

    async def update_weights(self, push: Push) -> int:
        await asyncio.sleep(SYNC_S)
        self._version = push.version
        return self._version


class EngineHost:
    """Hosts many engines in one process."""

    def __init__(self, ranks: Sequence[int], prompts_per_step: int):
        rng = np.random.default_rng(0)
        answers = [tuple(make_completion(rng) for _ in range(SAMPLES)) for _ in range(64)]
        self._engines = {rank: SimulatedEngine(prompts_per_step, answers) for rank in ranks}

    async def call(self, rank: int, method: str, *args: object) -> object:
        return await getattr(self._engines[rank], method)(*args)


def make_completion(rng: np.random.Generator) -> Completion:
    tokens = rng.integers(0, 150_000, TOKENS).tolist()
    return Completion(
        token_ids=tuple(tokens),
        logprobs=tuple((-rng.random(TOKENS)).tolist()),
        text=" ".join(map(str, tokens)),
        finish_reason="stop",
        policy_version=0,
    )


class EngineHosts(ActorGroup):
    """Looks like a group with one actor per engine: a call of one rank is one Ray call, to that engine's
    host."""

    def __init__(self, num_engines: int):
        ranks = [list(range(host, num_engines, NUM_HOSTS)) for host in range(NUM_HOSTS)]
        prompts = num_engines * PROMPTS_PER_ENGINE
        arguments = [{"ranks": own, "prompts_per_step": prompts} for own in ranks]
        options = {"max_concurrency": 8 * num_engines}
        super().__init__("rollout", EngineHost, arguments, num_cpus=0.1, options=options)
        self.size = num_engines

    def call_one_async(self, rank: int, method: str, *args: object, **kwargs: object) -> PendingCall:
        answer = self._actors[rank % NUM_HOSTS].call.remote(rank, method, *args, **kwargs).future()
        return PendingCall(self.name, method, [answer], [rank], lambda results: results[0])


class SimulatedLearner:
    """Stands in for `LearnerWorker`; its work is to sleep."""

    def update(self, batch: TrainBatch) -> dict[str, float]:
        time.sleep(UPDATE_S)
        return {"current_fraction": 0.0, "logprob_max_diff": 0.0, "loss": float(batch.num_tokens)}

    def announce_push(self, version: int, engines: Sequence[int], workers_per_engine: int) -> Push:
        return Push(
            backend="none",
            version=version,
            id=version,
            engines=tuple(engines),
            workers_per_engine=workers_per_engine,
            host="",
            port=0,
            token="",
            timeout_s=60.0,
        )

    def push_weights(self, push: Push) -> None:
        time.sleep(SYNC_S)


def run_config(num_engines: int, num_steps: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(path="none"),
        task=TargetConfig(target="none:None"),
        rollout=RolloutConfig(num_replicas=num_engines, samples_per_prompt=SAMPLES, max_tokens=TOKENS),
        rewards={"even": RewardConfig(target="rlcore.bench.workloads:even_tokens", replicas=2, num_cpus=0.1)},
        algorithm=AlgorithmConfig(kl_coef=0.0),
        weight_sync=WeightSyncConfig(verify_first_push=False),  # there are no weights
        train=TrainConfig(num_steps=num_steps, prompts_per_step=num_engines * PROMPTS_PER_ENGINE),
    )


def measure(num_engines: int, num_steps: int) -> Row:
    """Measures one size: seconds per step, the share of orchestration, and the controller's CPU time."""
    config = run_config(num_engines, num_steps + 1)
    prompts = [Prompt(id=str(i), text="what is the emotion? " * 20) for i in range(4096)]
    with ExitStack() as stack:
        engines = EngineHosts(num_engines)
        stack.callback(engines.shutdown)
        learner = ActorGroup("learner", SimulatedLearner, [{}], num_cpus=0.1)
        stack.callback(learner.shutdown)
        waits = {"placement_timeout_s": 60, "startup_timeout_s": 120}
        reward = stack.enter_context(open_pool("even", config.rewards["even"], **waits))
        pool = RolloutPool(engines, config.rollout)
        pool.wait_until_ready(timeout_s=120)
        actors = Actors(rollout=pool, rewards={"even": reward}, learner=learner, reference=None)
        controller = stack.enter_context(closing(Controller(config, prompts, actors)))
        controller.push_weights()
        marks = [(time.perf_counter(), time.process_time())]
        rows: list[dict[str, float]] = []

        def after_step(result: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))
            rows.append(result.metrics)

        controller.train(num_steps + 1, after_step=after_step, should_stop=lambda: False)
    steps = [(end[0] - start[0], end[1] - start[1]) for start, end in itertools.pairwise(marks)][1:]
    step = statistics.median(seconds for seconds, _ in steps)
    return {
        "engines": num_engines,
        "groups": config.train.prompts_per_step,
        "step_s": step,
        "orchestration_s": step - STEP_S,
        "share": (step - STEP_S) / STEP_S,
        "worst_step_s": max(seconds for seconds, _ in steps),
        "controller_cpu_s": statistics.median(cpu for _, cpu in steps),
        "rollout_s": statistics.median(row["seconds/rollout"] for row in rows[1:]) - ROLLOUT_S,
        "score_s": statistics.median(row.get("seconds/score", 0.0) for row in rows[1:]),
        "update_s": statistics.median(row["seconds/update"] for row in rows[1:]) - UPDATE_S,
        "weight_sync_s": statistics.median(row["seconds/weight_sync"] for row in rows[1:]) - SYNC_S,
        "load": os.getloadavg()[0],
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws orchestration over the number of engines, with a line of proportion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = [float(row["engines"]) for row in rows]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, label in (
        ("orchestration_s", "beyond the simulated 10 s"),
        ("controller_cpu_s", "controller's CPU"),
    ):
        axes.plot(sizes, [max(float(row[name]), 1e-3) for row in rows], marker="o", label=label)
    last = float(rows[-1]["orchestration_s"])
    axes.plot(sizes, [last * size / sizes[-1] for size in sizes], "k:", linewidth=1, label="proportional")
    axes.axhline(SHARE_GOAL * STEP_S, color="grey", linewidth=1, label=f"{SHARE_GOAL:.0%} of the step")
    axes.set(xscale="log", yscale="log", xlabel="engines", ylabel="seconds a step")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--plot", type=Path, help="draw the curve into this file")
    parser.add_argument("--sizes", type=int, nargs="+", help="other numbers of engines")
    arguments = parser.parse_args()
    sizes = arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES)
    with ray_session(ClusterConfig(num_cpus=2)):
        rows = [measure(size, QUICK_STEPS if arguments.quick else NUM_STEPS) for size in sizes]
    if arguments.plot:
        draw(rows, arguments.plot)
    by_size = {row["engines"]: float(row["orchestration_s"]) for row in rows}
    goals = {}
    if SHARE_AT in by_size:
        goals[f"at most {SHARE_GOAL:.0%} of a {STEP_S:g} s step at {SHARE_AT} engines"] = (
            by_size[SHARE_AT] <= SHARE_GOAL * STEP_S
        )
    if GROWTH_FROM in by_size and GROWTH_TO in by_size:
        times = GROWTH_TO / GROWTH_FROM
        goals[f"at most {times:g} times from {GROWTH_FROM} to {GROWTH_TO} engines"] = (
            by_size[GROWTH_TO] <= times * by_size[GROWTH_FROM]
        )
    headline = {f"orchestration_s_{size}": seconds for size, seconds in by_size.items()}
    finish("scale", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
