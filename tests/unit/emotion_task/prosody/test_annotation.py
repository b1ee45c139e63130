"""Annotation of real files: each utterance goes out once, measured or quarantined with its reason."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from emotion_task.prosody import files
from emotion_task.prosody.annotation import annotate, calibrate_corpus, measure_corpus
from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.files import MeasureConfig, measure_file
from emotion_task.prosody.store import MeasuredStore
from emotion_task.records import Utterance, read_manifest, write_manifest
from rlcore.errors import DataError

pytestmark = pytest.mark.slow

RATE = 16000


def tone(seconds: float = 0.8, hertz: float = 140.0, gain: float = 0.2) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return gain * sum(np.cos(2 * np.pi * hertz * k * time) for k in range(1, 9)) / 8


@pytest.fixture
def bad_files(tmp_path):
    """One file of each kind that must not stop a run, with the reason that is expected."""
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "short.wav", tone(0.05), RATE)
    soundfile.write(tmp_path / "long.wav", tone(3.0), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "constant.wav", np.full(RATE, 0.5), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "clipped.wav", np.sign(tone()), RATE)
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "cut.flac").write_bytes(b"fLaC" + bytes(20))
    return {
        "empty.wav": "empty",
        "short.wav": "too short",
        "long.wav": "too long",
        "silent.wav": "silent",
        "constant.wav": "silent",
        "nan.wav": "not finite",
        "clipped.wav": "clipped",
        "text.wav": "unreadable",
        "cut.flac": "unreadable",
        "absent.wav": "no such audio file",
    }


def test_bad_files_are_quarantined_with_their_reason(tmp_path, bad_files):
    soundfile.write(tmp_path / "good.wav", tone(), RATE)
    names = ["good.wav", *bad_files]
    rows = [Utterance(id=name, audio=name, emotion="happy", split="train") for name in names]
    write_manifest(tmp_path / "in.jsonl", [*rows, rows[0]])  # and one id twice
    config = MeasureConfig(max_seconds=2.0)
    report = annotate(tmp_path / "in.jsonl", tmp_path / "out", config=config, num_workers=0, progress=False)
    assert [utterance.id for utterance in read_manifest(report.manifest)] == ["good.wav"]
    entries = [json.loads(line) for line in report.quarantine.read_text().splitlines()]
    assert report.num_utterances == len(names) + 1
    assert (report.num_annotated, report.num_quarantined) == (1, len(bad_files) + 1)
    reasons = {entry["id"]: entry["reason"] for entry in entries}
    assert reasons.pop("good.wav").startswith("duplicate id")
    assert set(reasons) == set(bad_files)
    for name, expected in bad_files.items():
        assert reasons[name].startswith(expected), (name, reasons[name])


def test_text_and_paths_beyond_utf8_cost_their_own_row_alone(tmp_path, caplog):
    undecodable = tmp_path / os.fsdecode(b"caf\xe9.wav")
    for path in (undecodable, tmp_path / "good.wav", tmp_path / "half.wav"):
        soundfile.write(os.fsencode(path), tone(), RATE)
    rows = [
        Utterance(id="good", audio=str(tmp_path / "good.wav"), text="great", split="train"),
        Utterance(id="half", audio=str(tmp_path / "half.wav"), text="great \ud83d", split="train"),
        Utterance(id="path", audio=str(undecodable), split="train"),
    ]
    report = annotate(rows, tmp_path / "out", num_workers=0, progress=False)
    assert [utterance.id for utterance in read_manifest(report.manifest)] == ["good"]
    assert report.reasons == {"not text": 2}
    entries = [json.loads(line) for line in report.quarantine.read_text().splitlines()]
    assert [(e["id"], e["reason"][:30]) for e in entries] == [
        ("half", "not text: text 'great \\ud83d' "),
        ("path", "not text: audio '" + str(undecodable)[:13]),
    ]
    # A manifest written by hand: the row is left out, and the log names it.
    write_manifest(tmp_path / "hand.jsonl", rows)
    assert [utterance.id for utterance in read_manifest(tmp_path / "hand.jsonl")] == ["good"]
    assert f"{tmp_path}/hand.jsonl:2: left out: not text: text" in caplog.text


def test_cut_points_come_from_the_train_split_alone(tmp_path):
    utterances = []
    for index in range(40):
        split = "train" if index < 30 else "eval"
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, tone(0.5, gain=0.01 * (1 + index)), RATE)
        utterances.append(Utterance(id=str(index), audio=str(path), split=split, speaker="anna"))
    report = annotate(utterances, tmp_path / "out", num_workers=0, progress=False)
    told = "1 speakers are in train and in eval: anna"
    assert told in report.warnings and f"- {told}" in (tmp_path / "out" / "calibration.md").read_text()
    levels = [utterance.energy_level for utterance in read_manifest(report.manifest)]
    assert levels == ["low"] * 10 + ["normal"] * 10 + ["high"] * 20
    again = annotate(
        utterances[30:], tmp_path / "again", calibration=report.calibration, num_workers=0, progress=False
    )
    assert {utterance.energy_level for utterance in read_manifest(again.manifest)} == {"high"}


def test_nothing_measurable_is_an_error_that_points_to_the_reasons(tmp_path, bad_files):
    with pytest.raises(DataError, match=r"quarantine\.jsonl: none of 1"):
        annotate([Utterance(id="a", audio=str(tmp_path / "silent.wav"))], tmp_path / "out", num_workers=0)
    assert "silent" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def tones(folder, count: int) -> list[Utterance]:
    utterances = []
    for index in range(count):
        soundfile.write(folder / f"{index}.wav", tone(0.5, hertz=100 + 20 * index), RATE)
        utterances.append(Utterance(id=str(index), audio=str(folder / f"{index}.wav"), text="one two"))
    return utterances


def test_a_killed_pass_goes_on_where_it_was(tmp_path, monkeypatch):
    utterances, out, seen = tones(tmp_path, 6), tmp_path / "out", []
    whole = annotate(utterances, tmp_path / "whole", num_workers=0, progress=False)

    def watched(utterance, config, real=measure_file):
        seen.append(utterance.id)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(utterance, config)

    monkeypatch.setattr("emotion_task.prosody.annotation.measure_file", watched)
    with pytest.raises(KeyboardInterrupt):
        measure_corpus(utterances, out, num_workers=0, progress=False)
    with (out / "measured.jsonl").open("a") as lines:
        lines.write('{"key": "torn in the mid')  # as a kill in the middle of a write leaves it
    with pytest.raises(DataError, match="measuring pass"):
        calibrate_corpus(utterances, out)
    resumed = annotate(utterances, out, num_workers=0, progress=False)
    assert seen == ["0", "1", "2", "3", "3", "4", "5"]
    assert resumed.manifest.read_text() == whole.manifest.read_text()
    assert len((out / "measured.jsonl").read_text().splitlines()) == 6
    annotate(utterances, out, num_workers=0, progress=False)
    assert len(seen) == 7


def test_a_repaired_recording_is_not_in_quarantine_too(tmp_path, monkeypatch):
    utterances, out = tones(tmp_path, 2), tmp_path / "out"
    good = Path(utterances[1].audio).read_bytes()
    Path(utterances[1].audio).write_bytes(b"")
    assert annotate(utterances, out, num_workers=0, progress=False).num_quarantined == 1
    Path(utterances[1].audio).write_bytes(good)
    with monkeypatch.context() as patch:
        patch.setattr("emotion_task.prosody.annotation._write_quarantine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # ended after the last recording
            measure_corpus(utterances, out, num_workers=0, progress=False)
    with pytest.raises(DataError, match="nothing was measured to its end"):
        calibrate_corpus(utterances, out)
    report = annotate(utterances, out, num_workers=0, progress=False)
    assert (report.num_annotated, report.num_quarantined) == (2, 0)


def test_what_has_changed_is_measured_again_and_settings_are_not_mixed(tmp_path):
    utterances, out = tones(tmp_path, 2), tmp_path / "out"
    annotate(utterances, out, num_workers=0, progress=False)
    changed = [replace(utterances[0], text="one two three"), utterances[1]]
    report = annotate(changed, out, num_workers=0, progress=False)
    assert [u.measured["num_syllables"] for u in read_manifest(report.manifest)] == [3, 2]
    with pytest.raises(DataError, match=r"language 'en', now 'de'"):
        measure_corpus(utterances, out, config=MeasureConfig(language="de"), num_workers=0)
    fresh = annotate(
        utterances,
        out,
        config=MeasureConfig(max_seconds=5),
        num_workers=0,
        resume=False,
        progress=False,
    )
    assert fresh.num_annotated == 2


def test_a_replaced_recording_is_measured_again_and_said(tmp_path, caplog):
    utterances, out = tones(tmp_path, 2), tmp_path / "out"
    annotate(utterances, out, num_workers=0, progress=False)
    assert not caplog.records
    at = Path(utterances[0].audio)
    old = at.stat()
    soundfile.write(at, tone(0.5, hertz=240), RATE)
    os.utime(at, ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    assert at.stat().st_size == old.st_size
    with pytest.raises(
        DataError, match=r"1 of 2 utterances were not measured yet \(0, .*as their recordings"
    ):
        calibrate_corpus(utterances, out)
    report = annotate(utterances, out, num_workers=0, progress=False)
    found = [round(u.measured["f0_median_hz"]) for u in read_manifest(report.manifest)]
    assert found == [240, 120]
    told = [record.getMessage() for record in caplog.records]
    again = "1 recordings were replaced since they were measured, and are measured again"
    assert told == [f"{out}: {again}: {at}"]
    # Where the audio lies elsewhere by now, its measurements still hold.
    at.unlink()
    assert calibrate_corpus(utterances, out).num_annotated == 2
    assert annotate(utterances, out, num_workers=0, progress=False).num_annotated == 2
    assert len((out / "measured.jsonl").read_text().splitlines()) == 3


def test_one_at_a_time_measures_into_a_folder(tmp_path):
    utterances, out = tones(tmp_path, 1), tmp_path / "out"
    refused = pytest.raises(DataError, match="another process is measuring into this folder")
    with MeasuredStore(out).open(MeasureConfig(), resume=True), refused:
        measure_corpus(utterances, out, num_workers=0, resume=False, progress=False)
    assert annotate(utterances, out, num_workers=0, progress=False).num_annotated == 1


def test_calibration_alone_needs_every_utterance_measured(tmp_path):
    utterances, out = tones(tmp_path, 3), tmp_path / "out"
    with pytest.raises(DataError, match="nothing was measured"):
        calibrate_corpus(utterances, out)
    measure_corpus(utterances[:2], out, num_workers=0, progress=False)
    assert calibrate_corpus(utterances[:2], out).num_annotated == 2
    with pytest.raises(DataError, match=r"1 of 3 utterances were not measured yet \(2, "):
        calibrate_corpus(utterances, out)


def test_stereo_at_another_rate_is_the_same_sound(tmp_path):
    mono = tone(0.5)
    soundfile.write(tmp_path / "mono.wav", mono, RATE)
    time = np.arange(24000) / 48000
    fine = 0.2 * sum(np.cos(2 * np.pi * 140.0 * k * time) for k in range(1, 9)) / 8
    soundfile.write(tmp_path / "stereo.wav", np.stack([fine * 1.2, fine * 0.8], axis=1), 48000)
    loaded = load_audio(tmp_path / "stereo.wav")
    assert loaded.dtype == np.float32 and loaded.shape == (8000,)
    middle = slice(500, -500)  # the resampler's filter rings at the edges
    assert np.abs(loaded - load_audio(tmp_path / "mono.wav"))[middle].max() < 2e-3


def test_a_failure_nobody_foresaw_is_quarantined_too(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("of all things")

    soundfile.write(tmp_path / "odd.wav", tone(), RATE)
    monkeypatch.setattr(files, "measure", fail)
    _, reason = measure_file(Utterance(id="odd", audio=str(tmp_path / "odd.wav")))
    assert reason == "unexpected ZeroDivisionError: of all things"


class Linguist:
    """An aligner that notes the language it is to read."""

    heard: ClassVar[list[str | None]] = []

    def align(self, waveform: np.ndarray, sample_rate: int, utterance: Utterance) -> None:
        self.heard.append(utterance.language)


def test_the_aligner_reads_in_the_configured_language(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "build_plugins", lambda config: (Linguist(), None, None))
    soundfile.write(tmp_path / "x.wav", tone(), RATE)
    plain = Utterance(id="x", audio=str(tmp_path / "x.wav"), text="Guten Tag")
    for utterance in (plain, replace(plain, language="fr")):
        measure_file(utterance, MeasureConfig(language="de"))
    assert Linguist.heard == ["de", "fr"]


def test_measurements_are_of_the_settings_they_were_made_with(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(), RATE)
    store = MeasuredStore(tmp_path / "out")
    assert not store.is_of(MeasureConfig())
    measure_corpus(
        [Utterance(id="x", audio=str(tmp_path / "x.wav"))], store.folder, num_workers=0, progress=False
    )
    assert store.is_of(MeasureConfig()) and not store.is_of(MeasureConfig(max_seconds=5))
