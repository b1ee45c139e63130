"""What a task gives to rlcore. rlcore imports no task; a task is named in the config as `module:Class`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rlcore.types import Group, Prompt, Score


class Task(Protocol):
    """Prompts, their media and the metrics of their answers. Built once in every actor that needs it,
    from the config's `task.args` and the model folder, so construction must be cheap and deterministic."""

    def prompts(self, split: str) -> Sequence[Prompt]:
        """The prompts of `train` or `eval`, always in the same order."""
        ...

    def load_media(self, prompt: Prompt) -> Mapping[str, Any]:
        """Keyword arguments of the model's processor beside `text`, for instance `{"audio": [waveform]}`."""
        ...

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Metrics of greedy answers, one completion a group; `scores` holds each reward's, in that order."""
        ...
