"""Measures what it costs that completions have turns.

    python -m benchmarks.turns [--quick] [--json FILE] [--gate]

A rollout worker on the quickstart's kind of model, audio prompts, 8 samples each, writes completions of three
turns of 32 tokens (forced, a fifth more or less), with an environment between that answers at once. Then each
turn is a request by itself, with what had been written before behind its prompt: single turns at the same
tokens, read and written, without environment and episodes. Their rounds alternate; the ratio of both is taken
round by round, of wall time and of the process's CPU time, and the median counts. Goal: at most 10 %. Samples
fill the engine's batch on either side: else single turns would have the wider one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.report import finish, parse_arguments
from benchmarks.rollout_throughput import make_prompts
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.prompt import emotion_messages
from rlcore.config import ClusterConfig, EnvironmentConfig, ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.vllm_engine import VLLMEngine, engine_env
from rlcore.environments import Episode
from rlcore.models.chat_template import format_prompt
from rlcore.types import Completion, Group, Prompt, RolloutJob

NUM_SAMPLES = 8
NUM_TURNS = 3
TURN_TOKENS = 32
OVERHEAD = 1.10


class AtOnce:
    """Answers every turn at once, with a few tokens."""

    stop: Sequence[str] = ()

    def step(self, episode: Episode) -> str:
        return "<result>high</result>"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a round, in seconds."""

    wall: float
    cpu: float
    """Of this process, all threads."""


def rollout_config() -> RolloutConfig:
    from rlcore.engines.forced_lengths import TABLE

    spread = np.round(TURN_TOKENS * np.linspace(0.8, 1.2, 41)).astype(int)
    return RolloutConfig(
        samples_per_prompt=NUM_SAMPLES,
        max_tokens=4 * NUM_TURNS * TURN_TOKENS,
        engine={
            "max_model_len": 1024,
            "max_num_seqs": 128,
            "logits_processors": ["rlcore.engines.forced_lengths:ForcedLengths"],
            "additional_config": {TABLE: np.random.default_rng(0).permutation(spread).tolist()},
        },
        environment=EnvironmentConfig(target="benchmarks.turns:AtOnce", max_turns=NUM_TURNS),
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    from rlcore.actors.rollout_worker import RolloutWorker
    from rlcore.models.hf_model import load_processor
    from rlcore.run import ray_session

    rounds, rows = 5 if arguments.quick else 16, []
    with tempfile.TemporaryDirectory() as folder, ray_session(ClusterConfig(num_cpus=2)):
        build_tiny_model(folder, ["what is the emotion of the speaker"] * 10, TinyModelConfig())
        text = format_prompt(load_processor(folder), emotion_messages(("happy", "sad", "angry")))
        task = TargetConfig(target="benchmarks.rollout_throughput:NoiseTask")
        worker = RolloutWorker(ModelConfig(path=folder), rollout_config(), task, seed=0)
        for count in (16, 32):
            prompts = make_prompts(text, count, 1000 * count)
            groups = worker.generate(prompts, step=0)  # encodes
            pairs = [measure(worker, prompts, step) for step in range(1, rounds + 1)]
            completions = [c for group in groups for c in group.completions]
            rows.append({"prompts": count, "samples": NUM_SAMPLES, **shape(completions), **ratios(pairs)})
        worker._loop.close()
    worst = max(rows, key=lambda row: row["wall"])
    goals = {f"turns take at most {OVERHEAD} of single ones at the same tokens": worst["wall"] <= OVERHEAD}
    finish("turns", rows, {"wall": worst["wall"], "cpu": worst["cpu"]}, goals, arguments)


def shape(completions: Sequence[Completion]) -> dict[str, float]:
    """Returns means per completion."""
    return {
        "sampled_tokens": float(np.mean([c.num_sampled for c in completions])),
        "observations": float(np.mean([len(c.observations) for c in completions])),
        "observation_tokens": float(np.mean([len(c.token_ids) - c.num_sampled for c in completions])),
    }


def ratios(pairs: Sequence[tuple[Cost, Cost]]) -> dict[str, float]:
    """Returns the medians of turns over single ones, with the lowest and highest wall time's."""
    wall = [turns.wall / single.wall for turns, single in pairs]
    cpu = [turns.cpu / single.cpu for turns, single in pairs]
    return {"wall": float(np.median(wall)), "low": min(wall), "high": max(wall), "cpu": float(np.median(cpu))}


def measure(worker: object, prompts: Sequence[Prompt], step: int) -> tuple[Cost, Cost]:
    """Returns the costs of completions in turns, and of the same turns as requests of their own."""
    from rlcore.actors.rollout_worker import RolloutWorker

    assert isinstance(worker, RolloutWorker)
    start = _now()
    groups = worker.generate(prompts, step=step)
    turns = _since(start)
    start = _now()
    num_tokens = single_turns(worker, groups, step)
    single = _since(start)
    assert num_tokens == sum(c.num_sampled for group in groups for c in group.completions)
    return turns, single


def single_turns(worker: object, groups: Sequence[Group], step: int) -> int:
    """Has the engine write every turn of some groups as a request of one sample. Returns the tokens."""
    from rlcore.actors.rollout_worker import RolloutWorker
    from rlcore.engines.sampling import sampling_seed

    assert isinstance(worker, RolloutWorker)
    requests = []
    encoded = worker._encoder.encode([group.prompt for group in groups])
    for i, (group, inputs) in enumerate(zip(groups, encoded, strict=True)):
        job = RolloutJob(id=i, prompt=group.prompt, draw=step)
        first = worker._request(job, inputs)
        assert first.seed is not None
        rendered, one = worker._loop.engine.render(first), replace(worker._sampling(job), n=1)
        for k, completion in enumerate(group.completions):
            starts = [0, *(o.first + o.num_tokens for o in completion.observations)]
            for turn, begin in enumerate(starts):
                seed = first.seed + k if turn == 0 else sampling_seed(first.seed + k, turn)
                request = replace(first, begun=completion.token_ids[:begin], seed=seed)
                requests.append((f"{i}/{k}/{turn}", request, one, rendered))

    def enter(engine: VLLMEngine) -> None:
        for request in requests:
            engine.submit(*request)

    # Else the episodes would take these for theirs.
    hear, worker._loop._on_finished = worker._loop._on_finished, None
    worker._loop.call(enter).result()
    done: dict[str, tuple[Completion, ...] | None] = {}
    while len(done) < len(requests):
        done |= worker._loop.collect(1.0)
    worker._loop._on_finished = hear
    return sum(len(turn.token_ids) for completions in done.values() for turn in completions or ())


def _now() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def _since(start: Cost) -> Cost:
    now = _now()
    return Cost(now.wall - start.wall, now.cpu - start.cpu)


if __name__ == "__main__":
    main()
