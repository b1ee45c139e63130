"""The end of the line: summary.json, the table in the terminal, report.md and the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.config import PipelineConfig
from emotion_task.evaluation.report import Row, print_results, write_report
from emotion_task.perception.emotions import recall_report, recall_section
from rlcore.records.tracking import merge_summary
from rlcore.records.versions import versions


def write_summary(
    run_dir: Path, config: PipelineConfig, results: Mapping[str, dict[str, Any]], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Writes `run_dir/summary.json` and `report.md`, prints the table, and returns the summary.

    Args:
        results: what each stage returned, by its name (see `emotion_task.pipeline.line`).
        seconds: by stage.
    """
    rl, classifier = results["rl"], results["reference"]["classifier"]
    full_label, egemaps = results.get("full_label_sft") or None, results["reference"].get("egemaps")
    heard = results.get("perception") or None
    summary = {
        "sft": rl["before"],
        "rl": rl["after"],
        "gain": rl["after"]["accuracy"] - rl["before"]["accuracy"],
        "reference": {
            "classifier": classifier["accuracy"],
            "classifier_unweighted": classifier["unweighted_accuracy"],
            "egemaps_unweighted": egemaps["unweighted_accuracy"] if egemaps else None,
            "majority": classifier["majority"],
            "full_label_sft": full_label["accuracy"] if full_label else None,
        },
        "perception_gain": heard["gain"]["mean"] if heard else None,
        "label_fraction": config.sft.label_fraction,
        "quarantined": results["annotate"]["num_quarantined"],
        "logprob_max_diff": rl["logprob_max_diff"],
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "seed": config.seed,
        "versions": versions(),
        "model": rl["model"],
    }
    labels = f"emotion labels of {config.sft.label_fraction:.0%}"
    rows = [
        Row("prosody SFT", rl["before"], note=labels),
        Row("GRPO-PTR", rl["after"], note="outcome reward on all"),
    ]
    if full_label:
        rows.append(Row("SFT, every label", full_label, reference=True))
    for name, result in (("prosody classifier", classifier), ("eGeMAPS, logistic regression", egemaps)):
        if result:
            shown = {key: result[key] for key in ("accuracy", "unweighted_accuracy")}
            rows.append(Row(name, shown, reference=True))
    rows.append(Row("majority", {"accuracy": classifier["majority"]}, reference=True))
    title = f"Held-out speakers, {classifier['num_eval']} utterances, greedy answers"
    merge_summary(run_dir / "summary.json", summary)
    confusions, names = _confusions(Path(rl["model"]).parent)
    recall = recall_section(recall_report([Path(rl["model"]).parent / "samples.jsonl"], seed=config.seed))
    write_report(run_dir / "report.md", rows, title, confusions, names, sections=[recall])
    print_results(rows, title)
    if heard:
        value, low, high = (100 * heard["gain"]["mean"][name] for name in ("value", "low", "high"))
        print(f"\nprosody perception, SFT over base: {value:+.1f} points [{low:+.1f}, {high:+.1f}]")
    print(f"\n{run_dir / 'report.md'}\n{run_dir / 'summary.json'}")
    print(f"curves: {Path(rl['model']).parent / 'plots'}")
    print(f"explain a recording: emotion explain AUDIO --model {rl['model']}")
    return summary


def _confusions(rl_dir: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Confusion counts of the greedy answers before and after, read back from samples.jsonl."""
    from emotion_task.evaluation.metrics import confusion, predicted_labels
    from emotion_task.labels import labels_among
    from emotion_task.perception.emotions import read_answers

    answers = read_answers(rl_dir / "samples.jsonl")
    labels = labels_among(emotion for each in answers for emotion in each.truth.values())
    counts = {}
    for name, each in zip(("sft", "rl"), answers, strict=True):
        predicted = predicted_labels([each.texts[prompt] for prompt in each.truth], labels)
        counts[name] = confusion(list(each.truth.values()), predicted, labels)
    return counts, labels
