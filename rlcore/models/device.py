"""The device on which the models of a process go."""

from __future__ import annotations

import torch


def own_device() -> str:
    """Returns this process's GPU, where there is one: Ray shows an actor its own alone, so that is the
    first."""
    return "cuda" if torch.cuda.is_available() else "cpu"
