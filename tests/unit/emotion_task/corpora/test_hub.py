"""Data sets as the hub keeps them, and lists with columns and labels of their own."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from emotion_task.cli import main
from emotion_task.corpora import load_corpus
from emotion_task.cot.checks import check_trace
from emotion_task.cot.export import export_dataset
from emotion_task.evaluation.metrics import predicted_labels
from emotion_task.facts import reference_of
from emotion_task.labels import labels_among
from emotion_task.prompt import emotion_messages
from emotion_task.records import read_manifest, write_manifest
from emotion_task.rewards.ptr import OutcomeReward
from emotion_task.task import EmotionTask
from rlcore.errors import ConfigError, DataError
from rlcore.types import Completion, Group, Prompt, RewardContext


def put(path: Path, hertz: float = 100.0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(800) / 16000), 16000)
    return path.read_bytes()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shard(path: Path, rows: list[dict], audio: object, label: object, sound_column: str = "audio") -> None:
    """A shard as `Dataset.push_to_hub` writes it, with the features beside the schema."""
    features = datasets.Features({sound_column: audio, "label": label, "sentence": datasets.Value("string")})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema), path)


EMOTIONS = datasets.ClassLabel(names=["Happiness", "ang", "frustrated"])


@pytest.mark.parametrize("sound_column", ["audio", "speech"])
def test_parquet_that_holds_its_recordings(tmp_path, sound_column, caplog):
    caplog.set_level("INFO")
    sounds = [put(tmp_path / "made" / f"{n}.wav", 100.0 * (n + 1)) for n in range(4)]
    flac = tmp_path / "made" / "4.flac"
    soundfile.write(flac, np.zeros(800), 16000)
    root, audio = tmp_path / "hub", datasets.Audio(decode=False)
    rows = [
        {sound_column: {"bytes": sounds[0], "path": None}, "label": 0, "sentence": "One."},
        {sound_column: {"bytes": sounds[1], "path": "a.wav"}, "label": 1, "sentence": "Two."},
        {sound_column: {"bytes": sounds[2], "path": "a.wav"}, "label": -1, "sentence": None},
        {sound_column: {"bytes": flac.read_bytes(), "path": None}, "label": 2, "sentence": "Never."},
    ]
    shard(root / "data" / "train-00000-of-00001.parquet", rows, audio, EMOTIONS, sound_column)
    rows = [{sound_column: {"bytes": sounds[3], "path": "../../x.wav"}, "label": 0, "sentence": "Three."}]
    shard(root / "data" / "test-00000-of-00001.parquet", rows, audio, EMOTIONS, sound_column)
    shard(root / "data" / "validation-00000-of-00001.parquet", rows, audio, EMOTIONS, sound_column)
    with pytest.raises(DataError, match=r"emotion 'ang' is not one of .*map it by labels=\{ang: LABEL\}"):
        load_corpus("manifest", root)
    args = dict(columns={"text": "sentence"}, labels={"ang": "angry", "frustrated": None})
    for _ in range(2):
        found = load_corpus("manifest", root, dataset="hub", **args)
        assert [(u.id, u.emotion, u.text, u.split) for u in found] == [
            ("test-00000-of-00001-000001", "happy", "Three.", "eval"),
            ("train-00000-of-00001-000001", "happy", "One.", "train"),
            ("train-00000-of-00001-000002", "angry", "Two.", "train"),
            ("train-00000-of-00001-000003", None, None, "train"),
            ("validation-00000-of-00001-000001", "happy", "Three.", None),
        ]
        assert [Path(u.audio).read_bytes() for u in found] == [sounds[n] for n in (3, 0, 1, 2, 3)]
        assert all(Path(u.audio).is_relative_to(root / "audio") for u in found)
    assert "left out 1 of 'frustrated'" in caplog.text
    elsewhere = load_corpus("manifest", root, audio_root=str(tmp_path / "elsewhere"), **args)
    assert all(Path(u.audio).is_relative_to(tmp_path / "elsewhere" / "audio") for u in elsewhere)


def test_parquet_with_paths(tmp_path):
    put(tmp_path / "hub" / "clips" / "1.wav")
    rows = [{"audio": "clips/1.wav", "label": "sad", "sentence": "Oh."}]
    text = datasets.Value("string")
    shard(tmp_path / "hub" / "default" / "train" / "0000.parquet", rows, text, text)
    (found,) = load_corpus("manifest", tmp_path / "hub", columns={"text": "sentence"})
    assert (found.id, found.emotion, found.split, found.text) == ("clips/1", "sad", "train", "Oh.")
    assert found.audio == str(tmp_path / "hub" / "clips" / "1.wav")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_audiofolder_with_metadata(tmp_path, suffix):
    text = {
        "csv": "file_name,transcription,emotion\nhappy/1.wav,Hi.,Joy\n2.wav,Oh.,sad\n",
        "jsonl": '{"file_name": "happy/1.wav", "transcription": "Hi.", "emotion": "Joy"}\n'
        '{"file_name": "2.wav", "transcription": "Oh.", "emotion": "sad"}\n',
    }[suffix]
    for split in ("train", "test"):
        write(tmp_path / split / f"metadata.{suffix}", text)
        put(tmp_path / split / "happy" / "1.wav")
        put(tmp_path / split / "2.wav")
    found = load_corpus("manifest", tmp_path, columns={"text": "transcription"})
    assert [(u.id, u.emotion, u.text, u.split) for u in found] == [
        ("test/happy/1", "happy", "Hi.", "eval"),
        ("test/2", "sad", "Oh.", "eval"),
        ("train/happy/1", "happy", "Hi.", "train"),
        ("train/2", "sad", "Oh.", "train"),
    ]
    assert all(Path(u.audio).is_file() for u in found)
    (tmp_path / "test" / f"metadata.{suffix}").write_text(
        "file_name\n../../x.wav\n" if suffix == "csv" else ""
    )
    if suffix == "csv":
        with pytest.raises(DataError, match="leads out of"):
            load_corpus("manifest", tmp_path, columns={"text": "transcription"})


def test_audiofolder_whose_folders_are_the_labels(tmp_path):
    for path in ("train/happy/1.wav", "train/anger/1.flac", "test/sad/9.wav", "test/awe/2.wav"):
        put(tmp_path / path)
    with pytest.raises(DataError, match=r"test/awe/2\.wav: emotion 'awe' is not one of"):
        load_corpus("manifest", tmp_path)
    found = load_corpus("manifest", tmp_path, labels={"awe": None})
    assert {u.id: (u.emotion, u.split) for u in found} == {
        "train/happy/1": ("happy", "train"),
        "train/anger/1": ("angry", "train"),
        "test/sad/9": ("sad", "eval"),
    }
    assert all(Path(u.audio).is_file() for u in found)
    put(tmp_path / "other" / "Actor_01" / "1.wav")
    with pytest.raises(DataError, match="or a data set of the hub"):
        load_corpus("manifest", tmp_path / "other")


def test_other_columns_are_kept_to_the_end(tmp_path):
    put(tmp_path / "1.wav")
    write(tmp_path / "manifest.csv", "path,sentence,emotion,mood,trace,note\n1.wav,Hi.,happy,7,<t>,\n")
    (found,) = load_corpus("manifest", tmp_path, columns={"audio": "path", "text": "sentence"})
    assert (found.text, found.emotion, found.extra) == ("Hi.", "happy", {"mood": "7"})
    write_manifest(tmp_path / "m.jsonl", [found])
    assert read_manifest(tmp_path / "m.jsonl") == [found]
    assert load_corpus("manifest", tmp_path / "m.jsonl") == [found]
    for with_audio in (True, False):
        export_dataset(tmp_path / "m.jsonl", tmp_path / "out", with_audio=with_audio)
        (again,) = load_corpus("manifest", tmp_path / "out", audio_root=None if with_audio else str(tmp_path))
        assert again.extra == {"mood": "7"}


def test_values_that_json_does_not_have(tmp_path):
    row = {"audio": "1.wav", "when": datetime.date(2020, 1, 2), "raw": {"bytes": b"\0", "n": [1, 2]}}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "manifest.parquet")
    (found,) = load_corpus("manifest", tmp_path)
    assert found.extra == {"when": "2020-01-02", "raw": {"n": [1, 2]}}
    write_manifest(tmp_path / "m.jsonl", [found])
    assert read_manifest(tmp_path / "m.jsonl") == [found]


@pytest.mark.parametrize("name", ["", ".", "..", "a/../..", "a\x00b.wav"])
def test_names_that_name_no_recording(tmp_path, name):
    table = pyarrow.Table.from_pylist([{"audio": name}])
    parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    write(tmp_path / "folder" / "metadata.csv", f"file_name,emotion\n{name},sad\n")
    for root in (tmp_path, tmp_path / "folder"):
        with pytest.raises(DataError, match=r"audio|NUL|leads out"):
            load_corpus("manifest", root)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"columns": {"words": "sentence"}}, r"columns: \['words'\] are no fields; fields are id, audio"),
        ({"columns": {"text": "sentense"}}, r"columns: no column \['sentense'\]; the list has \['audio'"),
        ({"columns": "text"}, r"columns: got 'text'; it is a mapping, such as columns=\{text: sentence\}"),
        ({"labels": ["a"]}, r"labels: got \['a'\]; it is a mapping"),
    ],
)
def test_columns_and_labels_that_are_none(tmp_path, args, message):
    write(tmp_path / "manifest.csv", "audio,sentence\n1.wav,Hi.\n")
    with pytest.raises(ConfigError, match=message):
        load_corpus("manifest", tmp_path, **args)


def test_a_misspelt_column_is_no_other_column(tmp_path):
    write(tmp_path / "manifest.csv", "audio,emotions\n1.wav,happy\n")
    with pytest.raises(
        DataError, match=r"column 'emotions' looks like 'emotion'.*columns=\{emotion: emotions\}"
    ):
        load_corpus("manifest", tmp_path)
    (found,) = load_corpus("manifest", tmp_path, columns={"emotion": "emotions"})
    assert (found.emotion, found.extra) == ("happy", None)
    (found,) = load_corpus("manifest", tmp_path, columns={"emotion": None})
    assert (found.emotion, found.extra) == (None, {"emotions": "happy"})


def test_the_command_takes_labels_columns_and_shares(tmp_path, capsys):
    lines = ["audio,sentence,mood,speaker,take"]
    for n in range(10):
        soundfile.write(tmp_path / f"{n}.wav", np.random.default_rng(n).normal(0, 0.1, 8000), 16000)
        lines.append(f"{n}.wav,Hello there,{('cheery', 'sad')[n % 2]},s{n // 2},{n}")
    write(tmp_path / "manifest.csv", "\n".join([*lines, "none.wav,,bored,s0,"]))
    command = ["annotate", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "0"]
    options = "--columns text=sentence emotion=mood --labels cheery=happy bored= --split-by-speaker 0.6/0.4"
    assert main([*command, *options.split()]) == 0
    found = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert Counter(u.split for u in found) == {"train": 6, "eval": 4}
    assert Counter((u.emotion, u.text) for u in found) == {
        ("happy", "Hello there"): 5,
        ("sad", "Hello there"): 5,
    }
    assert {u.extra["take"] for u in found} == set("0123456789")
    assert main([*command, "--labels", "cheery"]) != 0
    assert "--labels: got 'cheery'; it is OTHER=OURS" in capsys.readouterr().err


def test_a_set_of_labels_of_ones_own_from_the_list_to_the_metrics(tmp_path):
    rows = (
        ("1", "Joy", "train"),
        ("2", "mild rage", "train"),
        ("3", "joy", "eval"),
        ("4", "mild rage", "eval"),
    )
    lines = [f"{id}.wav,{emotion},{split}" for id, emotion, split in rows]
    write(tmp_path / "manifest.csv", "\n".join(["audio,emotion,split", *lines]))
    emotions = ["mild rage", "joy"]
    found = load_corpus("manifest", tmp_path, emotions=emotions)
    assert [u.emotion for u in found] == ["joy", "mild rage", "joy", "mild rage"]
    with pytest.raises(DataError, match=r"emotion 'mild rage' is not one of neutral"):
        load_corpus("manifest", tmp_path)
    with pytest.raises(DataError, match=r"emotion 'Joy' is not one of mild rage"):
        load_corpus("manifest", tmp_path, emotions=["mild rage"])
    for wrong in ([], "joy", ["Joy"], ["joy", "joy"], [3]):
        with pytest.raises(ConfigError, match=r"^emotions: "):
            load_corpus("manifest", tmp_path, emotions=wrong)

    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, found)
    with pytest.raises(DataError, match=r"\['joy', 'mild rage'\] are not labels; .* task.args.labels names"):
        EmotionTask(str(manifest), "unused")
    task = EmotionTask(str(manifest), "unused", labels=emotions)
    assert task.labels == emotions and len(task.utterances("train")) == 2
    assert labels_among([*emotions, "sad", None]) == ["sad", "joy", "mild rage"]
    assert "mild rage, joy" in str(emotion_messages(task.labels))

    answers = [
        f"<think>It is loud.</think><answer>{text}</answer>" for text in ("Mild rage!", "joy", "angry")
    ]
    rage = next(u for u in found if u.emotion == "mild rage")
    kinds = [[f.partition(":")[0] for f in check_trace(a, rage, min_words=1, max_words=9)] for a in answers]
    assert ["label" in of_answer for of_answer in kinds] == [False, True, True]
    early = "<think>Mild rage it is.</think><answer>mild rage</answer>"
    assert "opening: the first sentence names mild rage" in check_trace(early, rage, min_words=1, max_words=9)
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in answers
    )
    prompt = Prompt(id="p", text="", reference=reference_of(rage))
    of_rage = Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)
    scores = OutcomeReward().score(of_rage, RewardContext())
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert predicted_labels(answers, emotions) == ["mild rage", "joy", None]
