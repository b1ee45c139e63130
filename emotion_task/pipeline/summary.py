"""The end of the line as files: summary.json, report.md and the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_task.config import PipelineConfig
from emotion_task.evaluation.metrics import confusion, predicted_labels
from emotion_task.evaluation.plots import plot_confusion
from emotion_task.evaluation.reference import ReferenceResult
from emotion_task.evaluation.table import Row, markdown_table
from emotion_task.labels import labels_among
from emotion_task.perception.emotions import read_answers, recall_report, recall_section
from emotion_task.pipeline.results import Annotated, Metrics, Perceived, References, Reinforced
from emotion_task.pipeline.stages import Stages
from emotion_task.pipeline.workspace import Workspace
from rlcore.records.tracking import merge_summary
from rlcore.records.versions import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalReport:
    """The numbers of a finished line, as files and for a terminal."""

    title: str
    rows: list[Row]
    """Rows of the final table."""
    perception_gain: dict[str, float] | None
    """The `value`, `low` and `high` of SFT's gain in the perception test; None without a test."""
    summary: Path
    report: Path
    rl_dir: Path
    """Folder of the reinforcement learning."""
    model: str
    """The final policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Results of a finished line, as far as the summary tells them."""

    config: PipelineConfig
    seconds: Mapping[str, float]
    """Seconds by stage."""
    annotated: Annotated
    references: References
    perceived: Perceived
    rl: Reinforced
    full_label: dict[str, float]
    """Metrics of SFT with every label; empty where there was none."""
    num_answered: int
    """Held-out utterances that the models answered; the classifiers are scored on all."""

    @classmethod
    def of(cls, config: PipelineConfig, stages: Stages, num_answered: int) -> Finished:
        """Collects the results of the stages that were run."""
        return cls(
            config=config,
            seconds=stages.seconds,
            annotated=stages.result("annotate", Annotated),
            references=stages.result("reference", References),
            perceived=stages.result("perception", Perceived),
            rl=stages.result("rl", Reinforced),
            full_label=stages.result("full_label_sft", Metrics).metrics,
            num_answered=num_answered,
        )


def _reference(line: Finished) -> dict[str, float | None]:
    references = line.references
    return {
        "classifier": references.classifier.accuracy,
        "classifier_unweighted": references.classifier.unweighted_accuracy,
        "egemaps_unweighted": references.egemaps.unweighted_accuracy if references.egemaps else None,
        "majority": references.classifier.majority,
        "full_label_sft": line.full_label.get("accuracy"),
    }


SUMMARY: dict[str, Callable[[Finished], object]] = {
    "sft": lambda line: line.rl.before,
    "rl": lambda line: line.rl.after,
    "gain": lambda line: line.rl.after["accuracy"] - line.rl.before["accuracy"],
    "reference": _reference,
    "perception_gain": lambda line: line.perceived.mean_gain,
    "label_fraction": lambda line: line.config.sft.label_fraction,
    "quarantined": lambda line: line.annotated.num_quarantined,
    "logprob_max_diff": lambda line: line.rl.summary["logprob_max_diff"],
    "seconds": lambda line: {**line.seconds, "total": round(sum(line.seconds.values()), 1)},
    "seed": lambda line: line.config.seed,
    "versions": lambda line: versions(),
    "model": lambda line: line.rl.model,
}
"""Keys of summary.json, and how each is computed from a finished line."""


ROWS: tuple[Callable[[Finished], Row | None], ...] = (
    lambda line: Row(
        "prosody SFT", line.rl.before, note=f"emotion labels of {line.config.sft.label_fraction:.0%}"
    ),
    lambda line: Row("GRPO-PTR", line.rl.after, note="outcome reward on all"),
    lambda line: Row("SFT, every label", line.full_label, reference=True) if line.full_label else None,
    lambda line: _classifier("prosody classifier", line.references.classifier, line.num_answered),
    lambda line: _classifier("eGeMAPS, logistic regression", line.references.egemaps, line.num_answered),
    lambda line: _majority(line.references.classifier, line.num_answered),
)
"""Rows of the final table in their order, made from a finished line; None where it has no such row."""


def write_summary(work: Workspace, stages: Stages) -> FinalReport:
    """Writes `run_dir/summary.json`, `report.md` and the confusion matrices, and returns what they hold.

    Args:
        stages: all stages of the line, finished.
    """
    rl_dir = Path(stages.result("rl", Reinforced).model).parent
    confusions, labels = confusions_of(rl_dir)
    line = Finished.of(work.config, stages, num_answered=int(confusions["rl"].sum()))
    rows = [row for make in ROWS if (row := make(line)) is not None]
    title = f"Held-out speakers, {line.num_answered} utterances, greedy answers"
    merge_summary(work.run_dir / "summary.json", {key: value(line) for key, value in SUMMARY.items()})
    recall = recall_section(recall_report([rl_dir / "samples.jsonl"], seed=work.config.seed))
    write_report(work.run_dir / "report.md", rows, title, confusions, labels, sections=[recall])
    return FinalReport(
        title=title,
        rows=rows,
        perception_gain=line.perceived.mean_gain,
        summary=work.run_dir / "summary.json",
        report=work.run_dir / "report.md",
        rl_dir=rl_dir,
        model=line.rl.model,
    )


def confusions_of(rl_dir: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Counts the confusions of the greedy answers before and after, read back from samples.jsonl.

    Returns:
        `sft` and `rl` to counts [L, L + 1], and the L labels of their rows.
    """
    answers = read_answers(rl_dir / "samples.jsonl")
    labels = labels_among(emotion for each in answers for emotion in each.truth.values())
    counts = {}
    for name, each in zip(("sft", "rl"), answers, strict=True):
        predicted = predicted_labels([each.texts[prompt] for prompt in each.truth], labels)
        counts[name] = confusion(list(each.truth.values()), predicted, labels)
    return counts, labels


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    title: str,
    confusions: Mapping[str, np.ndarray],
    labels: Sequence[str],
    sections: Sequence[str] = (),
) -> None:
    """Writes report.md, and beside it `confusion_<name>.png` for each entry of `confusions`.

    Args:
        confusions: name to counts [L, L + 1], as of `emotion_task.evaluation.metrics.confusion`.
        labels: the L rows' labels.
        sections: further Markdown, under the table.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", markdown_table(rows), *sections]
    for name, counts in confusions.items():
        image = path.parent / f"confusion_{name}.png"
        plot_confusion(counts, labels, image, title=f"{title}: {name}")
        parts += [f"## Confusion: {name}", f"![Confusion of {name}]({image.name})"]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _classifier(name: str, scores: ReferenceResult | None, num_answered: int) -> Row | None:
    if scores is None:
        return None
    shown = {"accuracy": scores.accuracy, "unweighted_accuracy": scores.unweighted_accuracy}
    return Row(name, shown, reference=True, note=_of(scores, num_answered))


def _majority(scores: ReferenceResult, num_answered: int) -> Row:
    return Row("majority", {"accuracy": scores.majority}, reference=True, note=_of(scores, num_answered))


def _of(scores: ReferenceResult, num_answered: int) -> str:
    """Tells where scores are of other utterances than those that the models answered."""
    return "" if scores.num_eval == num_answered else f"of {scores.num_eval} utterances"
