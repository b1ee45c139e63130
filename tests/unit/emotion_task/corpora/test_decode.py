from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from emotion_task.cli import main
from emotion_task.corpora.reading.decode import decode, decode_containers
from emotion_task.records import Utterance, read_manifest
from rlcore.errors import DataError, MissingDependencyError

RATE = 44100


def utterance(path: Path, id: str = "clip") -> Utterance:
    return Utterance(id=id, audio=str(path))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second of 200 Hz on the left channel, AAC in MP4, as a real encoder writes it."""
    av = pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    path = tmp_path / "clip.m4a"
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["title"] = "QZQZQZQZ"
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        samples = np.stack([tone, np.zeros(RATE)]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def test_the_sound_of_a_container(clip: Path, tmp_path: Path, caplog) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    plain = utterance(tmp_path / "plain.wav", "plain")
    found = decode_containers(
        [utterance(clip), utterance(broken, "a/b"), plain], tmp_path / "audio", progress=False
    )
    assert found[1:] == [utterance(broken, "a/b"), plain]
    assert f"{broken}: unreadable audio" in caplog.text
    (samples, silence), rate = soundfile.read(found[0].audio)[0].T, soundfile.info(found[0].audio).samplerate
    assert np.abs(silence).max() < 1e-3  # a dead channel stays one, for the measuring pass to see
    assert rate == RATE and len(samples) == pytest.approx(RATE, abs=2100)  # AAC pads to whole frames
    assert np.argmax(np.abs(np.fft.rfft(samples))) / len(samples) * rate == pytest.approx(200, abs=2)
    middle = samples[8000:32000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    assert found[0].video is None  # an .m4a shows nothing
    film = clip.with_suffix(".mp4")
    film.write_bytes(clip.read_bytes())
    (shown,) = decode_containers([utterance(film, "film")], tmp_path / "audio", progress=False)
    assert shown.video == str(film) and shown.audio.endswith(".flac")
    before = Path(found[0].audio).stat().st_mtime_ns
    again = decode_containers([utterance(clip)], tmp_path / "audio", progress=False)
    assert again == found[:1] and Path(found[0].audio).stat().st_mtime_ns == before

    # Ids that look alike in a file's name are two recordings, and a changed recording is another.
    alike = decode_containers([utterance(clip, "a/b"), utterance(clip, "a_b")], tmp_path, progress=False)
    assert alike[0].audio != alike[1].audio
    os.utime(clip, ns=(0, 0))
    assert decode_containers([utterance(clip)], tmp_path / "audio", progress=False) != again


def test_of_film_sound_the_centre_is_taken(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    centre = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    music = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    with av.open(str(tmp_path / "film.mp4"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="5.1")
        frame = av.AudioFrame.from_ndarray(
            np.stack([music, music, centre, *3 * [0 * music]]).astype(np.float32), format="fltp", layout="5.1"
        )
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    samples, _ = decode(tmp_path / "film.mp4")
    assert samples.shape[1] == 1
    middle = samples[8000:32000, 0] / 32768
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(("suffix", "form"), [("mkv", "matroska"), ("m4a", "mp4")])
def test_a_container_that_was_cut_off_is_refused(tmp_path: Path, suffix: str, form: str) -> None:
    av = pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    path = tmp_path / f"cut.{suffix}"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        noise = 0.1 * np.random.default_rng(0).standard_normal((1, 4 * RATE))
        frame = av.AudioFrame.from_ndarray(noise.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    assert len(decode(path)[0]) == pytest.approx(4 * RATE, abs=2100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: (truncated: it tells 4|unreadable audio)"):
        decode(path)


def test_tags_that_are_not_utf8_are_passed_over(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    assert b"QZQZQZQZ" in data
    (tmp_path / "latin1.m4a").write_bytes(data.replace(b"QZQZQZQZ", b"M\xfcller \xe9"))
    (found,) = decode_containers([utterance(tmp_path / "latin1.m4a")], tmp_path / "audio", progress=False)
    assert Path(found.audio).suffix == ".flac"


def test_an_odd_error_of_the_decoder_puts_its_file_aside(tmp_path: Path, monkeypatch, caplog) -> None:
    """FFmpeg's binding raises more than its own errors; the files after it are decoded."""

    class Decoder(ModuleType):
        opened: ClassVar[list[str]] = []

        @staticmethod
        def open(path: str, **options: str) -> None:
            Decoder.opened.append(Path(path).name)
            raise UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "invalid start byte")

    monkeypatch.setitem(sys.modules, "av", Decoder("av"))
    clips = [utterance(tmp_path / name, name) for name in ("a.m4a", "b.m4a")]
    for each in clips:
        Path(each.audio).write_bytes(b"x")
    broken = utterance(tmp_path / "c.m4a", "half \ud83d")
    assert decode_containers([*clips, broken], tmp_path / "audio", progress=False) == [*clips, broken]
    assert Decoder.opened == ["a.m4a", "b.m4a"]
    assert f"{clips[0].audio}: unreadable audio: UnicodeDecodeError: 'utf-8'" in caplog.text


def test_without_the_extra_it_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    plain = [utterance(tmp_path / "a.wav")]
    assert decode_containers(plain, tmp_path / "audio") == plain
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[video\]'.*ffmpeg -i"):
        decode_containers([utterance(tmp_path / "a.MP4")], tmp_path / "audio", progress=False)


def test_a_corpus_through_the_command_line(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    for name in ("DC/a01", "DC/n02", "KL/h03"):
        path = tmp_path / "AudioData" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=8000), 16000)
    (tmp_path / "AudioData" / "KL" / "sa04.wav").write_bytes(b"RIFF")
    out = tmp_path / "annotated"
    command = ["annotate", str(tmp_path), "eval_speakers=[DC]", "--corpus", "savee", "--out", str(out)]
    assert main([*command, "--workers", "0"]) == 0
    rows = read_manifest(out / "manifest.jsonl")
    assert [(u.speaker, u.split) for u in rows] == [("savee-DC", "eval")] * 2 + [("savee-KL", "train")]
    assert "1 left out" in capsys.readouterr().out
    assert '"id": "savee-KL-sa04"' in (out / "quarantine.jsonl").read_text()
    assert main([*command, "eval_speaker=[DC]"]) == 2
    assert "does not take ['eval_speaker']; allowed are eval_speakers" in capsys.readouterr().err
