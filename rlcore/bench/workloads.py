"""The fixed workloads that are generated and trained on, so that two measurements are of the same work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from rlcore.bench.models import AUDIO_SECONDS, WORDS, write_audio_model, write_text_model
from rlcore.config import (
    AlgorithmConfig,
    LearnerConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.types import Completion, Group, Prompt, Score

PROMPT_TOKENS = 128
NUM_PROMPTS = 256
SAMPLES_PER_PROMPT = 8
PROMPTS_PER_STEP = 16
FORCED_TOKENS = 64
RAGGED_TOKENS = (16, 512)
RAGGED_MEDIAN, RAGGED_SIGMA = 64, 0.9
_AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A fixed piece of work: 16 prompts of 128 words per step, 8 completions of each."""

    name: str
    has_audio: bool
    lengths: tuple[int, ...]
    """Completion lengths in tokens; each sample takes one, by its seed (`rlcore.engines.forced_lengths`)."""

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio in each prompt."""
        return AUDIO_SECONDS if self.has_audio else 0.0

    def config(self, folder: Path) -> RunConfig:
        """Writes the model to `folder` and returns a run of this workload.

        Every update is real, but too small to change what is measured.
        """
        write = write_audio_model if self.has_audio else write_text_model
        longest = max(self.lengths)
        return RunConfig(
            run_dir=str(folder / "run"),
            model=ModelConfig(path=str(write(folder / "model"))),
            task=TargetConfig(target="rlcore.bench.workloads:WordTask", args={"has_audio": self.has_audio}),
            rollout=RolloutConfig(
                num_cpus=0.9,  # with the reward, two cores hold them all
                samples_per_prompt=SAMPLES_PER_PROMPT,
                max_tokens=longest,
                engine={
                    "max_model_len": 1024,
                    "logits_processors": ["rlcore.engines.forced_lengths:ForcedLengths"],
                    "additional_config": {"completion_lengths": list(self.lengths)},
                },
            ),
            rewards={"even": RewardConfig(target="rlcore.bench.workloads:even_tokens")},
            algorithm=AlgorithmConfig(kl_coef=0.0),
            learner=LearnerConfig(num_cpus=0.9, lr=1e-6, micro_batch_tokens=16384),
            train=TrainConfig(prompts_per_step=PROMPTS_PER_STEP),
        )


def ragged_lengths(count: int = 1000) -> tuple[int, ...]:
    """Returns completion lengths with a long tail, shuffled: always the same.

    They are a lognormal distribution's (median 64, sigma 0.9; mean 95) at the middles of `count` equal
    shares, cut to 16 to 512 tokens.
    """
    shares = (np.arange(count) + 0.5) / count
    lengths = np.exp(np.log(RAGGED_MEDIAN) + RAGGED_SIGMA * norm.ppf(shares))
    order = np.random.default_rng(0).permutation(count)
    return tuple(np.clip(np.round(lengths), *RAGGED_TOKENS).astype(int)[order].tolist())


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="text-forced", has_audio=False, lengths=(FORCED_TOKENS,)),
        Workload(name="text-ragged", has_audio=False, lengths=ragged_lengths()),
        Workload(name="audio-forced", has_audio=True, lengths=(FORCED_TOKENS,)),
        Workload(name="audio-ragged", has_audio=True, lengths=ragged_lengths()),
    )
}


class WordTask:
    """A task of prompts of random words, with noise to listen to."""

    def __init__(self, has_audio: bool = False):
        self._has_audio = has_audio

    def prompts(self, split: str) -> Sequence[Prompt]:
        """Returns `NUM_PROMPTS` training prompts, or a single one of another split."""
        return [self._prompt(split, i) for i in range(NUM_PROMPTS if split == "train" else 1)]

    def _prompt(self, split: str, index: int) -> Prompt:
        text = "".join(np.random.default_rng(index).choice(WORDS, PROMPT_TOKENS))
        if not self._has_audio:
            return Prompt(id=f"{split}{index}", text=text)
        return Prompt(id=f"{split}{index}", text=_AUDIO + text, media={"seed": index})

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        """Returns the prompt's noise."""
        noise = np.random.default_rng(prompt.media["seed"]).standard_normal(16000 * AUDIO_SECONDS)
        return {"audio": [(0.1 * noise).astype(np.float32)], "sampling_rate": 16000}

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns the mean reward."""
        return {"reward": float(np.mean([score.value for score in scores["even"]]))}


def even_tokens(prompt: Prompt, completion: Completion) -> float:
    """Returns the share of tokens with an even id: a cheap reward that tells completions apart."""
    return sum(token % 2 == 0 for token in completion.token_ids) / len(completion.token_ids)
