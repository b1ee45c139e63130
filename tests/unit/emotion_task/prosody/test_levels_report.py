"""The calibration report: the numbers it shows, and what it warns of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emotion_task.prosody.calibrate import apply_calibration, calibrate
from emotion_task.prosody.levels_report import write_report
from emotion_task.records import Utterance


def corpus(count: int = 60, pitch_step_hz: float = 1.0, reliable: bool = True) -> list[Utterance]:
    return [
        Utterance(
            id=str(i),
            audio="x.wav",
            gender="female",
            split="train",
            intonation="falling" if i % 3 else None,
            measured={
                "f0_median_hz": 200 + pitch_step_hz * i,
                "level_dbfs": -40 + i / 2,
                "articulation_rate": 3 + i / 60,
                "syllables_from": "text",
                "f0_reliable": True,
                "level_reliable": reliable or i % 2 == 0,
                "rate_reliable": True,
            },
        )
        for i in range(count)
    ]


def report(folder, utterances, reasons=None):
    calibration = calibrate(utterances)
    annotated = [apply_calibration(calibration, utterance) for utterance in utterances]
    return write_report(folder, calibration, annotated, reasons or {})


def test_numbers_are_those_of_the_corpus(tmp_path):
    written = report(tmp_path, corpus(), {"silent": 2})
    assert written == json.loads((tmp_path / "calibration_report.json").read_text())
    pitch = written["distributions"]["pitch"]["manifest/female"]
    assert pitch["count"] == 60 and pitch["p50"] == pytest.approx(np.median(200 + np.arange(60)))
    assert written["levels"]["energy"]["train"] == pytest.approx(
        {"low": 1 / 3, "normal": 1 / 3, "high": 1 / 3, "null": 0}
    )
    assert written["intonation"] == {"falling": 40, "null": 20}
    assert written["warnings"] == []
    text = (tmp_path / "calibration.md").read_text()
    assert "60 utterances; quarantined: 2 silent." in text
    assert "| pitch (Hz) | manifest/female | 60 |" in text and "| 229.5 |" in text
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_unreliable_enters_no_cut_point_and_is_warned_of(tmp_path):
    written = report(tmp_path, corpus(reliable=False))
    assert written["distributions"]["energy"]["manifest"]["count"] == 30
    assert written["levels"]["energy"]["train"]["null"] == pytest.approx(0.5)
    assert any(w.startswith("energy: 50% of the utterances") for w in written["warnings"])


def test_cut_points_that_nobody_hears_apart_are_warned_of(tmp_path):
    written = report(tmp_path, corpus(pitch_step_hz=0.1))
    (warning,) = written["warnings"]
    assert "pitch of manifest/female: cut points only 0.2 semitones apart" in warning


def test_a_corpus_without_levels_still_has_a_report(tmp_path):
    written = report(tmp_path, corpus(5))
    assert len(written["warnings"]) == 3 and "only 5 utterances" in written["warnings"][0]
    assert "| - | - |" in (tmp_path / "calibration.md").read_text()
