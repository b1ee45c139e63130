from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from emotion_task.evaluation.reference import egemaps_classifier, prosody_classifier
from emotion_task.records import Utterance
from rlcore.errors import DataError, MissingDependencyError


def utterances(count: int, distance: float, seed: int) -> list[Utterance]:
    """Two emotions, three to one, whose pitch differs by `distance` standard deviations."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        emotion = "happy" if index % 4 == 0 else "sad"
        measured = {
            "f0_median_hz": 150 + 20 * (rng.normal() + distance * (emotion == "happy")),
            "level_dbfs": rng.normal(),
            "intonation": "flat",  # text is no feature
        }
        if index % 10 == 0:
            del measured["level_dbfs"]
        made.append(Utterance(id=str(index), audio="x", emotion=emotion, gender="male", measured=measured))
    return made


def test_accuracy_follows_the_distance():
    # Balanced error of two unit normals d apart is Phi(-d / 2): 0.16 at 2, none at 8.
    near = prosody_classifier(utterances(1200, 2.0, seed=0), utterances(1200, 2.0, seed=1))
    far = prosody_classifier(utterances(400, 8.0, seed=0), utterances(400, 8.0, seed=1))
    assert far.accuracy > 0.99
    assert 0.80 < near.accuracy < 0.90
    assert near.majority == pytest.approx(0.75)
    assert near.unweighted_accuracy == pytest.approx(np.mean(list(near.recall.values())))
    assert near.recall["sad"] > near.recall["happy"]  # the rare class loses
    assert (near.num_train, near.num_eval) == (1200, 1200)


def test_a_corpus_that_tells_no_gender_is_scored() -> None:
    train, evaluation = ([replace(u, gender=None) for u in utterances(400, 8.0, seed)] for seed in (0, 1))
    assert prosody_classifier(train, evaluation).accuracy > 0.99


def test_without_signal_it_is_no_better_than_the_majority():
    nothing = prosody_classifier(utterances(800, 0.0, seed=0), utterances(800, 0.0, seed=1))
    assert nothing.accuracy < 0.78
    assert nothing.unweighted_accuracy == pytest.approx(0.5, abs=0.06)


def test_unlabelled_or_unmeasured_utterances_are_left_out():
    bare = Utterance(id="bare", audio="x", emotion="happy")
    result = prosody_classifier([*utterances(40, 8.0, seed=0), bare], [*utterances(8, 8.0, seed=1), bare])
    assert (result.num_train, result.num_eval) == (40, 8)
    with pytest.raises(DataError, match=r"0 to train and 0 to evaluate"):
        prosody_classifier([bare], [bare])


def test_egemaps_hears_what_differs(tmp_path):
    """Two voices an octave apart; without openSMILE, what to install."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(24):
        emotion = ("happy", "sad")[index % 2]
        pitch = (240.0, 120.0)[index % 2] * rng.uniform(0.95, 1.05)
        time = np.arange(16000) / 16000
        wave = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 8))
        soundfile.write(tmp_path / f"{index}.wav", 0.1 * wave, 16000)
        made.append(Utterance(id=str(index), audio=str(tmp_path / f"{index}.wav"), emotion=emotion))
    try:
        import opensmile  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match="pip install opensmile"):
            egemaps_classifier(made[:16], made[16:])
    else:
        assert egemaps_classifier(made[:16], made[16:]).unweighted_accuracy == 1.0
