"""Measures recall emotion by emotion: of a run's greedy held-out answers, before and after, with
intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from emotion_task.evaluation.bootstrap import estimate, estimate_gain
from emotion_task.evaluation.intervals import Estimates, estimates_table
from emotion_task.evaluation.metrics import predicted_labels
from emotion_task.labels import labels_among
from rlcore.errors import DataError
from rlcore.records.files import numbered_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Holds greedy answers to held-out prompts, by the prompt's id."""

    texts: Mapping[str, str]
    """Text of the answer to each prompt."""
    truth: Mapping[str, str]
    """True emotion of each prompt's recording."""


def read_answers(samples: str | Path) -> tuple[Answers, Answers]:
    """Reads the first and the last held-out evaluation of a run's samples.jsonl.

    The file is that of `rlcore train`, or of `rlcore evaluate`, where both evaluations are the same.

    Raises:
        DataError: The file holds no held-out answer, or a broken line.
    """
    by_step: dict[int, list[tuple[str, str, str]]] = {}
    for _, row in numbered_rows(samples, "a JSON object", leave_out_cut=True):
        if row["split"] == "eval":
            answer = (row["prompt"], row["text"], row["reference"]["emotion"])
            by_step.setdefault(row["step"], []).append(answer)
    if not by_step:
        raise DataError(f"{samples}: no answer to a held-out prompt (split 'eval')")
    first, last = (
        Answers(texts={p: text for p, text, _ in rows}, truth={p: emotion for p, _, emotion in rows})
        for rows in (by_step[min(by_step)], by_step[max(by_step)])
    )
    return first, last


def recall_scores(answers: Sequence[Answers]) -> tuple[list[str], list[np.ndarray]]:
    """Returns the emotions that occur, and for each set of answers a table, float [N, E].

    A table has a row for each prompt that all sets have. In the column of the true emotion there is 1 where
    the label is right and 0 where it is not; the other columns are NaN. A column's mean is the emotion's
    recall, the mean over columns the unweighted accuracy.

    Raises:
        DataError: The sets have no prompt in common.
    """
    prompts = [p for p in answers[0].texts if all(p in each.texts for each in answers)]
    if not prompts:
        raise DataError("the two sets of answers have no prompt in common: they are of different data")
    truth = [answers[0].truth[prompt] for prompt in prompts]
    emotions = labels_among(truth)
    columns = [emotions.index(emotion) for emotion in truth]
    tables = []
    for each in answers:
        predicted = predicted_labels([each.texts[prompt] for prompt in prompts], emotions)
        table = np.full((len(prompts), len(emotions)), np.nan)
        table[range(len(prompts)), columns] = [p == t for p, t in zip(predicted, truth, strict=True)]
        tables.append(table)
    return emotions, tables


class RecallReport(TypedDict):
    """Holds the recall by emotion of two sets of answers."""

    models: dict[str, Estimates]
    """Recall by emotion, `before` and `after`."""
    gain: Estimates
    """Recall after less that before, paired."""


def recall_report(samples: Sequence[str | Path], *, seed: int = 0) -> RecallReport:
    """Returns the recall by emotion, `before` and `after`, and the paired `gain`, each with its intervals.

    The mean over emotions is the unweighted accuracy.

    Args:
        samples: one run's samples.jsonl, of which the first and last evaluation are compared, or two files,
            of which the last evaluations are compared.
        seed: seed of the bootstrap.
    """
    answers = list(read_answers(samples[0])) if len(samples) == 1 else [read_answers(s)[1] for s in samples]
    emotions, (before, after) = recall_scores(answers)
    return {
        "models": {
            "before": estimate(before, emotions, seed=seed),
            "after": estimate(after, emotions, seed=seed),
        },
        "gain": estimate_gain(before, after, emotions, seed=seed),
    }


def recall_section(report: RecallReport) -> str:
    """Returns the report of `recall_report` as a section of Markdown."""
    table = estimates_table("emotion", report["models"], report["gain"])
    return "\n".join(
        [
            "## Recall by emotion",
            "",
            "Greedy answers; in brackets the 95 % bootstrap interval over utterances, the gain's paired. The "
            "mean is the unweighted accuracy.",
            "",
            *table,
        ]
    )
