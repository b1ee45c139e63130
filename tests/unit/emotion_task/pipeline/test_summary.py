"""The end of the line as files: a key of the summary, or a row of the table, is one entry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_task.config import PipelineConfig
from emotion_task.evaluation.reference import ReferenceResult
from emotion_task.evaluation.table import Row
from emotion_task.pipeline import summary
from emotion_task.pipeline.results import Annotated, Metrics, Perceived, References, Reinforced, Result
from emotion_task.pipeline.stages import Stage, Stages
from emotion_task.pipeline.summary import confusions_of, write_report, write_summary
from emotion_task.pipeline.workspace import Workspace

SCORES = ReferenceResult(
    accuracy=0.8, unweighted_accuracy=0.7, majority=0.125, num_train=8, num_eval=2, recall={"sad": 0.5}
)


def write_samples(folder: Path) -> Path:
    """Without a step of training, before and after are both step 0: each evaluation is logged twice."""
    rows = [
        {
            "step": 0,
            "split": "eval",
            "prompt": prompt,
            "text": f"<think>A voice.</think><answer>{answer}</answer>",
            "reference": {"emotion": "sad"},
        }
        for prompt, answer in (("a", "sad"), ("b", "happy"))
    ]
    folder.mkdir(exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    return folder


def finished(run_dir: Path, full_label: dict[str, float]) -> tuple[Workspace, Stages]:
    """A line whose stages are finished, as far as its summary is concerned."""
    model = str(write_samples(run_dir / "rl") / "model")
    rl = {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.625}, "model": model, "logprob_max_diff": 0.1}
    results: dict[str, Result] = {
        "annotate": Annotated(num_annotated=9, num_quarantined=1, quarantine_reasons={"silent": 1}),
        "reference": References(classifier=SCORES),
        "perception": Perceived(report={}),
        "rl": Reinforced(summary=rl),
        "full_label_sft": Metrics(metrics=full_label),
    }
    work = Workspace(PipelineConfig(run_dir=str(run_dir)), run_dir, print)
    stages = Stages(run_dir)
    for name, result in results.items():
        stages.run(Stage(name, type(result), 1, lambda _, result=result: result))
    return work, stages


def test_an_evaluation_that_was_logged_twice_counts_once(tmp_path: Path) -> None:
    counts, labels = confusions_of(write_samples(tmp_path))
    assert labels == ["sad"]
    assert counts["sft"].sum() == counts["rl"].sum() == 2


def test_the_summary_of_a_finished_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = write_summary(*finished(tmp_path, full_label={"accuracy": 0.75}))
    assert capsys.readouterr().out == ""
    written = json.loads(report.summary.read_text())
    assert list(written) == [
        *("sft", "rl", "gain", "reference", "perception_gain", "label_fraction", "quarantined"),
        *("logprob_max_diff", "seconds", "seed", "versions", "model"),
    ]
    assert (written["gain"], written["quarantined"], written["perception_gain"]) == (0.125, 1, None)
    assert written["reference"] == {
        "classifier": 0.8,
        "classifier_unweighted": 0.7,
        "egemaps_unweighted": None,
        "majority": 0.125,
        "full_label_sft": 0.75,
    }
    assert [row.name for row in report.rows] == [
        *("prosody SFT", "GRPO-PTR", "SFT, every label", "prosody classifier", "majority"),
    ]
    assert "# Held-out speakers, 2 utterances, greedy answers" in report.report.read_text()


def test_the_title_counts_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `rl.train.max_eval_prompts`, fewer than the classifiers are scored on."""
    work, stages = finished(tmp_path, full_label={})
    monkeypatch.setitem(stages._results, "reference", References(classifier=replace(SCORES, num_eval=600)))
    text = write_summary(work, stages).report.read_text()
    assert "# Held-out speakers, 2 utterances, greedy answers" in text
    assert "| prosody classifier (of 600 utterances) | 0.800" in text
    assert "| majority (of 600 utterances) | 0.125" in text


def test_a_key_and_a_row_are_one_entry_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(summary.SUMMARY, "annotated", lambda line: line.annotated.num_annotated)
    monkeypatch.setattr(
        summary, "ROWS", (*summary.ROWS, lambda line: Row("a guess", {"accuracy": 0.111}, reference=True))
    )
    report = write_summary(*finished(tmp_path, full_label={}))
    assert json.loads(report.summary.read_text())["annotated"] == 9
    assert "| a guess | 0.111 |" in report.report.read_text()
    assert "SFT, every label" not in report.report.read_text()


def test_the_report_holds_table_and_confusion(tmp_path: Path) -> None:
    counts, rows = np.array([[3, 1, 0], [0, 2, 2]]), [Row("base", {"accuracy": 0.1})]
    write_report(tmp_path / "report.md", rows, "quickstart", {"rl": counts}, ("sad", "happy"))
    text = (tmp_path / "report.md").read_text()
    assert "| base | 0.100" in text and "](confusion_rl.png)" in text
    assert (tmp_path / "confusion_rl.png").read_bytes()[:4] == b"\x89PNG"
