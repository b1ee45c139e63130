"""The voice tools on a recording whose halves are known, as a policy calls them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken import RATE, voice

from emotion_task.facts import reference_of
from emotion_task.records import Utterance
from emotion_task.tools import VoiceTools
from rlcore.environments import Episode
from rlcore.errors import DataError
from rlcore.records.files import write_rows
from rlcore.types import Prompt

UTTERANCE = Utterance(
    id="u",
    audio="u.wav",
    text="low high",
    emotion="sad",
    pitch_level="high",
    speed_level="slow",
    intonation="uncertain",
    measured={"word_times": [["low", 0.3, 1.3], ["high note", 1.3, 2.3]]},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Silence, a second at 120 Hz, a second at 240 Hz and 10 dB louder, silence."""
    silence = np.zeros(int(0.3 * RATE))
    samples = np.concatenate([silence, 0.03 * voice(120, 1), 0.03 * 10**0.5 * voice(240, 1), silence])
    soundfile.write(tmp_path / "u.wav", samples, RATE, subtype="FLOAT")
    write_rows(
        tmp_path / "manifest.jsonl",
        [{"id": "u", "audio": "u.wav", "text": "low high", "measured": UTTERANCE.measured}],
    )
    return tmp_path


def ask(folder: Path, call: str, *, manifest: bool = True, utterance: Utterance = UTTERANCE) -> str:
    media = {"audio": str(folder / utterance.audio)}
    prompt = Prompt(id="u", text="", media=media, reference=reference_of(utterance))
    tools = VoiceTools(str(folder / "manifest.jsonl") if manifest else None)
    text = tools.step(Episode(prompt=prompt, turns=(f"<think><tool>{call}</tool>",), observations=()))
    return text.removeprefix("<result>").removesuffix("</result>")


def test_a_whole_utterance_has_the_manifests_levels(folder: Path) -> None:
    calls = ("pitch", "energy", "rate", "intonation", "transcribe")
    assert [ask(folder, call) for call in calls] == ["high", "unknown", "slow", "unknown", "low high"]
    assert ask(folder, "transcribe", utterance=replace(UTTERANCE, text=None)) == "error: no transcript"


def test_a_place_is_measured_anew(folder: Path) -> None:
    numbers = {}
    for call in ("pitch 0.4 1.2", "pitch low", "pitch 1.4 2.2", "pitch HIGH"):
        hertz, semitones = re.fullmatch(
            r"(\d+) Hz, (\d+) st (?:above|below) the whole", ask(folder, call)
        ).groups()
        numbers[call] = int(hertz), int(semitones)
    assert all(abs(numbers[call][0] - 120) <= 2 for call in ("pitch 0.4 1.2", "pitch low"))
    assert all(abs(numbers[call][0] - 240) <= 4 for call in ("pitch 1.4 2.2", "pitch HIGH"))
    quiet, loud = ask(folder, "energy 0.4 1.2"), ask(folder, "energy 1.4 2.2")
    assert quiet.endswith(" dB below the whole") and loud.endswith(" dB above the whole")
    assert int(quiet.split()[0]) + int(loud.split()[0]) in (9, 10, 11)
    assert ask(folder, "pitch 0 0.2") == "none"
    heard = ask(folder, "listen note")
    assert re.fullmatch(r"pitch \d+ Hz, .*, energy \d dB above.*, rate \d+\.\d syllables per second", heard)


@pytest.mark.parametrize(
    ("call", "manifest", "expected"),
    [
        ("pitch never", True, "error: no such word"),
        ("pitch low", False, "error: no word has a time; give seconds"),
        ("energy 1 x", True, "error: a place is a word, or two numbers of seconds"),
        ("energy 2 1", True, "error: seconds go from 0 to 2.60"),
        ("energy -1 1", True, "error: seconds go from 0 to 2.60"),
        ("energy 0 inf", True, "error: seconds go from 0 to 2.60"),
        ("energy nan nan", True, "error: seconds go from 0 to 2.60"),
        ("rate 0 9", True, "error: seconds go from 0 to 2.60"),
        ("listen", True, "error: listen takes start [end]"),
    ],
)
def test_a_call_without_sense_is_answered(folder: Path, call: str, manifest: bool, expected: str) -> None:
    assert ask(folder, call, manifest=manifest) == expected


def test_a_recording_that_cannot_be_read_is_the_tools_failure(folder: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav"):
        ask(folder, "pitch 0 1", utterance=replace(UTTERANCE, audio="gone.wav"))
