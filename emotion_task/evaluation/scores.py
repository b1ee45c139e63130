"""Figures of answers beside the truth, with their 95 % intervals: accuracy, and for classes WA, UA, macro F1.

Two models that answered the same questions are resampled together, so that the interval of their difference
is the paired one (`emotion_task.evaluation.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from emotion_task.evaluation.bootstrap import MEAN, NUM_RESAMPLES, Estimate, draws, estimate, estimate_gain

ACCURACY = "accuracy"
UNWEIGHTED = "unweighted accuracy"
MACRO_F1 = "macro F1"
FOLLOWS_WORDS = "conflict: the words' emotion is answered"
"""Share of the questions in conflict whose answer is what the words say, whatever the voice."""
AGREE, CONFLICT = "words and voice agree", "words and voice in conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A graded answer stands beside the truth."""

    answer: str
    """The right answer."""
    said: str | None
    """The answer that was given; None where there is none, or it cannot be read: that is wrong."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Kinds of the question that get figures of their own."""
    words: str | None = None
    """The emotion that the words alone say; None where they say none, or the corpus does not tell."""


def estimates(
    rows: Sequence[Graded], *, are_classes: bool, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Estimate]:
    """Returns the figures by name.

    `accuracy` (WA) is that of all rows. Of classes come `unweighted accuracy` (UA, mean recall over the
    classes that occur), `macro F1` over the same classes, and each class' recall as `emotion: NAME`. Then
    come the accuracies of each group, as `KIND: VALUE`, where a kind has several values, and those of rows
    whose words and voice agree, or are in conflict.
    """
    table, names = _groups_table(rows, are_classes=are_classes)
    found = estimate(table, names, seed=seed, num_resamples=num_resamples)
    if not are_classes:
        return _ordered(found)
    recalls = estimate(*_recall_table(rows), seed=seed, num_resamples=num_resamples)
    return _ordered(found, recalls[MEAN], _interval(_f1_of(rows), rows, seed, num_resamples))


def gains(
    before: Sequence[Graded],
    after: Sequence[Graded],
    *,
    are_classes: bool,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Estimate]:
    """Returns the paired differences of `estimates`, `after` less `before`: rows are the same questions."""
    if [row.answer for row in before] != [row.answer for row in after]:
        raise ValueError("both models must have answered the same questions, in the same order")
    (old, names), (new, _) = (_groups_table(rows, are_classes=are_classes) for rows in (before, after))
    found = estimate_gain(old, new, names, seed=seed, num_resamples=num_resamples)
    if not are_classes:
        return _ordered(found)
    (old, classes), (new, _) = _recall_table(before), _recall_table(after)
    recalls = estimate_gain(old, new, classes, seed=seed, num_resamples=num_resamples)
    first, second = _f1_of(before), _f1_of(after)
    of_f1 = _interval(lambda counts: second(counts) - first(counts), before, seed, num_resamples)
    return _ordered(found, recalls[MEAN], of_f1)


def _ordered(found: Mapping[str, Estimate], *of_classes: Estimate) -> dict[str, Estimate]:
    """Returns the figures of all rows before those of their parts; the mean over parts is none."""
    of_all = {
        ACCURACY: found[ACCURACY],
        **dict(zip((UNWEIGHTED, MACRO_F1), of_classes, strict=False)),
    }
    return of_all | {name: each for name, each in found.items() if name not in (ACCURACY, MEAN)}


def parts(rows: Sequence[Graded], kind: str) -> dict[str, list[int]]:
    """Returns the indices of the rows by their value of a kind; empty where there are not two values."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if kind in row.groups:
            found.setdefault(row.groups[kind], []).append(index)
    return found if len(found) > 1 else {}


def conflict_parts(rows: Sequence[Graded]) -> dict[str, list[int]]:
    """Returns the indices of the rows whose words and voice agree, and of those where they do not; without
    any conflict, nothing."""
    known = [index for index, row in enumerate(rows) if row.words is not None]
    in_conflict = [index for index in known if rows[index].words != rows[index].answer]
    agreeing = [index for index in known if index not in set(in_conflict)]
    if not in_conflict:
        return {}
    return {name: part for name, part in ((AGREE, agreeing), (CONFLICT, in_conflict)) if part}


def _groups_table(rows: Sequence[Graded], *, are_classes: bool) -> tuple[np.ndarray, list[str]]:
    """Returns hits [N, C] and their names: NaN where a row is not in the column's group."""
    hits = np.array([row.said == row.answer for row in rows], dtype=float)
    columns: dict[str, np.ndarray] = {ACCURACY: hits}
    if are_classes:
        recalls, classes = _recall_table(rows)
        columns |= {f"emotion: {name}": recalls[:, index] for index, name in enumerate(classes)}
    for kind in dict.fromkeys(kind for row in rows for kind in row.groups):
        for value, indices in sorted(parts(rows, kind).items()):
            columns[f"{kind}: {value}"] = _only(hits, indices)
    for name, indices in conflict_parts(rows).items():
        columns[name] = _only(hits, indices)
        if name == CONFLICT:
            follows = np.array([row.said is not None and row.said == row.words for row in rows], dtype=float)
            columns[FOLLOWS_WORDS] = _only(follows, indices)
    return np.column_stack(list(columns.values())), list(columns)


def _only(values: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    column = np.full(len(values), np.nan)
    column[indices] = values[indices]
    return column


def _recall_table(rows: Sequence[Graded]) -> tuple[np.ndarray, list[str]]:
    """Returns hits [N, E], NaN but in the column of the true class, and the classes that occur."""
    classes = sorted({row.answer for row in rows})
    table = np.full((len(rows), len(classes)), np.nan)
    for index, row in enumerate(rows):
        table[index, classes.index(row.answer)] = row.said == row.answer
    return table, classes


def _f1_of(rows: Sequence[Graded]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from how often each row is drawn, [R, N], to macro F1 over the classes drawn,
    [R]."""
    classes = sorted({row.answer for row in rows})
    truth = np.array([[row.answer == name for name in classes] for row in rows], dtype=float)  # [N, E]
    said = np.array([[row.said == name for name in classes] for row in rows], dtype=float)

    def f1(counts: np.ndarray) -> np.ndarray:
        right, true, claimed = counts @ (truth * said), counts @ truth, counts @ said
        of_class = 2 * right / np.maximum(true + claimed, 1)
        return np.nanmean(np.where(true > 0, of_class, np.nan), axis=1)

    return f1


def _interval(
    value_of: Callable[[np.ndarray], np.ndarray], rows: Sequence[Graded], seed: int, num_resamples: int
) -> Estimate:
    resampled = np.concatenate([value_of(counts) for counts in draws(len(rows), seed, num_resamples)])
    low, high = np.percentile(resampled, [2.5, 97.5])
    value = float(value_of(np.ones((1, len(rows))))[0])
    return Estimate(value=value, low=float(low), high=float(high), num=len(rows))
