from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion_task.corpora import load_corpus
from emotion_task.corpora.ravdess import load_ravdess
from rlcore.errors import ConfigError, DataError


def put(folder: Path, name: str, rate: int = 48000, channels: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(size=(rate // 2, channels)) * 0.1
    soundfile.write(folder / name, noise, rate)


@pytest.fixture
def corpus(tmp_path):
    nested = tmp_path / "Audio_Speech_Actors_01-24"
    put(nested / "Actor_01", "03-01-06-02-01-01-01.wav")
    put(nested / "Actor_01", "03-01-02-01-02-01-01.wav", channels=1)
    put(nested / "Actor_14", "03-01-08-01-02-01-14.flac", rate=16000)
    put(nested / "Actor_20", "03-01-08-01-02-01-20.wav")  # in neither split
    put(nested / "Actor_01", "03-02-06-02-01-01-01.wav")  # song
    (nested / "Actor_01" / "02-01-06-02-01-01-01.mp4").write_bytes(b"video")
    (nested / "Actor_01" / "._03-01-06-02-01-01-01.wav").write_bytes(b"a Mac's shadow of it")
    return tmp_path


def test_names_tell_everything(corpus, caplog):
    caplog.set_level("INFO")
    calm, fear, surprise = load_ravdess(corpus)
    assert (calm.emotion, calm.text, calm.gender, calm.split) == (
        "calm",
        "Dogs are sitting by the door",
        "male",
        "train",
    )
    assert (fear.emotion, fear.text, fear.id) == (
        "fear",
        "Kids are talking by the door",
        "ravdess-03-01-06-02-01-01-01",
    )
    assert (surprise.emotion, surprise.gender, surprise.split) == ("surprise", "female", "eval")
    assert surprise.speaker == "ravdess-14" and surprise.dataset == "ravdess"
    assert soundfile.info(fear.audio).channels == 2 and soundfile.info(fear.audio).samplerate == 48000
    assert (
        "1 song" in caplog.text and "1 video" in caplog.text and "1 speaker in neither split" in caplog.text
    )


def test_splits_can_be_chosen(corpus):
    chosen = load_corpus("ravdess", corpus, train_speakers=["14"], eval_speakers=[20])
    assert [(u.speaker, u.split) for u in chosen] == [("ravdess-14", "train"), ("ravdess-20", "eval")]
    with pytest.raises(DataError, match=r"\[14\] are in both"):
        load_ravdess(corpus, train_speakers=[1, 14], eval_speakers=[14])
    with pytest.raises(ConfigError, match=r"got 14 and .*; each is a list"):
        load_corpus("ravdess", corpus, train_speakers=14)


def test_a_wrong_folder_is_told_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"absent: no such folder.*Actor_01"):
        load_ravdess(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no RAVDESS speech.*Actor_01"):
        load_ravdess(tmp_path)


@pytest.mark.skipif("RAVDESS_ROOT" not in os.environ, reason="RAVDESS_ROOT is not set")
def test_the_real_corpus():
    utterances = load_ravdess(os.environ["RAVDESS_ROOT"])
    assert Counter(u.split for u in utterances) == {"train": 720, "eval": 240}
    # 16 speakers x 2 statements x 2 repetitions x 2 intensities; neutral has one intensity
    emotions = Counter(u.emotion for u in utterances)
    assert emotions.pop("neutral") == 64
    assert set(emotions.values()) == {128} and len(emotions) == 7
    assert Counter(u.gender for u in utterances) == {"male": 480, "female": 480}
