"""Measures what turns cost: completions in three turns, answered by an environment, against the same number of
sampled tokens in one turn.

    python -m benchmarks.turns [--quick] [--json FILE] [--gate]

Both sides are rollout actors on the quickstart's kind of model: audio prompts, 8 samples each, forced
lengths. One writes completions of 96 tokens; the other three turns of 32, with two observations between, by an
environment that answers at once. Their rounds alternate, and the ratio is taken round by round; its median
counts. What is more is prefill of the observations, calls of the environment and the way between. Goal: at
most 10 % over a single turn.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.report import finish, parse_arguments
from benchmarks.rollout_throughput import make_prompts
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.prompt import emotion_messages
from rlcore.config import ClusterConfig, EnvironmentConfig, ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.vllm_engine import engine_env
from rlcore.environments import Episode
from rlcore.models.chat_template import format_prompt
from rlcore.types import Group, Prompt

NUM_SAMPLES = 8
NUM_TURNS = 3
TURN_TOKENS = 32
OVERHEAD = 1.10


class AtOnce:
    """Answers every turn at once, with a few tokens."""

    stop: Sequence[str] = ()

    def step(self, episode: Episode) -> str:
        return "<result>high</result>"


def settings_of(length: int, environment: EnvironmentConfig) -> RolloutConfig:
    """Returns the configuration of completions whose every turn has `length` tokens, on average: ragged, so
    that turns end at different times, by a fifth up and down."""
    from rlcore.engines.forced_lengths import TABLE

    spread = np.linspace(0.8, 1.2, 41)
    lengths = np.random.default_rng(0).permutation(np.round(length * spread).astype(int))
    return RolloutConfig(
        samples_per_prompt=NUM_SAMPLES,
        max_tokens=4 * NUM_TURNS * TURN_TOKENS,
        engine={
            "max_model_len": 1024,
            "max_num_seqs": 128,
            "logits_processors": ["rlcore.engines.forced_lengths:ForcedLengths"],
            "additional_config": {TABLE: lengths.tolist()},
        },
        environment=environment,
    )


def seconds_per_token(group: object, prompts: Sequence[Prompt], step: int) -> tuple[float, list[Group]]:
    """Returns the seconds per sampled token of one round of an actor, and its groups."""
    from rlcore.actors.group import ActorGroup

    assert isinstance(group, ActorGroup)
    start = time.perf_counter()
    groups: list[Group] = group.call_one(0, "generate", prompts, step=step, timeout_s=600)
    seconds = time.perf_counter() - start
    return seconds / sum(c.num_sampled for each in groups for c in each.completions), groups


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    from rlcore.actors.group import ActorGroup
    from rlcore.actors.rollout_worker import NUM_THREADS, RolloutWorker
    from rlcore.models.hf_model import load_processor
    from rlcore.run import ray_session

    rounds = 6 if arguments.quick else 16
    environment = EnvironmentConfig(target="benchmarks.turns:AtOnce", max_turns=NUM_TURNS)
    with tempfile.TemporaryDirectory() as folder, ray_session(ClusterConfig(num_cpus=2)):
        build_tiny_model(folder, ["what is the emotion of the speaker"] * 10, TinyModelConfig())
        text = format_prompt(load_processor(folder), emotion_messages(("happy", "sad", "angry")))
        sides = {
            "one turn": settings_of(NUM_TURNS * TURN_TOKENS, replace(environment, target=None)),
            "turns": settings_of(TURN_TOKENS, environment),
        }
        actors = {
            name: ActorGroup(
                name,
                RolloutWorker,
                [
                    {
                        "model": ModelConfig(path=folder),
                        "rollout": rollout,
                        "task": TargetConfig(target="benchmarks.rollout_throughput:NoiseTask"),
                        "seed": 0,
                    }
                ],
                num_cpus=0.5,
                env_vars=engine_env(cpu=True),
                options={"max_concurrency": NUM_THREADS},
            )
            for name, rollout in sides.items()
        }
        rows = []
        for count in (4, 16):
            prompts = make_prompts(text, count, 1000 * count)
            for group in actors.values():  # encodes
                group.call_one(0, "generate", prompts, step=0, timeout_s=600)
            one, turns, again = [], [], []
            for step in range(1, rounds + 1):
                one.append(seconds_per_token(actors["one turn"], prompts, step)[0])
                seconds, groups = seconds_per_token(actors["turns"], prompts, step)
                turns.append(seconds)
                again.append(seconds_per_token(actors["one turn"], prompts, 1000 + step)[0])
            completions = [c for group in groups for c in group.completions]
            ratios = [2 * t / (a + b) for t, a, b in zip(turns, one, again, strict=True)]
            rows.append(
                {
                    "prompts": count,
                    "samples": NUM_SAMPLES,
                    "sampled_tokens": float(np.mean([c.num_sampled for c in completions])),
                    "observations": float(np.mean([len(c.observations) for c in completions])),
                    "observation_tokens": float(
                        np.mean([len(c.token_ids) - c.num_sampled for c in completions])
                    ),
                    "one_turn_tok_per_s": 1 / float(np.median([*one, *again])),
                    "turns_tok_per_s": 1 / float(np.median(turns)),
                    "turns_over_one": float(np.median(ratios)),
                    "low": min(ratios),
                    "high": max(ratios),
                }
            )
        for group in actors.values():
            group.shutdown()
    worst = max(row["turns_over_one"] for row in rows)
    goals = {f"turns take at most {OVERHEAD} of one turn at the same tokens": worst <= OVERHEAD}
    finish("turns", rows, {"turns_over_one": worst}, goals, arguments)


if __name__ == "__main__":
    main()
