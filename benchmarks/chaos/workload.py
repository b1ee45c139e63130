"""The run that is disturbed: a text model of 0.4M parameters, one engine, one reward, a reference and two
learner ranks on two cores; a step takes a second."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlcore.bench.models import WORDS, write_text_model
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
    WeightSyncConfig,
)
from rlcore.types import Completion, Group, Prompt, Score

NUM_PROMPTS = 12
PROMPTS_PER_STEP = 4
SAMPLES_PER_PROMPT = 4
_MANY = 10_000
"""More restarts than any plan of kills needs."""


class QuestionTask:
    """A task of prompts of random words."""

    def prompts(self, split: str) -> Sequence[Prompt]:
        """Returns `NUM_PROMPTS` prompts of eight words."""
        return [
            Prompt(id=f"{split}{i}", text="".join(np.random.default_rng(i).choice(WORDS, 8)))
            for i in range(NUM_PROMPTS)
        ]

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        """Returns nothing: prompts are text alone."""
        return {}

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns the mean reward."""
        return {"reward": float(np.mean([score.value for score in scores["even"]]))}


def even_tokens(prompt: Prompt, completion: Completion) -> float:
    """Returns the share of tokens with an even id, after a moment in which a kill can come."""
    time.sleep(0.03)
    return sum(token % 2 == 0 for token in completion.token_ids) / len(completion.token_ids)


def make_config(folder: Path, *, staleness: int, num_steps: int, seed: int = 0) -> RunConfig:
    """Returns the configuration of a run in `folder`; writes the model beside it, where there is none."""
    model = folder.parent / "model"
    if not (model / "config.json").exists():
        write_text_model(model)
    return RunConfig(
        run_dir=str(folder),
        seed=seed,
        model=ModelConfig(path=str(model)),
        task=TargetConfig(target="benchmarks.chaos.workload:QuestionTask"),
        rollout=RolloutConfig(
            num_cpus=0.4,
            samples_per_prompt=SAMPLES_PER_PROMPT,
            max_tokens=32,
            engine={"max_model_len": 64, "max_num_seqs": 16, "kv_cache_memory_bytes": 32 << 20},
            hang_timeout_s=20.0,
            max_restarts=_MANY,
        ),
        rewards={
            "even": RewardConfig(
                target="benchmarks.chaos.workload:even_tokens", num_cpus=0.05, timeout_s=30.0, retries=3
            )
        },
        algorithm=AlgorithmConfig(kl_coef=0.05),
        learner=LearnerConfig(num_ranks=2, num_cpus=0.4, lr=1e-3, max_restarts=_MANY),
        reference=ReferenceConfig(num_cpus=0.1, max_restarts=_MANY),
        weight_sync=WeightSyncConfig(bucket_mb=0.05),
        train=TrainConfig(
            num_steps=num_steps,
            prompts_per_step=PROMPTS_PER_STEP,
            staleness=staleness,
            eval_every=3,
            max_eval_prompts=4,
            rolling_every=2,
        ),
        cluster=ClusterConfig(num_cpus=2, placement_timeout_s=60.0),
    )
