"""The claim finder on passages written before it was run on them (docs/explanation/faithfulness.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emotion_task.claims.labelled import Passage, read_labelled, score_finder
from emotion_task.cot.template import all_phrases
from emotion_task.facts import VALUES
from rlcore.errors import DataError

FILE = Path(__file__).parents[3] / "data" / "claims.jsonl"
FREE = FILE.with_name("claims_free.jsonl")
HELD_OUT = ("held_out_4", "held_out_5")
"""The sets on which nothing was changed after they were first read."""


def test_the_held_out_passages_are_read_as_labelled() -> None:
    rows = [row for row in read_labelled(FILE) if row["split"] in HELD_OUT]
    found = score_finder(rows)["all"]
    assert len(rows) >= 100 and found.num_labelled >= 200
    assert found.precision >= 0.95 and found.recall >= 0.95


@pytest.mark.parametrize(
    ("split", "precision", "recall"),
    [
        ("free_held_out", 0.96, 0.96),
        ("free_fresh", 0.96, 0.96),
        ("free_last", 0.96, 0.96),
        ("free_third", 0.98, 0.98),
        ("free_fourth", 0.98, 0.98),
    ],
)
def test_free_text_is_read_with_its_signs(split: str, precision: float, recall: float) -> None:
    found = score_finder([row for row in read_labelled(FREE) if row["split"] == split])["all"]
    assert found.num_labelled >= 100
    assert found.precision >= precision and found.recall >= recall, found
    assert found.wrong_sign <= 0.01


def test_free_passages_are_in_three_styles_with_denials() -> None:
    passages = read_labelled(FREE)
    held_out = [row for row in passages if row["split"] == "free_held_out"]
    assert len(held_out) >= 60 and len(passages) >= 120
    assert {row["style"] for row in held_out} == {"terse", "prose", "colloquial"}
    assert sum(len(row.get("denied", [])) for row in held_out) >= 20


def test_a_wrong_sign_is_an_opposite_or_what_is_denied() -> None:
    row = Passage(text="The pitch is high.", claims=[["pitch_level", "low"]], split="x")
    assert score_finder([row])["pitch_level"].num_opposed == 1
    denied = Passage(text="The pitch is high.", claims=[], denied=[["pitch_level", "high"]], split="x")
    assert score_finder([denied])["all"].wrong_sign == 1.0
    one_step = Passage(text="The pitch is high.", claims=[["pitch_level", "normal"]], split="x")
    assert score_finder([one_step])["all"].wrong_sign == 0.0


def test_every_claim_type_is_read_as_labelled() -> None:
    for name, found in score_finder(read_labelled(FILE)).items():
        assert found.num_labelled >= 40, name
        assert found.precision >= 0.95 and found.recall >= 0.95, (name, found)


def test_the_labels_are_values_and_the_passages_no_templates() -> None:
    rows = read_labelled(FILE) + read_labelled(FREE)
    assert len({row["text"] for row in rows}) == len(rows) >= 200
    templates = {phrase.strip() for phrase in all_phrases() if phrase.strip().endswith(".")}
    assert not templates & {row["text"] for row in rows}
    for row in rows:
        for name, value in row["claims"]:
            assert value in VALUES.get(name, (value,)), row
            if name in ("quoted_words", "stressed_words"):
                assert value.split()[0] in row["text"].lower().replace("\u2019", "'"), row


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "claims.jsonl"
    path.write_text(json.dumps({"text": "a", "claims": [["colour", "red"]], "split": "x"}))
    with pytest.raises(DataError, match=r"claims.jsonl:1: not a labelled passage.*colour"):
        read_labelled(path)
