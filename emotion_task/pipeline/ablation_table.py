"""The ablation table: a row a variant, a column one entry of `COLUMNS`. Knows no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from emotion_task.evaluation.bootstrap import MEAN, Estimate, estimate, estimate_gain
from emotion_task.evaluation.plots import plot_ablation
from emotion_task.perception.emotions import read_answers, recall_scores
from rlcore.records.files import write_json
from rlcore.records.markdown import table_row

TRAINED = {
    "v2": "GRPO, rule rewards only (V2)",
    "v3": "reward model untrained (V3)",
    "v4": "no trust weight (V4)",
    "v5": "no progressive schedule (V5)",
    "v6": "GRPO-PTR (V6)",
}
"""Variants that are trained by reinforcement learning, by their file in configs/ablations."""
VARIANTS = {"base": "base model", "sft": "prosody SFT", **TRAINED}
"""All variants and what the table calls them, in the order of its rows."""
_MAX_GRADE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Greedy answers of one model, and what its training took."""

    variant: str
    seed: int | None
    """Seed of reinforcement learning; None where the variant has none."""
    metrics: dict[str, float]
    """Held-out metrics by name."""
    samples: str
    """Path of the samples.jsonl that holds the answers."""
    cpu_hours: float = 0.0
    """Hours of reinforcement learning by the clock, times the cores of its Ray cluster."""
    tokens: int = 0
    """Completion tokens that were sampled in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A row of the table is one variant with all its seeds."""

    answered: Sequence[Answered]
    sft: Sequence[Answered]
    """The SFT model's answers, to compare with; empty where it was not asked."""
    seed: int
    """Seed of the bootstrap."""

    @property
    def name(self) -> str:
        """Name of the variant in the table."""
        return VARIANTS[self.answered[0].variant]

    def mean(self, metric: str) -> float | None:
        """Returns a metric's mean over the seeds that have it; None where none has."""
        values = [each.metrics[metric] for each in self.answered if metric in each.metrics]
        return float(np.mean(values)) if values else None


Value = float | dict[str, float] | None
"""A number, an estimate (`value`, `low`, `high`, `num`) of a share, or None for nothing to tell."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table shows one value of every variant."""

    title: str
    """Head of the column in ablation.md."""
    key: str
    """Key of the value in ablation.json."""
    form: str
    """Format specification of the value; of an estimate, in per cent."""
    value: Callable[[Group], Value]

    def cell(self, value: Value) -> str:
        """Returns the value as text: a dash for None, an estimate with its interval."""
        if value is None:
            return "-"
        if not isinstance(value, Mapping):
            return format(value, self.form)
        middle, low, high = (format(100 * value[name], self.form) for name in ("value", "low", "high"))
        return f"{middle} [{low}, {high}]"


def _over_sft(group: Group) -> Value:
    if not group.sft or group.answered[0].variant not in TRAINED:
        return None
    return asdict(accuracy_gain(group.sft, group.answered, seed=group.seed))


def _reasoning(group: Group) -> Value:
    reward = group.mean("reward/reasoning")
    return None if reward is None else _MAX_GRADE * reward


def _accuracy(group: Group) -> Value:
    return asdict(unweighted_accuracy(group.answered, seed=group.seed))


COLUMNS: tuple[Column, ...] = (
    Column("seeds", "num_seeds", "d", lambda group: len(group.answered)),
    Column("UA", "unweighted_accuracy", ".1f", _accuracy),
    Column("over SFT", "over_sft", "+.1f", _over_sft),
    Column("accuracy", "accuracy", ".3f", lambda group: group.mean("accuracy")),
    Column("format", "format", ".3f", lambda group: group.mean("format_rate")),
    Column("reasoning", "reasoning", ".2f", _reasoning),
    Column("claims right", "claims_right", ".3f", lambda group: group.mean("faithfulness/precision")),
    Column(
        "CPU hours", "cpu_hours", ".2f", lambda group: float(np.mean([a.cpu_hours for a in group.answered]))
    ),
    Column("tokens", "tokens", ",.0f", lambda group: float(np.mean([a.tokens for a in group.answered]))),
)
"""The table's columns in their order, after the variant's name."""


def unweighted_accuracy(answered: Sequence[Answered], *, seed: int = 0) -> Estimate:
    """Estimates the unweighted accuracy, the mean over seeds, with its 95 % bootstrap interval over
    utterances: the same ones are drawn for all seeds."""
    answers = [read_answers(each.samples)[1] for each in answered]
    emotions, tables = recall_scores(answers)
    return estimate(np.mean(tables, axis=0), emotions, seed=seed)[MEAN]


def accuracy_gain(before: Sequence[Answered], after: Sequence[Answered], *, seed: int = 0) -> Estimate:
    """Estimates the unweighted accuracy of `after` less that of `before`, paired over the utterances that
    all answered."""
    answers = [read_answers(each.samples)[1] for each in (*before, *after)]
    emotions, tables = recall_scores(answers)
    first, second = (np.mean(part, axis=0) for part in (tables[: len(before)], tables[len(before) :]))
    return estimate_gain(first, second, emotions, seed=seed)[MEAN]


def write_table(answered: Sequence[Answered], folder: Path, *, seed: int) -> Path:
    """Writes ablation.json, ablation.md and ablation.png, a row a variant, and returns the second."""
    by_variant = {name: [a for a in answered if a.variant == name] for name in VARIANTS}
    groups = {
        name: Group(answered=group, sft=by_variant["sft"], seed=seed)
        for name, group in by_variant.items()
        if group
    }
    values = {name: {c.key: c.value(group) for c in COLUMNS} for name, group in groups.items()}
    rows = {name: {"name": group.name, **values[name]} for name, group in groups.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ablation.json", {"rows": rows, "runs": [asdict(each) for each in answered]})
    plot_ablation({group.name: rows[name] for name, group in groups.items()}, folder / "ablation.png")
    lines = [
        "# Ablations of GRPO-PTR",
        "",
        "Greedy answers to the held-out prompts; UA: unweighted accuracy in per cent, in brackets its 95 % "
        "bootstrap interval over utterances (the mean over seeds is resampled). Over SFT: its difference "
        "from the SFT model's, in points, paired over utterances. Reasoning: the trained reward model's "
        "grade, 1 to 5. Claims right: share of checked claims that are facts. Cost: of reinforcement "
        "learning, a seed.",
        "",
        table_row(["", *(column.title for column in COLUMNS)]),
        "| --- |" + " ---: |" * len(COLUMNS),
        *(
            table_row([group.name, *(c.cell(values[name][c.key]) for c in COLUMNS)])
            for name, group in groups.items()
        ),
        "",
        "![Unweighted accuracy and grades](ablation.png)",
        "",
    ]
    path = folder / "ablation.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
