from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.labels import ALL_LABELS, LABELS_FILE, check_set, labels_beside
from emotion_task.parsing import (
    Parsed,
    around_emotion,
    format_response,
    named_emotions,
    normalise_label,
    parse_response,
)
from rlcore.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>low pitch</think><answer>sad</answer>", Parsed("low pitch", "sad")),
        (" <think> a\nb </think>\n<answer> Sad. </answer>\n", Parsed("a\nb", "Sad.")),
        ("<think>a < b</think><answer>sad</answer>", Parsed("a < b", "sad")),
    ],
)
def test_the_schema_is_read(text: str, expected: Parsed) -> None:
    assert parse_response(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sad",
        "<think>a</think>",
        "<answer>sad</answer>",
        "<think></think><answer>sad</answer>",
        "<think> </think><answer>sad</answer>",
        "<think>a</think><answer> </answer>",
        "so <think>a</think><answer>sad</answer>",
        "<think>a</think> so <answer>sad</answer>",
        "<think>a</think><answer>sad</answer> really",
        "<think>a</think><answer>sad</answer><answer>happy</answer>",
        "<think>a</think><think>b</think><answer>sad</answer>",
        "<think>a<answer>sad</answer></think><answer>sad</answer>",
        "<answer>sad</answer><think>a</think>",
        "<think>a</think><answer>sad",
        "<THINK>a</THINK><ANSWER>sad</ANSWER>",
    ],
)
def test_anything_else_is_no_response(text: str) -> None:
    assert parse_response(text) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sad", "sad"),
        (" Sad.\n", "sad"),
        ("ANGER", "angry"),
        ("contempt or disgust", "disgust"),
        ("contempt/disgust", None),
        ("Contempt", "disgust"),
        ("whispering", "whisper"),
        ("surprised!", "surprise"),
        ("fearful", "fear"),
        ("not sad", None),
        ("sad, angry", None),
        ("", None),
        ("bored", None),
    ],
)
def test_a_label_is_read_whatever_its_dress(text: str, label: str | None) -> None:
    assert normalise_label(text) == label


def test_a_label_outside_the_options_is_none() -> None:
    assert normalise_label("calm", ("happy", "sad")) is None
    assert [normalise_label(label) for label in ALL_LABELS] == list(ALL_LABELS)


def test_emotions_are_named_in_order_and_not_in_quotes() -> None:
    assert named_emotions('She says "I am so happy" but sounds sad, even angry.') == ["sad", "angry"]
    for quoted in ("\u201cso glad you came\u201d", "'so glad you\u2019re here'"):
        assert named_emotions(f"The words are {quoted}. That sounds sad.") == ["sad"]
    assert named_emotions("An unhappy, furious voice; contempt or disgust.") == ["sad", "angry", "disgust"]
    assert named_emotions("Nothing is said of it.") == []


def test_format_and_parse_are_inverse() -> None:
    assert parse_response(format_response("low pitch", "sad")) == Parsed("low pitch", "sad")


def test_labels_of_ones_own_are_found_in_free_text() -> None:
    labels = ("mild joy", "joy", "sarcasm")
    text = 'Mild joy, not joy; he says "sarcasm" happily, or sadly: sarcasm, never sadness.'
    assert named_emotions(text, labels) == ["mild joy", "joy", "sarcasm", "sad"]
    assert named_emotions(text) == ["happy", "happy", "sad"]
    assert around_emotion("So it is Mild Joy, I think.", labels) == ("So it is", ", I think.")
    assert around_emotion('He says "sarcasm", sarcasm.', labels) is None
    assert around_emotion("Nothing is said of it.", labels) is None


@pytest.mark.parametrize("labels", [5, True, {"joy": 1}, "joy", [], ["joy", "joy"], ["joy", 7], [None]])
def test_what_is_no_set_of_labels_is_refused(labels: object) -> None:
    with pytest.raises(ConfigError, match=r"labels: got .*; it is a list of different labels"):
        check_set(labels, "labels")


def test_labels_lie_beside_a_model(tmp_path: Path) -> None:
    assert labels_beside(tmp_path) is None and labels_beside("owner/model") is None
    for content, error in (('{"sad": 1}', ConfigError), ('["Sad"]', ConfigError), ("[", DataError)):
        (tmp_path / LABELS_FILE).write_text(content, encoding="utf-8")
        with pytest.raises(error, match=LABELS_FILE):
            labels_beside(tmp_path)
    (tmp_path / LABELS_FILE).write_text('["sad", "mild joy"]', encoding="utf-8")
    assert labels_beside(tmp_path) == ["sad", "mild joy"]
