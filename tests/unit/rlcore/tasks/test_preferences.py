"""Rows of preferences: the forms that data sets have, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_text

from rlcore.errors import DataError
from rlcore.tasks import Preferences
from rlcore.tasks.preferences import Judged, judged

QUESTION = {"prompt": "what is the emotion?"}
PAIR = {**QUESTION, "chosen": "so angry", "rejected": "high"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_text(tmp_path_factory.mktemp("model") / "text"))


def read(folder: Path, model: str, rows: list[dict[str, Any]], **args: Any) -> list[Judged]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = folder / "held_out.jsonl"
    held_out.write_text(json.dumps(rows[0]) + "\n")
    task = Preferences(str(path), model, eval=str(held_out), **args)
    return [judged(prompt.reference) for prompt in task.prompts("train")]


def test_pairs_and_labels_in_the_forms_of_public_data_sets(tmp_path: Path, model: str) -> None:
    said = [{"role": "assistant", "content": "so angry"}]
    rows = [
        PAIR,
        {**QUESTION, "chosen": said, "rejected": [{"role": "assistant", "content": "high"}]},
        {**QUESTION, "answer": "so angry", "label": True},
        {**QUESTION, "answer": "so angry", "label": "False"},
        {**QUESTION, "answer": said, "label": 0},
        {"messages": [{"role": "user", "content": "what is the emotion?"}, *said], "label": "1"},
    ]
    pair = Judged(answers=("so angry", "high"))
    labels = [Judged(answers=("so angry",), desirable=desirable) for desirable in (True, False, False, True)]
    assert read(tmp_path, model, rows) == [pair, pair, *labels]
    # The prompt in the answers' own conversations, as in data sets with `chosen` and `rejected` alone.
    whole = {name: [{"role": "user", "content": "what?"}, *said] for name in ("chosen", "rejected")}
    whole["rejected"][-1] = {"role": "assistant", "content": "high"}
    assert read(tmp_path, model, [{**whole, "turns": whole["chosen"]}], columns={"messages": "turns"}) == [
        pair
    ]
    renamed = [{**QUESTION, "completion": "so angry", "label": True}]
    assert read(tmp_path, model, renamed, columns={"answer": "completion"}) == [labels[0]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (QUESTION, r"it has neither chosen and rejected nor answer and label; its other columns are \[\]"),
        ({**QUESTION, "chosen": "x"}, "no column 'rejected', or it is empty"),
        ({**QUESTION, "chosen": "", "rejected": "x"}, "no column 'chosen', or it is empty"),
        ({**PAIR, "rejected": "so angry"}, "chosen and rejected are the same: 'so angry'"),
        (
            {**PAIR, "rejected": [{"role": "user", "content": "x"}]},
            "rejected is .* messages that end with the assistant's",
        ),
        ({**PAIR, "rejected": 5}, "rejected is '5'"),
        ({**QUESTION, "answer": "x", "label": "maybe"}, "label is 'maybe'; it must be true"),
        ({**QUESTION, "label": True}, "no column 'answer', or it is empty"),
        (
            {**PAIR, "chosen": "so <|AUDIO|>"},
            r"an answer holds '<\|AUDIO\|>', which the model reads as media",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line_or_put_aside(
    tmp_path: Path, model: str, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=rf"1 bad rows; .*\n  .*rows.jsonl:2: {reason}"):
        read(tmp_path, model, [PAIR, row])
    aside = tmp_path / "bad.jsonl"
    assert read(tmp_path, model, [PAIR, row], quarantine=str(aside)) == [Judged(answers=("so angry", "high"))]
    (bad,) = aside.read_text().splitlines()
    assert json.loads(bad)["where"].endswith("rows.jsonl:2")
