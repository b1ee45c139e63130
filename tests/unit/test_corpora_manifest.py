from __future__ import annotations

import pytest

from emotion_task.corpora import load_corpus
from rlcore.errors import ConfigError, DataError


def test_csv_and_jsonl_say_the_same(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "audio,text,emotion,speaker,gender,split\na/1.wav,Hello there,happy,anna,female,train\na/2.wav,,,,,\n"
    )
    first, second = load_corpus("manifest", tmp_path, dataset="mine")
    assert (first.id, first.text, first.emotion, first.dataset) == ("a/1", "Hello there", "happy", "mine")
    assert first.audio == str(tmp_path / "a" / "1.wav")
    assert (second.text, second.emotion, second.split, second.gender) == (None, None, None, None)
    (tmp_path / "list.jsonl").write_text(
        '{"id": "a/1", "audio": "a/1.wav", "text": "Hello there", "emotion": "happy", "speaker": "anna",'
        ' "gender": "female", "split": "train", "dataset": "mine"}\n{"id": "a/2", "audio": "a/2.wav"}\n'
    )
    assert load_corpus("manifest", tmp_path, file="list.jsonl", dataset="mine") == [first, second]
    assert load_corpus("manifest", tmp_path / "list.jsonl", dataset="mine") == [first, second]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio,emotoin\n1.wav,happy\n", "emotoin"),
        ("text\nhello\n", "`audio` is required"),
        ("audio,emotion\n1.wav,hapy\n", "hapy.*neutral, happy"),
        ("audio,split\n1.wav,test\n", "'test' is not one of train, eval"),
        ("audio,text\n,hello\n", "manifest.csv:2: no audio path"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_corpus("manifest", tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"manifest.jsonl or manifest.csv"):
        load_corpus("manifest", tmp_path)
    with pytest.raises(ConfigError, match="allowed are manifest, ravdess, synthetic"):
        load_corpus("iemocapp", tmp_path)
    with pytest.raises(ConfigError, match=r"train_speaker'\].*allowed are train_speakers"):
        load_corpus("ravdess", tmp_path, train_speaker=[1])
