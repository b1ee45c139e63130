"""Environments for tests, which a random model calls often: it only has to write a letter."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from rlcore.environments import Episode


class Answering:
    """Answers every turn that ends with an `e`, unless the prompt's id has a fault: `raise`, `hang`, `die`,
    `large`, or the path of a file to wait for."""

    stop = ("e",)

    def __init__(self, faults: Mapping[str, str] | None = None):
        self._faults = dict(faults or {})

    def step(self, episode: Episode) -> str | None:
        fault = self._faults.get(episode.prompt.id)
        if fault == "raise":
            raise OSError("no such measurement")
        if fault == "hang":
            time.sleep(3600)
        if fault == "die":
            os._exit(1)
        if fault == "large":
            return "high " * 100
        while fault and not Path(fault).exists():
            time.sleep(0.02)
        return f" [pitch is {'high' if len(episode.turns) % 2 else 'low'}] "


class Shapeless:
    """Lacks what an environment must have."""

    stop = "e"
