"""A trained detector may tell where somebody speaks; the extra `vad` is in both locks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile
from spoken import RATE, in_pauses, speech

from emotion_task.prosody.activity import find_activity
from emotion_task.prosody.files import MeasureConfig, build_plugins, measure_file
from emotion_task.prosody.vad import SileroVad, heard_speech
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

SILERO = "emotion_task.prosody.vad:SileroVad"


def test_what_a_detector_hears_is_the_speech_and_the_rest_is_noise():
    rng = np.random.default_rng(0)
    samples = np.pad(0.1 * rng.normal(size=RATE), RATE) + 0.01 * rng.normal(size=3 * RATE)
    spoken = np.zeros(300, dtype=bool)
    spoken[100:200] = True
    found = find_activity(samples, RATE, spoken)
    assert found is not None and np.array_equal(found.active, spoken)
    assert found.level_dbfs == pytest.approx(-20, abs=0.1)
    assert found.noise_floor_dbfs == pytest.approx(-40, abs=0.2)
    spoken[150:] = False  # what it does not hear is none, however loud
    assert find_activity(samples, RATE, spoken).end_s == pytest.approx(1.5)
    assert find_activity(samples, RATE, np.zeros(300, dtype=bool)) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (np.ones(1, dtype=bool), r"bool \(1,\)"),  # would be every frame
        (np.ones(101, dtype=bool), r"bool \(101,\)"),
        (np.full(100, 0.7), r"float64 \(100,\)"),
        ([True] * 100, r"\[True, True"),
        (None, "None"),
    ],
)
def test_a_detector_of_ones_own_says_something_of_every_frame(said: object, told: str) -> None:
    class Mine:
        def speech(self, waveform, sample_rate):
            return said

    with pytest.raises(ConfigError, match=rf"vad: Mine.speech returned {told}.*bool \(100,\), one for each"):
        heard_speech(Mine(), np.zeros(RATE, dtype=np.float32), RATE)


def test_without_its_package_the_detector_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)  # as an import system without it
    with pytest.raises(ConfigError, match="pip install silero-vad"):
        SileroVad()


@pytest.fixture
def silero() -> MeasureConfig:
    pytest.importorskip("silero_vad", reason="the extra `vad` is in requirements/cpu.lock")
    return MeasureConfig(vad=SILERO)


def test_silero_hears_speech_in_noise_and_none_in_noise_alone(silero, tmp_path):
    import torch

    threads = torch.get_num_threads()
    samples = in_pauses(speech(14, level_db=-26, seed=1))
    detector = build_plugins(silero)[2]
    assert torch.get_num_threads() == threads
    noise = 0.005 * np.random.default_rng(0).normal(size=len(samples))
    truth = find_activity(samples, RATE)
    heard = detector.speech((samples + noise).astype(np.float32), RATE)
    assert heard.shape == truth.active.shape and np.mean(heard == truth.active) > 0.9
    assert not detector.speech(noise.astype(np.float32), RATE).any()
    for name, sound in (("speech", samples + noise), ("noise", noise)):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE, subtype="FLOAT")
    row, _ = measure_file(Utterance(id="", audio=str(tmp_path / "speech.wav")), silero)
    assert row["active_s"] == pytest.approx(truth.active_s, rel=0.15) and row["level_reliable"]
    _, reason = measure_file(Utterance(id="", audio=str(tmp_path / "noise.wav")), silero)
    assert reason == "silent: no speech stands out of the background"
