from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from emotion_task.evaluation.report import Row, markdown_table, print_results, write_report

ROWS = [
    Row("base", {"accuracy": 0.1, "format_rate": 0.0, "tokens": 64.0}),
    Row("majority", {"accuracy": 0.125}, reference=True),
    Row("SFT", {"accuracy": 0.4567, "format_rate": 1.0, "tokens": 35.25}, note="labels of 30 %"),
]


def test_models_come_before_references_and_gaps_are_dashes() -> None:
    assert markdown_table(ROWS) == (
        "| | accuracy | format | tokens |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| base | 0.100 | 0.000 | 64.0 |\n"
        "| SFT (labels of 30 %) | 0.457 | 1.000 | 35.2 |\n"
        "| majority | 0.125 | - | - |"
    )


def test_a_narrow_terminal_does_not_fold_the_table() -> None:
    console = Console(width=20, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_results(ROWS, "held-out speakers", console)
    lines = console.export_text().splitlines()
    assert any("SFT (labels of 30 %)" in line and "0.457" in line and "35.2" in line for line in lines)


def test_the_report_holds_table_and_confusion(tmp_path: Path) -> None:
    counts = np.array([[3, 1, 0], [0, 2, 2]])
    write_report(tmp_path / "report.md", ROWS, "quickstart", {"rl": counts}, ("sad", "happy"))
    text = (tmp_path / "report.md").read_text()
    assert "| base | 0.100" in text and "](confusion_rl.png)" in text
    assert (tmp_path / "confusion_rl.png").read_bytes()[:4] == b"\x89PNG"
