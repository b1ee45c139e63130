"""What is done about completions that reach the token limit (DAPO, arXiv 2503.14476, section 3.4)."""

from __future__ import annotations

import numpy as np


def overlong_penalty(lengths: np.ndarray, max_tokens: int, buffer: int) -> np.ndarray:
    """Soft over-long punishment, equation 13: 0 up to max_tokens - buffer tokens, from there falling in a
    line to -1 at max_tokens.

    `lengths` [...] in tokens; 0 < buffer <= max_tokens. Returns float64 [...] in [-1, 0].
    """
    over = np.asarray(lengths, dtype=np.float64) - (max_tokens - buffer)
    return -np.clip(over / buffer, 0.0, 1.0)
