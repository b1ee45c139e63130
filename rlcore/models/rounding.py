"""Adapted weights for engines in bfloat16: the sum of a weight and a small change, on a coarse grid.

A weight of bfloat16 has 8 bits. Of a change below half a unit of the last of them rounding to the nearest
leaves nothing, and what an adapter adds in its first steps is as small: engines would go on with much of the
policy that they started from. So a sum is rounded up or down by where it lies between its two neighbours,
against a threshold that is drawn once for every place of a weight. Over many weights the change arrives
whole; a weight that does not change is not touched; and the same weights give the same bytes at every push.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch
from torch import Tensor

_NUM_THRESHOLDS = 65521
"""Number of thresholds: a prime, so that the rows of a weight do not share theirs."""


def adapted(base: Tensor, change: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Returns `base` + `change`, float32, both of the same shape; for bfloat16 the sum lies on bfloat16's
    grid. Where `change` is 0, `base` is kept bit by bit: a negative zero is, too.

    For bfloat16 `base` is rounded to the nearest first, as the learner's forward pass under autocast does, so
    that no change is no difference. `name`, the weight's, chooses the thresholds.
    """
    own, change = (base.to(torch.bfloat16) if dtype == torch.bfloat16 else base).float(), change.float()
    total = torch.where(change == 0, own, own + change)
    if dtype != torch.bfloat16:
        return total
    table = _thresholds().to(total.device)
    first, count = zlib.crc32(name.encode()) % len(table), total.numel()
    thresholds = table.repeat((first + count) // len(table) + 1)[first : first + count]
    bits = total.view(torch.int32)
    bits += thresholds.view_as(bits)  # carries into the bits that stay, in proportion to those that go
    bits &= -0x10000
    return total


@functools.cache
def _thresholds() -> Tensor:
    """Draws the thresholds: int32 [_NUM_THRESHOLDS], 0 to 2^16 - 1."""
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 1 << 16, size=_NUM_THRESHOLDS, dtype=np.int32)
    )
