"""Defines a task, rewards and a configuration for tests of the loop: a text model of 0.3M parameters learns
in seconds, and the rewards' values need no model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_models import TEXT_PROMPT

from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    ModelConfig,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

WORDS = ("emotion", "pitch", "speech", "speaker", "high", "fast", "angry", "user")
ENGINE = {"max_model_len": 128, "max_num_seqs": 16, "kv_cache_memory_bytes": 32 << 20}


class WordTask:
    """Serves prompts that ask about different words; prompts after the first `num_short` are over the
    context."""

    def __init__(self, num_prompts: int = 12, num_short: int = 1000):
        self._num_prompts, self._num_short = num_prompts, num_short

    def prompts(self, split: str) -> Sequence[Prompt]:
        texts = [TEXT_PROMPT.replace("emotion", " ".join(WORDS[i % 8 :])) for i in range(self._num_prompts)]
        return [
            Prompt(id=f"{split}{i}", text=text if i < self._num_short else text * 20)
            for i, text in enumerate(texts)
        ]

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        return {}

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        return {"tokens": sum(len(group.completions[0].token_ids) for group in groups) / len(groups)}


def even_tokens(prompt: Prompt, completion: Completion) -> float:
    """Returns the share of tokens with an even id."""
    return sum(token % 2 == 0 for token in completion.token_ids) / len(completion.token_ids)


def each_even_token(prompt: Prompt, completion: Completion) -> Score:
    """Returns a score of 0 with a value for each token: 1 for an even id, else 0."""
    return Score(0.0, token_values={i: float(t % 2 == 0) for i, t in enumerate(completion.token_ids)})


def slow_even_tokens(prompt: Prompt, completion: Completion) -> float:
    time.sleep(0.01)
    return even_tokens(prompt, completion)


def even_tokens_once(completion: Completion, context: RewardContext, path: str) -> float:
    """Returns `even_tokens`; from the second step on not before there is a file."""
    deadline = time.monotonic() + 120
    while context.step > 0 and not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return even_tokens(Prompt(id="", text=""), completion)


def first_token_even(prompt: Prompt, completion: Completion) -> float:
    """Returns 0 or 1, so that some groups of two have no signal: 1 where the first token's id is even."""
    return float(completion.token_ids[0] % 2 == 0)


def slow_first_token_even(prompt: Prompt, completion: Completion) -> float:
    time.sleep(0.01)
    return first_token_even(prompt, completion)


def loop_config(folder: Path, model: Path, **sections: Any) -> RunConfig:
    """Returns a configuration of three steps; `sections` replace whole sections of the configuration."""
    config = RunConfig(
        run_dir=str(folder),
        seed=3,
        model=ModelConfig(path=str(model)),
        task=TargetConfig(target="loop_cases:WordTask"),
        rollout=RolloutConfig(num_cpus=0.4, samples_per_prompt=4, max_tokens=24, engine=ENGINE),
        rewards={"even": RewardConfig(target="loop_cases:even_tokens", num_cpus=0.05)},
        algorithm=AlgorithmConfig(kl_coef=0.0),
        learner=LearnerConfig(num_cpus=0.4, lr=3e-3),
        reference=ReferenceConfig(num_cpus=0.1),
        train=TrainConfig(num_steps=3, prompts_per_step=4, max_eval_prompts=2),
        cluster=ClusterConfig(num_cpus=2, placement_timeout_s=20),
    )
    return replace(config, **sections)
