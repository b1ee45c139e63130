"""The work of a run: lengths of prompts and completions, and the batches that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm

from rlcore.config import RunConfig
from rlcore.config.checks import at_least, check

AUDIO_TOKENS_PER_S = 25
"""Embeddings of a second of audio in Qwen2-Audio and Qwen2.5-Omni (arXiv:2503.20215, 2.2: one in 40 ms)."""
AUDIO_FRAMES_PER_S = 50
"""Positions of a second in the tower's layers, after its strided convolution."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload holds lengths, which a configuration does not know: they are the data's and the policy's."""

    prompt_tokens: int = 100
    """Text tokens of a prompt, chat template included."""
    audio_seconds: float = 6.0
    """Seconds of audio of a prompt; 0: none."""
    longest_prompt: int | None = None
    """Tokens of the longest prompt, media included; null: as many as all others."""
    prepare_seconds: float | None = None
    """Seconds of one CPU core to read a prompt's media and make tensors of them; null:
    `Efficiency.prepare_s` for each second of audio."""
    completion_tokens: float | None = None
    """Mean length of a completion; null: half of `rollout.max_tokens`."""
    length_spread: float = 0.6
    """Standard deviation of the completions' lengths over their mean: lognormal, cut at
    `rollout.max_tokens`."""

    def __post_init__(self) -> None:
        check(self.prompt_tokens >= 1, "prompt_tokens", self.prompt_tokens, "at least 1")
        at_least(self, 0, "audio_seconds", "length_spread")
        if self.completion_tokens is not None:
            check(self.completion_tokens >= 1, "completion_tokens", self.completion_tokens, "at least 1")


@dataclass(frozen=True)
class Batch:
    """A batch is the sequences of one training step."""

    config: RunConfig
    workload: Workload

    def __post_init__(self) -> None:
        mean, limit = self.workload.completion_tokens, self.max_completion
        allowed = f"at most rollout.max_tokens ({limit})"
        check(mean is None or mean <= limit, "completion_tokens", mean, allowed)

    @property
    def num_prompts(self) -> int:
        return self.config.train.prompts_per_step

    @property
    def num_samples(self) -> int:
        """Completions of a prompt."""
        return self.config.rollout.samples_per_prompt

    @property
    def num_sequences(self) -> int:
        return self.num_prompts * self.num_samples

    @property
    def prompt_length(self) -> int:
        return self.workload.prompt_tokens + round(AUDIO_TOKENS_PER_S * self.workload.audio_seconds)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max(self.prompt_length, self.workload.longest_prompt or 0)

    @property
    def longest_sample(self) -> int:
        """Tokens of the longest prompt with the longest completion."""
        return self.longest_prompt + self.max_completion

    @property
    def max_completion(self) -> int:
        return self.config.rollout.max_tokens

    @cached_property
    def quantiles(self) -> np.ndarray:
        """Lengths of the completions at the middles of 1000 equal shares, ascending: int64 [1000]."""
        return completion_lengths(self.workload, self.max_completion, (np.arange(1000) + 0.5) / 1000)

    @property
    def completion_length(self) -> float:
        """Mean length of a completion, after the cut at `rollout.max_tokens`."""
        return float(self.quantiles.mean())

    def lengths(self, count: int) -> np.ndarray:
        """Returns the lengths of `count` completions, spread as the distribution is: int64 [count]."""
        return self.quantiles[((np.arange(count) + 0.5) / count * 1000).astype(int)]

    @property
    def packed_tokens(self) -> float:
        """Tokens that the learner computes in a step: prompts once, and completions."""
        return self.num_prompts * (self.prompt_length + self.num_samples * self.completion_length)

    @property
    def completion_tokens(self) -> float:
        return self.num_sequences * self.completion_length


def completion_lengths(workload: Workload, max_tokens: int, shares: np.ndarray) -> np.ndarray:
    """Returns the quantiles at `shares` (0 to 1) of a lognormal distribution cut at `max_tokens`, int64."""
    mean = (
        max_tokens / 2 if workload.completion_tokens is None else min(workload.completion_tokens, max_tokens)
    )
    variance = np.log1p(workload.length_spread**2)
    lengths = np.exp(np.log(mean) - variance / 2 + np.sqrt(variance) * norm.ppf(shares))
    return np.clip(np.round(lengths), 1, max_tokens).astype(np.int64)
