"""Corpora whose recordings' names tell nearly all, each on a small folder in its owner's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_layouts import LAYOUTS

from emotion_task.corpora import load_corpus
from emotion_task.parsing import parse_response
from emotion_task.records import read_manifest, write_manifest
from rlcore.errors import ConfigError, DataError


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(160)), 16000)


@pytest.fixture(params=LAYOUTS)
def shipped(request, tmp_path) -> tuple[str, Path]:
    layout = LAYOUTS[request.param]
    for recording in layout.recordings:
        put(tmp_path / recording)
    for name, content in layout.texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return request.param, tmp_path


def test_each_layout(shipped, caplog):
    caplog.set_level("INFO")
    name, root = shipped
    layout, found = LAYOUTS[name], {}
    for u in load_corpus(name, root):
        assert (u.dataset, soundfile.info(u.audio).frames) == (name, 160)
        assert u.speaker.startswith(f"{name}-")
        found[u.id.removeprefix(f"{name}-")] = u
    assert set(found) == set(layout.found)
    for id, expected in layout.found.items():
        row = {field: getattr(found[id], field) for field in expected}
        if "speaker" in row:
            row["speaker"] = row["speaker"].removeprefix(f"{name}-")
        assert row == expected
    if name not in ("msp_improv", "cmu_mosei"):  # which go by lists, not by names
        assert f"1 not named as recordings of {name.upper()} are" in caplog.text
    for told in layout.left_out:
        assert told in caplog.text
    if name != "tess":
        assert {u.split for u in found.values()} == {"train", "eval"}
    write_manifest(root / "written.jsonl", found.values())
    assert read_manifest(root / "written.jsonl") == list(found.values())  # `extra` too


def test_a_transcript_of_esd_that_is_no_text_is_named(tmp_path):
    put(tmp_path / "0011/Angry/0011_000351.wav")
    (tmp_path / "0011/0011.txt").write_bytes(b"0011_000351\t\x81\xff\tAngry\n")
    with pytest.raises(DataError, match=r"0011\.txt: text in none of .*Save it as UTF-8"):
        load_corpus("esd", tmp_path)


def test_lists_that_are_not_there(tmp_path):
    for name, missing in (
        ("msp_improv", "no Evalution.txt below it"),
        ("cmu_mosei", "no list of answers in it"),
    ):
        with pytest.raises(DataError, match=missing):
            load_corpus(name, tmp_path)


def test_emotioncot(tmp_path, caplog):
    caplog.set_level("INFO")
    row = (
        '{"audio_path": "IEMOCAP/Ses01F_impro01_M003.wav", "transcription": "I said no.", '
        '"emotion": "Angry", "pitch_level": "high", "energy_level": "insufficient_voiced", '
        '"speed_level": null, "stressed_words": ["no"], "intonation": "rising", "gender": "Male", '
        '"age_level": "Young Adult", "cot_analysis": "The pitch is high."}\n'
    )
    others = '{"audio_path": "EARS/p001/emo_awe.wav", "emotion": "awe"}\n{"audio_path": "d/dia1_utt2.mp4", '
    others += '"emotion": "contempt or disgust", "cot_analysis": ""}\n'
    (tmp_path / "EmotionCoT.jsonl").write_text(row + others)
    first, second = load_corpus("emotioncot", tmp_path, audio_root=str(tmp_path / "sound"))
    assert first.audio == str(tmp_path / "sound/IEMOCAP/Ses01F_impro01_M003.wav")
    assert (first.text, first.emotion, first.speaker, first.dataset) == (
        *("I said no.", "angry", "iemocap-Ses01M", "iemocap"),
    )
    assert (first.pitch_level, first.energy_level, first.speed_level, first.intonation) == (
        *("high", None, None, "rising"),
    )
    assert (first.gender, first.age_level, first.stressed_words) == ("male", "young", ["no"])
    parsed = parse_response(first.trace)
    assert (parsed.think, parsed.answer) == ("The pitch is high.", "angry")
    assert (second.emotion, second.dataset, second.trace, second.split) == ("disgust", "meld", None, None)
    assert "1 awe (a label that is not in the table)" in caplog.text
    assert load_corpus("emotioncot", tmp_path / "EmotionCoT.jsonl")[1].audio == str(
        tmp_path / "d/dia1_utt2.mp4"
    )
    (tmp_path / "EmotionCoT.jsonl").write_text('{"audio_path": "", "emotion": "sad"}\n')
    with pytest.raises(DataError, match=r"EmotionCoT\.jsonl:1: no audio_path"):
        load_corpus("emotioncot", tmp_path)


def test_any_corpus_takes_a_split_by_speaker(tmp_path):
    for speaker in ("f1", "f2", "f3", "m1"):
        put(tmp_path / speaker / f"dis-{speaker}-b1.wav")
    found = load_corpus("emovo", tmp_path, split_by_speaker="0.5/0.5")
    assert sorted(u.split for u in found) == ["eval"] * 2 + ["train"] * 2
    with pytest.raises(ConfigError, match=r"split_by_speaker: got '0.9/0.2'; it is two or three shares"):
        load_corpus("emovo", tmp_path, split_by_speaker="0.9/0.2")
    with pytest.raises(ConfigError, match="does not take"):
        load_corpus("synthetic", tmp_path, split_by_speaker="0.5/0.5")
