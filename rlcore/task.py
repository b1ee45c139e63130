"""The protocol of tasks: all that rlcore asks of one.

rlcore imports no task; a configuration names it as `module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from rlcore.types import Group, Prompt, Score


class Task(Protocol):
    """A task provides prompts, their media and the metrics of their answers.

    Every actor that needs the task builds it once, from `task.args` of the configuration, so construction
    must be cheap and deterministic.
    """

    def prompts(self, split: str) -> Sequence[Prompt]:
        """Returns the prompts of `split` (`train` or `eval`), always in the same order."""
        ...

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        """Returns the processor's keyword arguments beside `text`, for instance `{"audio": [waveform]}`."""
        ...

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns metrics of greedy answers, the headline first: progress bars and summaries show it.

        Args:
            groups: one completion each.
            scores: reward name to the scores of these completions, in the order of `groups`.
        """
        ...


@runtime_checkable
class KnowsAnswers(Protocol):
    """A task may also know an answer to which every reward by rule gives more than 0. A run then tries
    tokenizer, chat template and rewards on such answers before it starts (`rlcore.rewards.reading`)."""

    def perfect_answer(self, prompt: Prompt) -> str | None:
        """Returns a whole answer to `prompt`, in the form that rewards read, and short: one that is longer
        than `rollout.max_tokens` ends the run before it starts. None: none is known of this prompt."""
        ...
