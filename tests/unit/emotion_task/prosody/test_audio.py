"""Files whose headers do not tell their length, or in which no place can be found, are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion_task.prosody.audio import cut_channels, load_audio, read_recording
from emotion_task.prosody.files import measure_file
from emotion_task.records import Utterance
from rlcore.errors import DataError

RATE = 16000


def speech(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * 180 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))


def flac_of_unknown_length(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE)
    content = bytearray(path.read_bytes())
    # STREAMINFO's bytes 10 to 17 end with the 36 bits of the number of samples; 0 is unknown.
    packed = int.from_bytes(content[18:26], "big")
    content[18:26] = (packed & ~((1 << 36) - 1)).to_bytes(8, "big")
    path.write_bytes(content)
    assert soundfile.info(path).frames > 2**62
    return path


@pytest.mark.parametrize("frames", [32000, 1 << 16, 100_000])
def test_flac_of_unknown_length_is_read_whole(tmp_path: Path, frames: int) -> None:
    samples = speech(frames / RATE)
    soundfile.write(tmp_path / "known.flac", samples, RATE)
    piped = flac_of_unknown_length(tmp_path / "piped.flac", samples)
    known = load_audio(tmp_path / "known.flac")
    assert known.shape == (frames,)
    np.testing.assert_array_equal(load_audio(piped), known)
    np.testing.assert_array_equal(load_audio(piped, max_seconds=frames / RATE), known)
    for limit in (frames / RATE - 0.01, 1.0):
        with pytest.raises(DataError, match=rf"piped.flac: too long: .*at most {limit:g} s are allowed"):
            load_audio(piped, max_seconds=limit)


def test_gsm_is_read_and_measured(tmp_path: Path) -> None:
    call = tmp_path / "call.wav"
    soundfile.write(call, speech(2.0, 8000), 8000, subtype="GSM610")
    loaded = load_audio(call, 8000)
    assert len(loaded) == pytest.approx(16000, abs=320)  # whole blocks of 320 samples
    assert np.corrcoef(loaded[:16000], speech(2.0, 8000)[: len(loaded)])[0, 1] > 0.98
    measured, reason = measure_file(Utterance(id="a", audio=str(call)))
    assert reason is None and measured is not None
    assert measured["f0_median_hz"] == pytest.approx(180, abs=1)


def test_gsm_of_an_odd_number_of_blocks_is_whole_and_half_of_it_is_not(tmp_path: Path) -> None:
    call = tmp_path / "call.wav"
    soundfile.write(call, speech(51 * 320 / 8000, 8000), 8000, subtype="GSM610")
    assert len(load_audio(call, 8000)) == pytest.approx(51 * 320, abs=320)
    call.write_bytes(call.read_bytes()[:2000])
    with pytest.raises(DataError, match="truncated"):
        load_audio(call, 8000)


@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
def test_a_wav_whose_writer_never_told_its_size(tmp_path: Path, riff: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(), RATE)
    whole = load_audio(path)
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[4:8], content[40:44] = riff.to_bytes(4, "little"), bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(load_audio(path), whole)
    with pytest.raises(DataError, match=r"a.wav: too long: 2.0 s, at most 1 s"):
        load_audio(path, max_seconds=1)


def test_a_wav_without_samples_is_still_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE)
    with pytest.raises(DataError, match="empty: the file holds no samples"):
        load_audio(path)
    # A chunk behind the samples that there are not is no sound.
    content = bytearray(path.read_bytes()[:44]) + b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    content[4:8], content[40:44] = (len(content) - 8).to_bytes(4, "little"), bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError, match="empty: the file holds no samples"):
        load_audio(path)


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        b"LIST\4\0\0\0INFO",
        b"LIST\xff\xff\0\0INFO" + b"\1" * 5000,  # cut off itself
        b"\0junk\x88\x13\0\0" + b"\1" * 5000,
        b"TAG" + b"\1" * 5000,
        bytes(RATE),
    ],
)
def test_a_wav_whose_writer_told_its_size_for_the_last_time_before_its_end(
    tmp_path: Path, behind: bytes
) -> None:
    """What lies behind the told size is sound, unless it is a chunk, a tag, or padding."""
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(), RATE)
    whole, content = load_audio(path), bytearray(path.read_bytes())
    if behind.startswith(b"\0junk"):  # a padded odd size
        content[40:44] = (len(content) - 45).to_bytes(4, "little")
        content, whole = content[:-1], whole[:-1]
    path.write_bytes(content + behind)
    np.testing.assert_array_equal(load_audio(path), whole)
    content[40:44] = RATE.to_bytes(4, "little")  # half a second of 16 bits
    path.write_bytes(content)
    np.testing.assert_array_equal(load_audio(path), whole)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *((form, None) for form in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "MP3", "FLAC", "NIST")),
        *((form, "PCM_16") for form in ("AVR", "MPC2K", "MAT4", "MAT5", "SDS", "VOC")),
        *(("OGG", subtype) for subtype in ("VORBIS", "OPUS")),
        ("WVE", "ALAW"),
    ],
)
def test_a_file_that_was_cut_off_is_refused(
    tmp_path: Path, form: str, subtype: str | None, share: float
) -> None:
    path = tmp_path / f"cut.{form.lower()}"
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(path, noise, RATE, format=form, subtype=subtype)
    load_audio(path)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    with pytest.raises(DataError, match=rf"cut\.{form.lower()}: (truncated: it tells|unreadable audio)"):
        load_audio(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_of_which_whole_pages_are_missing_is_refused(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "cut.ogg"
    soundfile.write(path, speech(4.0), RATE, format="OGG", subtype=subtype)
    whole = path.read_bytes()
    path.write_bytes(whole + b"TAG" + bytes(125))
    assert len(load_audio(path)) == pytest.approx(4 * RATE, abs=RATE // 10)
    for cut in (whole[: whole.rfind(b"OggS")], whole[:-1]):
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"cut\.ogg: truncated: it tells its stream goes on"):
            load_audio(path)


@pytest.mark.parametrize("channel", [None, 1])
def test_samples_without_a_header_are_refused(tmp_path: Path, channel: int | None) -> None:
    path = tmp_path / "a.RAW"
    path.write_bytes(bytes(2 * RATE))
    with pytest.raises(DataError, match=r"a\.RAW: unreadable audio: samples without a header"):
        read_recording(path, channel=channel)
    utterance = Utterance(id="a", audio=str(path), channel=channel)
    assert cut_channels([utterance], tmp_path / "channels") == [utterance]
    _, reason = measure_file(utterance)
    assert reason is not None and "samples without a header" in reason


def test_what_follows_the_sound_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.full(RATE, 0.1), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = (len(content) + 500).to_bytes(4, "little")
    path.write_bytes(content)
    assert len(load_audio(path)) == RATE


@pytest.mark.parametrize("scale", [3, 128, 32767, 2.0**23])
def test_floats_of_another_scale_are_refused(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "scaled.wav"
    soundfile.write(path, scale * np.sin(np.arange(RATE) / 10), RATE, subtype="FLOAT")
    with pytest.raises(
        DataError, match=r"scaled\.wav: scale: samples reach [\d.e+]+, full scale is 1\. .*32768"
    ):
        load_audio(path)
