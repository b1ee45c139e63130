from __future__ import annotations

import pytest

from emotion_task.evaluation import table
from emotion_task.evaluation.table import Column, Row, markdown_table, result_table

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


def test_a_column_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COLUMNS", (*table.COLUMNS, Column("recall of sad", "recall/sad", ".0%")))
    rows = [*ROWS, Row("GRPO", {"recall/sad": 0.5})]
    head, _, *lines = markdown_table(rows).splitlines()
    assert head.endswith("| tokens | recall of sad |")
    assert [line.split("|")[-2].strip() for line in lines] == ["-", "-", "50%", "-"]
    assert result_table(rows, "").columns[-1].header == "recall of sad"
