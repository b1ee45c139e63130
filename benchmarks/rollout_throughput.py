"""Measures tokens per second of the rollout actor on the quickstart's kind of model: audio prompts, K samples
each.

    python -m benchmarks.rollout_throughput [--quick] [--json FILE] [--gate]

There are three comparisons, whose sides alternate:

- `raw`: vLLM's own `LLM.generate` on encoded prompts, in this process; `actor`: the same through the actor's
  queue, its loop and its collection, with prompts encoded already; the best of several rounds counts on each
  side. Goal: at most 5 % over the raw engine.
- `one` and `two` replicas as Ray actors, one core each, through the pool, with more to do than they take at
  once and completions of ragged lengths, while a steady stream of groups finishes. The figure is two over the
  mean of one before and after, the median of the rounds. Goal: two give 1.9 times one, which needs two idle
  cores. Two processes without Ray do the same beside it: this is what the machine has to give.
- the audio tower: prompts with new audio, then the same audio again. Goal: each audio is encoded once.

A further goal is at least 2000 tokens per second on one core with 16 prompts of 8 samples.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from benchmarks.report import finish, parse_arguments
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.prompt import emotion_messages
from rlcore.config import ClusterConfig, ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.vllm_engine import VLLMEngine, engine_env
from rlcore.engines.vllm_records import sampling_params, vllm_prompt
from rlcore.models.chat_template import format_prompt
from rlcore.types import Group, Prompt, RolloutJob

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from rlcore.actors.rollout_pool import RolloutPool
    from rlcore.actors.rollout_worker import RolloutWorker
    from rlcore.engines.vllm_engine import VLLMEngine

TOKENS_PER_S = 2000
OVERHEAD = 1.05
SPEED_UP = 1.9
NUM_SAMPLES = 8
PROMPTS_AT_ONCE = 8
"""Number of prompts that an engine works on at once where replicas are compared."""
WINDOW = (1 / 4, 3 / 4)
"""Shares of the prompts that are done when the clock starts and stops where replicas are compared: engines
then begin with full batches, and none runs out of work."""
SECONDS = 2.0
"""Length of every audio, in seconds."""


class WorkerArguments(TypedDict):
    """Holds the arguments of a `RolloutWorker`."""

    model: ModelConfig
    rollout: RolloutConfig
    task: TargetConfig
    seed: int


class NoiseTask:
    """Serves noise as every prompt's audio; the prompt's seed makes the noise."""

    def load_media(self, prompt: Prompt) -> dict[str, object]:
        rng = np.random.default_rng(prompt.media["seed"])
        waveform = 0.1 * rng.standard_normal(int(16000 * SECONDS))
        return {"audio": [waveform.astype(np.float32)], "sampling_rate": 16000}


def make_prompts(text: str, count: int, first: int) -> list[Prompt]:
    return [Prompt(id=str(i), text=text, media={"seed": i}) for i in range(first, first + count)]


def num_tokens(groups: Sequence[Group]) -> int:
    return sum(len(completion.token_ids) for group in groups for completion in group.completions)


def raw_seconds(worker: RolloutWorker, prompts: Sequence[Prompt], step: int) -> float:
    """Returns the seconds of vLLM's own batch generation of what the worker's `generate` would ask for.

    vLLM is called on the engine's thread, as it needs to be; encoding is not counted."""
    jobs = [RolloutJob(id=i, prompt=prompt, draw=step) for i, prompt in enumerate(prompts)]
    encoded = worker._encoder.encode(prompts)

    def generate(engine: VLLMEngine) -> float:
        requests = [worker._request(job, inputs) for job, inputs in zip(jobs, encoded, strict=True)]
        sampling = worker._sampling(jobs[0])
        start = time.perf_counter()
        engine._llm.generate(
            [
                vllm_prompt(r, engine._family, embeds=engine._embeds, audio_id=engine._audio_id)
                for r in requests
            ],
            [sampling_params(sampling, seed=r.seed, banned=engine._banned) for r in requests],
            use_tqdm=False,
        )
        return time.perf_counter() - start

    return worker._loop.call(generate).result()


def measure_actor(
    worker: RolloutWorker, prompts: Sequence[Prompt], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the rates of the actor and the raw engine, and their ratio with the numbers of encoded
    audios."""
    start = time.perf_counter()
    groups = worker.generate(prompts, step=0)
    new_s, encoded = time.perf_counter() - start, worker.stats()["media_encoded"]
    raw, actor = [], []
    for step in range(1, rounds + 1):
        raw.append(raw_seconds(worker, prompts, step))
        start = time.perf_counter()
        groups = worker.generate(prompts, step=step)
        actor.append(time.perf_counter() - start)
    rates = {
        "raw_tok_per_s": num_tokens(groups) / min(raw),
        "tok_per_s": num_tokens(groups) / min(actor),
        "new_audio_tok_per_s": num_tokens(groups) / new_s,
    }
    return rates, {
        "actor_over_raw": min(actor) / min(raw),
        "encoded": encoded,
        "encoded_again": worker.stats()["media_encoded"] - encoded,
    }


def steady_rate(finished: Callable[[], Sequence[Group]], count: int) -> float:
    """Returns the tokens per second of the groups that finish within `WINDOW` of `count` prompts.

    These are engines that have enough to do, as where rollouts run ahead of updates.

    Args:
        finished: waits for groups and returns those that have finished since its last call.
    """
    done: list[Group] = []
    while len(done) < WINDOW[0] * count:
        done += finished()
    before, start = len(done), time.perf_counter()
    while len(done) < WINDOW[1] * count:
        done += finished()
    return num_tokens(done[before:]) / (time.perf_counter() - start)


def pool_rate(pool: RolloutPool, prompts: Sequence[Prompt], step: int) -> float:
    """Returns the tokens per second of a pool's replicas together."""
    ids = range(step * len(prompts), (step + 1) * len(prompts))
    pool.submit([RolloutJob(id=i, prompt=p, draw=step) for i, p in zip(ids, prompts, strict=True)])
    rate = steady_rate(lambda: [job.group for job in pool.poll(1.0)], len(prompts))
    pool.cancel(ids)
    while pool.num_unfinished(timeout_s=60):
        time.sleep(0.1)
    return rate


def measure_replicas(arguments: WorkerArguments, prompts: Sequence[Prompt], rounds: int) -> list[float]:
    """Returns two replicas' rate over one replica's, round by round.

    Both pools stand at once, and one of them idles. A replica has as much to do in either pool."""
    from rlcore.actors.group import ActorGroup
    from rlcore.actors.rollout_pool import RolloutPool
    from rlcore.actors.rollout_worker import NUM_THREADS, RolloutWorker
    from rlcore.run import ray_session

    with ray_session(ClusterConfig(num_cpus=3)):
        pools = {}
        for size in (1, 2):
            group = ActorGroup(
                f"rollout_{size}",
                RolloutWorker,
                [{**arguments, "rank": rank} for rank in range(size)],
                num_cpus=1,
                env_vars=engine_env(cpu=True),
                options={"max_concurrency": NUM_THREADS},
            )
            pools[size] = RolloutPool(group, arguments["rollout"])
            pools[size].wait_until_ready(timeout_s=600)
        one, two = [], []
        for step in range(rounds + 1):  # the first encodes
            one.append(pool_rate(pools[1], prompts[: len(prompts) // 2], step))
            two.append(pool_rate(pools[2], prompts, step))
        one.append(pool_rate(pools[1], prompts[: len(prompts) // 2], rounds + 1))
    return over_neighbours(two[1:], one[1:])


def over_neighbours(two: Sequence[float], one: Sequence[float]) -> list[float]:
    """Divides each rate of `two` by the mean of the rates of `one` before and after it: the machine's own
    speed drifts."""
    return [2 * pair / (before + after) for pair, before, after in zip(two, one[:-1], one[1:], strict=True)]


def measure_processes(arguments: WorkerArguments, prompts: Sequence[Prompt], rounds: int) -> list[float]:
    """Returns two processes' rate over one process's, round by round, without Ray.

    The processes share nothing and pass their groups to nobody; each has half of the prompts."""
    context = multiprocessing.get_context("spawn")
    barrier, queues = context.Barrier(2), [context.Queue() for _ in range(2)]
    processes = [
        context.Process(
            target=process_rates, args=(arguments, prompts[i::2], rounds, i, barrier, queues[i]), daemon=True
        )
        for i in range(2)
    ]
    for process in processes:
        process.start()
    (alone, first), (_, second) = (queue.get(timeout=600) for queue in queues)
    for process in processes:
        process.join(60)
    return over_neighbours([a + b for a, b in zip(first, second, strict=True)], alone)


def process_rates(
    arguments: WorkerArguments,
    prompts: Sequence[Prompt],
    rounds: int,
    rank: int,
    barrier: Barrier,
    queue: Queue[tuple[list[float], list[float]]],
) -> None:
    """Puts two lists into `queue`: tokens per second of each round of rank 0 alone (0 for other ranks), and
    of this rank beside the others."""
    from rlcore.actors.rollout_worker import RolloutWorker

    worker = RolloutWorker(**arguments)

    def rate(step: int) -> float:
        worker.submit([RolloutJob(id=i, prompt=prompt, draw=step) for i, prompt in enumerate(prompts)])
        return steady_rate(
            lambda: [job.group for job in worker.collect(1.0).finished if job.group], len(prompts)
        )

    alone, together = list[float](), list[float]()
    phases = [alone, together] * (rounds + 1) + [alone]
    for i, rates in enumerate(phases):
        barrier.wait(600)
        rates.append(rate(i // 2) if rank == 0 or rates is together else 0.0)
        barrier.wait(600)  # until the other has measured, too
        worker.cancel(range(len(prompts)))
    queue.put((alone[1:], together[1:]))  # the first round encodes


def ragged(rollout: RolloutConfig) -> RolloutConfig:
    """Returns the configuration with `PROMPTS_AT_ONCE`, and completions of half to all of `max_tokens`."""
    from rlcore.engines.forced_lengths import TABLE

    lengths = np.random.default_rng(0).integers(rollout.max_tokens // 2, rollout.max_tokens + 1, 1000)
    engine = {
        **rollout.engine,
        "max_num_seqs": PROMPTS_AT_ONCE * NUM_SAMPLES,
        "logits_processors": ["rlcore.engines.forced_lengths:ForcedLengths"],
        "additional_config": {TABLE: lengths.tolist()},
    }
    return replace(rollout, engine=engine)


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    from rlcore.actors.rollout_worker import RolloutWorker
    from rlcore.models.hf_model import load_processor

    rounds = 3 if arguments.quick else 8
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(folder, ["what is the emotion of the speaker"] * 10, TinyModelConfig())
        settings: WorkerArguments = {
            "model": ModelConfig(path=folder),
            "rollout": RolloutConfig(
                samples_per_prompt=NUM_SAMPLES,
                max_tokens=64 if arguments.quick else 128,
                engine={"max_model_len": 1024},
            ),
            "task": TargetConfig(target="benchmarks.rollout_throughput:NoiseTask"),
            "seed": 0,
        }
        worker = RolloutWorker(**settings)
        text = format_prompt(load_processor(folder), emotion_messages(("happy", "sad", "angry")))
        worker.generate(make_prompts(text, 1, 0), step=0)
        rows = []
        for i, count in enumerate((4, 16) if arguments.quick else (1, 4, 16, 32), 1):
            before = worker.stats()["media_encoded"]
            rates, ratios = measure_actor(worker, make_prompts(text, count, 1000 * i), rounds)
            ratios["encoded"] -= before
            rows.append({"prompts": count, "samples": NUM_SAMPLES, **rates, **ratios})
        worker._loop.close()
        settings["rollout"] = ragged(settings["rollout"])
        prompts = make_prompts(text, (6 if arguments.quick else 12) * PROMPTS_AT_ONCE, 0)
        pairs = 4 if arguments.quick else 12
        without_ray = measure_processes(settings, prompts, pairs)
        with_ray = measure_replicas(settings, prompts, pairs)
    speed_up = float(np.median(with_ray))
    for name, ratios in (("without Ray", without_ray), ("through the pool", with_ray)):
        print(f"two over one {name}, round by round:", *(f"{ratio:.2f}" for ratio in ratios))
    at_goal = next(row for row in rows if row["prompts"] == 16)
    headline = {
        "tok_per_s": at_goal["tok_per_s"],
        "actor_over_raw": at_goal["actor_over_raw"],
        "two_over_one": speed_up,
        "two_over_one_low": min(with_ray),
        "two_over_one_high": max(with_ray),
        "two_over_one_without_ray": float(np.median(without_ray)),
    }
    goals = {
        f"at least {TOKENS_PER_S} tokens a second": at_goal["tok_per_s"] >= TOKENS_PER_S,
        f"the actor's path takes at most {OVERHEAD} of the raw engine": at_goal["actor_over_raw"] <= OVERHEAD,
        f"two replicas give at least {SPEED_UP} of one": speed_up >= SPEED_UP,
        "every audio is encoded once": all(
            row["encoded"] == row["prompts"] and row["encoded_again"] == 0 for row in rows
        ),
    }
    finish("rollout_throughput", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
