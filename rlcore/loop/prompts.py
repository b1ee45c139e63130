"""The order in which prompts are trained on: a pure function of (seed, step), with no state to save.

A run that is resumed at step n therefore sees what the uninterrupted run would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rlcore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PromptStream:
    """A prompt stream is an endless series of shuffled passes over `num_prompts` prompts, `per_step` at a
    time.

    Each epoch is a permutation drawn from (seed, epoch). Steps run on over the end of an epoch, so no prompt
    is left out and none comes twice within one epoch.
    """

    num_prompts: int
    per_step: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.per_step <= self.num_prompts:
            raise ConfigError(
                f"train.prompts_per_step: got {self.per_step}, must be from 1 to the number of training "
                f"prompts, which is {self.num_prompts}"
            )

    def indices(self, step: int) -> list[int]:
        """Returns the indices of the `per_step` prompts of `step` (from 0)."""
        first = step * self.per_step
        return [self.index(position) for position in range(first, first + self.per_step)]

    def index(self, position: int) -> int:
        """Returns the index of the prompt at a position of the endless stream. Step s begins at position s
        * per_step."""
        epoch, place = divmod(position, self.num_prompts)
        return int(_permutation(self.seed, epoch, self.num_prompts)[place])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_prompts: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_prompts)
