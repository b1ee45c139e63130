"""The interface of everything that writes reasoning traces (templates here, a language model elsewhere)."""

from __future__ import annotations

import random
from typing import Protocol

from emotion_task.records import Utterance


class TraceWriter(Protocol):
    """Writes a trace from what is known of an utterance: measured fields, transcript, emotion."""

    def write(self, utterance: Utterance, rng: random.Random, answer: bool = True) -> str | None:
        """A trace, or None where too little is known to reason about.

        Args:
            rng: the only source of variation; the same state gives the same trace.
            answer: with it, `<think>...</think><answer>label</answer>`. Without it, `<think>...</think>`
                in which the emotion is not named, for utterances whose label is withheld.
        """
        ...
