"""Reports what models answered as figures: evaluation.json for programs, evaluation.md for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.benchmarks.asking.answers import Answer
from emotion_task.benchmarks.asking.task import BenchmarkTask, QuestionSet
from emotion_task.evaluation.bootstrap import Estimate, plain
from emotion_task.evaluation.intervals import estimates_table
from emotion_task.evaluation.metrics import confusion
from emotion_task.evaluation.scores import (
    ACCURACY,
    MACRO_F1,
    UNWEIGHTED,
    Graded,
    conflict_parts,
    estimates,
    gains,
    parts,
)
from rlcore.records.files import write_json
from rlcore.records.markdown import table_row

_OF_PARTS = (ACCURACY, UNWEIGHTED, MACRO_F1)
COST = {
    "answers": "d",
    "unanswered": "d",
    "prompt tokens": ".1f",
    "answer tokens": ".1f",
    "seconds": ".3f",
    "cut": ".1%",
    "unreadable": ".1%",
}
"""What answers cost and lacked, with the format of each figure."""

Answers = Mapping[str, Answer]
"""Answers of one model to one set, by question."""


def set_report(
    tasks: Mapping[str, BenchmarkTask], question_set: QuestionSet, models: Mapping[str, Answers], *, seed: int
) -> dict[str, Any]:
    """Returns the figures of all models on one set; differences are those to the first model, paired.

    Args:
        tasks: what asked, by the model's name.
        models: answers by the model's name; the first is compared with.
    """
    graded = {
        model: tasks[model].graded(question_set, {id: answer.text for id, answer in answers.items()})
        for model, answers in models.items()
    }
    are_classes, (first, *others) = question_set.benchmark.asks_emotion, list(models)
    report: dict[str, Any] = {
        "data": str(question_set.data),
        "num_questions": len(question_set.questions),
        "num_graded": len(graded[first]),
        "left_out": dict(question_set.left_out),
        "cut_by_window": {model: tasks[model].num_cut(question_set) for model in models},
        "cost": {model: _cost(question_set, models[model], graded[model]) for model in models},
    }
    if not graded[first]:
        return report
    report["scores"] = {m: estimates(rows, are_classes=are_classes, seed=seed) for m, rows in graded.items()}
    report["gains"] = {m: gains(graded[first], graded[m], are_classes=are_classes, seed=seed) for m in others}
    if are_classes:
        classes = sorted({row.answer for row in graded[first]})
        report["classes"] = classes
        report["confusion"] = {
            m: confusion([r.answer for r in rows], [_known(r, classes) for r in rows], classes).tolist()
            for m, rows in graded.items()
        }
        found = {
            **{f"dataset: {n}": p for n, p in parts(graded[first], "dataset").items()},
            **conflict_parts(graded[first]),
        }
        report["parts"] = {
            name: {m: _of_part(rows, indices, seed) for m, rows in graded.items()}
            for name, indices in found.items()
        }
    return report


def _of_part(rows: Sequence[Graded], indices: Sequence[int], seed: int) -> dict[str, Estimate]:
    found = estimates([rows[index] for index in indices], are_classes=True, seed=seed)
    return {name: found[name] for name in _OF_PARTS}


def _known(row: Graded, classes: Sequence[str]) -> str | None:
    """Returns what was said, where it is one of the classes: the confusion's last column has all else."""
    return row.said if row.said in classes else None


def _cost(question_set: QuestionSet, answers: Answers, graded: Sequence[Graded]) -> dict[str, float]:
    given = list(answers.values())
    cost: dict[str, float] = {
        "answers": len(given),
        "unanswered": len(question_set.questions) - len(given),
    }
    if given:
        cost |= {
            "prompt tokens": float(np.mean([answer.num_prompt_tokens for answer in given])),
            "answer tokens": float(np.mean([answer.num_tokens for answer in given])),
            "seconds": float(np.mean([answer.seconds for answer in given])),
            "cut": float(np.mean([answer.was_cut for answer in given])),
        }
    if graded:
        cost["unreadable"] = float(np.mean([row.said is None for row in graded]))
    return cost


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """Writes evaluation.json and evaluation.md."""
    write_json(out / "evaluation.json", plain(report))
    (out / "evaluation.md").write_text(as_markdown(report), encoding="utf-8")


def as_markdown(report: Mapping[str, Any]) -> str:
    """Returns the report for people."""
    settings = report["settings"]
    lines = [
        "# Evaluation",
        "",
        f"Greedy answers, style `{settings['style']}`, at most {settings['max_tokens']} tokens. Figures in "
        "per cent, in brackets the 95 % bootstrap interval over questions; differences are paired. An answer "
        "that is missing or cannot be read is wrong.",
    ]
    for name, of_set in report["sets"].items():
        lines += ["", f"## {name}", "", *_set_section(of_set)]
    return "\n".join([*lines, ""])


def _set_section(of_set: Mapping[str, Any]) -> list[str]:
    left_out = ", ".join(f"{count} {reason}" for reason, count in of_set["left_out"].items()) or "nothing"
    cut = ", ".join(f"{num} ({model})" for model, num in of_set["cut_by_window"].items())
    lines = [
        f"{of_set['num_questions']} questions of `{of_set['data']}`; left out: {left_out}; longer than the "
        f"model's window: {cut}.",
        "",
    ]
    if not of_set["num_graded"]:
        lines += ["The owner keeps the answers: predictions are in `answers/`, for the owner to grade.", ""]
    else:
        first = next(iter(of_set["scores"]))
        lines += [*estimates_table("figure", of_set["scores"]), ""]
        if of_set["gains"]:
            title = f"difference to {first}"
            lines += [*estimates_table(title, of_set["gains"], sign="+"), ""]
        for name, models in of_set.get("parts", {}).items():
            lines += [*estimates_table(name, models), ""]
    return [*lines, *_cost_table(of_set["cost"])]


def _cost_table(cost: Mapping[str, Mapping[str, float]]) -> list[str]:
    shown = [name for name in COST if any(name in of_model for of_model in cost.values())]
    lines = [table_row(["an answer", *shown]), "| --- |" + " ---: |" * len(shown)]
    for model, figures in cost.items():
        cells = [format(figures[name], COST[name]) if name in figures else "-" for name in shown]
        lines.append(table_row([model, *cells]))
    return lines
