"""Where the models of a process go."""

from __future__ import annotations

import torch


def own_device() -> str:
    """This process's GPU, where it has one: Ray shows an actor its own alone, so it is the first."""
    return "cuda" if torch.cuda.is_available() else "cpu"
