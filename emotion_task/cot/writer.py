"""Defines the interface of everything that writes reasoning traces at once, such as the templates."""

from __future__ import annotations

import random
from typing import Protocol

from emotion_task.records import Utterance


class TraceWriter(Protocol):
    """Writes a trace from what is known of an utterance: measured fields, transcript, emotion."""

    def write(self, utterance: Utterance, rng: random.Random, answer: bool = True) -> str | None:
        """Returns a trace, or None where too little is known to reason about.

        Args:
            utterance: what is known of the recording.
            rng: the only source of variation; the same state gives the same trace.
            answer: if true, the trace is `<think>...</think><answer>label</answer>`. If false, it is
                `<think>...</think>` without the emotion's name, for utterances whose label is withheld.
        """
        ...
