"""The device on which the models of a process go."""

from __future__ import annotations

import torch


def own_device() -> str:
    """Returns this process's GPU, where it has one. That is the first one that it sees: Ray shows an actor
    its own alone, and none to an actor that asked for none (`rlcore.actors.session`)."""
    return "cuda" if torch.cuda.is_available() else "cpu"
