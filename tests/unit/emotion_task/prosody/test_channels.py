"""Channels that differ are told, and the one that a row names is measured and heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from emotion_task.audio_window import model_waveform
from emotion_task.corpora.manifest import load_manifest
from emotion_task.prosody.annotation import annotate
from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.files import measure_file
from emotion_task.records import Utterance, read_manifest
from rlcore.errors import DataError

RATE = 16000
TIME = np.arange(2 * RATE) / RATE


def voice(hertz: float, peak: float = 0.3) -> np.ndarray:
    tone = sum(np.sin(2 * np.pi * hertz * k * TIME) / k for k in (1, 2, 3))
    return peak * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * TIME)) / 2


def noise(seed: int, peak: float = 1e-4) -> np.ndarray:
    return peak * np.random.default_rng(seed).standard_normal(len(TIME))


AGENT, CALLER = voice(110), voice(230, 0.06)
DIFFERENT = {
    "in_turns": ([AGENT * (TIME < 1), CALLER * (TIME >= 1)], "hold different sound"),
    "in_turns_as_loud": ([AGENT * (TIME < 1), voice(230) * (TIME >= 1)], "hold different sound"),
    "at_once": ([AGENT, voice(230)], "hold different sound"),
    "crosstalk": ([AGENT, 0.1 * AGENT], "hold different sound"),
    "dead_for_half_the_time": ([AGENT, AGENT * (TIME < 1)], "hold different sound"),
    "dead": ([0 * AGENT, AGENT], "channel 1 of 2 is dead"),
    "dead_with_noise_and_offset": ([AGENT, noise(0) + 0.2], "channel 2 of 2 is dead"),
    "inverted": ([AGENT, -AGENT], "is channel [12] inverted"),
    "nearly_inverted": ([AGENT + noise(0), -0.8 * AGENT + noise(1)], "channel 2 is channel 1 inverted"),
    "centre_of_six": ([*(noise(n) for n in range(5)), AGENT], "channel 1, 2, 3, 4, 5 of 6 is dead"),
}
SAME = {
    "twice": [AGENT, AGENT],
    "panned": [AGENT, 0.7 * AGENT],
    "noisy": [AGENT + noise(0, 0.02), AGENT + noise(1, 0.02)],
    "silent": [0 * AGENT, 0 * AGENT],
}


def write(path: Path, channels: list[np.ndarray], subtype: str = "PCM_16") -> Path:
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype=subtype)
    return path


@pytest.mark.parametrize("name", DIFFERENT)
def test_channels_that_differ_are_put_aside_and_not_heard(tmp_path: Path, name: str) -> None:
    channels, told = DIFFERENT[name]
    path = write(tmp_path / "call.wav", channels)
    measured, reason = measure_file(Utterance(id="call", audio=str(path)))
    assert measured is None and reason is not None and reason.startswith("channels: ")
    with pytest.raises(DataError, match=rf"call\.wav: channels: .*{told}.* Say in .*`channel` \(1 to \d\)"):
        load_audio(path)


@pytest.mark.parametrize("name", SAME)
def test_channels_of_the_same_sound_are_their_mean(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "same.wav", SAME[name], "FLOAT")
    np.testing.assert_allclose(load_audio(path), np.mean(SAME[name], axis=0), atol=1e-6)


def test_the_channel_that_a_row_names_is_measured_and_heard(tmp_path: Path) -> None:
    """As one list has it: a row for each speaker of a call."""
    write(tmp_path / "call.wav", [AGENT, CALLER])
    write(tmp_path / "mono.wav", [CALLER])
    (tmp_path / "calls.csv").write_text(
        "id,audio,channel\nagent,call.wav,1\ncaller,call.wav,2\nthird,call.wav,3\nboth,call.wav,\n"
    )
    listed = load_manifest(tmp_path / "calls.csv")
    assert [u.channel for u in listed] == [1, 2, 3, None]
    for _ in range(2):  # nothing changes when the command is given again
        report = annotate(listed, tmp_path / "out", num_workers=0, progress=False)
        assert (report.num_annotated, report.reasons) == (2, {"channels": 2})
    agent, caller = read_manifest(report.manifest)
    assert agent.measured is not None and caller.measured is not None
    assert agent.measured["f0_median_hz"] == pytest.approx(110, rel=0.01)
    assert caller.measured["f0_median_hz"] == pytest.approx(230, rel=0.01)
    mono, _ = measure_file(Utterance(id="mono", audio=str(tmp_path / "mono.wav")))
    assert caller.measured == mono
    heard = model_waveform(caller.audio, SimpleNamespace(sampling_rate=RATE, trim_silence=False))
    np.testing.assert_array_equal(heard, load_audio(tmp_path / "mono.wav"))


def test_an_id_that_stands_twice_gets_no_other_rows_channel(tmp_path: Path) -> None:
    path = write(tmp_path / "call.wav", [AGENT, CALLER])
    first = Utterance(id="a", audio=str(path), channel=1)
    report = annotate([first, replace(first, channel=2)], tmp_path / "out", num_workers=0, progress=False)
    (kept,) = read_manifest(report.manifest)
    assert report.reasons == {"duplicate id": 1}
    assert kept.measured is not None
    assert kept.measured["f0_median_hz"] == pytest.approx(110, rel=0.01)


@pytest.mark.parametrize("value", ["left", "0", "1.5", "-1"])
def test_what_is_no_channel_is_a_mistake(tmp_path: Path, value: str) -> None:
    (tmp_path / "calls.csv").write_text(f"audio,channel\ncall.wav,{value}\n")
    with pytest.raises(DataError, match=rf"calls.csv:2: channel '{value}' is no number of a channel"):
        load_manifest(tmp_path / "calls.csv")


@pytest.mark.parametrize("peak", [1.05, 1.9])
def test_beyond_full_scale_no_level_is_reliable(tmp_path: Path, peak: float) -> None:
    loud = AGENT * peak / np.abs(AGENT).max()
    measured, _ = measure_file(Utterance(id="x", audio=str(write(tmp_path / "x.wav", [loud], "FLOAT"))))
    assert measured is not None and measured["peak"] == pytest.approx(peak, abs=1e-4)
    assert measured["level_reliable"] is False and measured["f0_reliable"] is True
    named = Utterance(id="x", audio=str(write(tmp_path / "y.wav", [0 * loud, loud], "FLOAT")), channel=2)
    report = annotate([named], tmp_path / "out", num_workers=0, progress=False)
    (kept,) = read_manifest(report.manifest)
    assert kept.measured == measured
