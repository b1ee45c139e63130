"""Describes a set of traces in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from emotion_task.claims.check import faithfulness_metrics
from emotion_task.facts import reference_of
from emotion_task.parsing import parse_response
from emotion_task.records import Utterance


class Statistics(TypedDict):
    """Holds the statistics of a set of traces, as JSON-ready values."""

    num_accepted: int
    num_speakers: int
    hours: float
    """Length of the recordings whose duration was measured."""
    by_emotion: dict[str, int]
    by_dataset: dict[str, int]
    by_split: dict[str, int]
    words: dict[str, float]
    """Percentiles of the number of words of reasoning."""
    faithfulness: dict[str, float]
    """Figures of `emotion_task.claims.check.faithfulness_metrics`."""


def describe(utterances: Sequence[Utterance]) -> Statistics:
    """Returns the statistics of a set of utterances and their traces, as JSON-ready values.

    These are counts by emotion, corpus and split, the number of speakers, hours (of the measured durations),
    percentiles of the reasoning's words, and its faithfulness (`emotion_task.claims.check`)."""
    traces = [utterance.trace or "" for utterance in utterances]
    parsed = [parse_response(trace) for trace in traces]
    words = [len(each.think.split()) for each in parsed if each is not None]
    faithfulness = faithfulness_metrics(traces, [reference_of(u) for u in utterances])
    seconds = [(u.measured or {}).get("duration_s") for u in utterances]
    return {
        "num_accepted": len(utterances),
        "num_speakers": len({u.speaker for u in utterances if u.speaker}),
        "hours": round(sum(s for s in seconds if s) / 3600, 3),
        "by_emotion": _counts(u.emotion for u in utterances),
        "by_dataset": _counts(u.dataset for u in utterances),
        "by_split": _counts(u.split or "none" for u in utterances),
        "words": {f"p{p}": float(np.percentile(words, p)) for p in (5, 50, 95)} if words else {},
        "faithfulness": {name: round(value, 4) for name, value in faithfulness.items()},
    }


def _counts(values: Iterable[object]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, values)).items()))
