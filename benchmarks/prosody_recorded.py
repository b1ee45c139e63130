"""Measures how right the prosody measurements are on recorded speech, and whether they know where they fail.

Clips of RAVDESS get a second of room tone on either side and are then spoilt as microphones, rooms, codecs
and mixing desks spoil them (`benchmarks.degraded`); the truth is what was measured before. Sounds that are no
speech are measured as well, of which everything called reliable is wrong. What is wrong and not flagged would
reach a model.

    export RAVDESS_ROOT=/data/ravdess
    python -m benchmarks.prosody_recorded [--quick] [--vad MODULE:CLASS] [--json FILE] [--plot FILE] [--gate]

Wrong is F0 by more than 2 semitones, rate by more than 20 %, level by more than 2 dB.

Goal: F0, rate and level each wrong and not flagged in at most one in ten of every condition.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import degraded
from benchmarks.degraded import RATE, Samples
from benchmarks.report import Row, argument_parser, finish
from emotion_task.corpora.ravdess import load_ravdess
from emotion_task.facts import has_no_pitch
from emotion_task.prosody.activity import FRAME_S, Activity, find_activity
from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.files import MeasureConfig, measure_file
from emotion_task.prosody.syllables import count_syllables
from emotion_task.records import Utterance

SPEAKERS = range(6, 25)
SNRS_DB = (25.0, 18.0, 15.0, 12.0, 10.0, 6.0)
MAX_F0_ST, MAX_RATE, MAX_LEVEL_DB = 2.0, 0.2, 2.0
MAX_UNFLAGGED = 0.1
_ROOM_TONE_DB = 50.0
"""Decibels below the speech."""
_CONFIG = MeasureConfig(max_seconds=120)
_ALIGNED = MeasureConfig(aligner="emotion_task.prosody.align:SynthesisAligner")
_LONG_S = (5, 10, 20, 40, 60)
_LONGER = " and after that they walk home with all of their neighbours"


Distance = Callable[[float, float], float]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Holds a recording with room tone around it, and what is true of it."""

    samples: Samples
    text: str
    speaker: str | None
    truth: dict[str, Any]
    """Fields of `Measurement` of these samples."""
    activity: Activity
    speech: Samples
    """The samples from the first to the last speech."""

    def level_of(self, samples: Samples) -> float:
        """Returns the level in dBFS that other samples [N] have where this clip is speech."""
        hop = int(FRAME_S * RATE)
        active = np.repeat(self.activity.active, hop)
        return float(10 * np.log10(np.mean(samples[: len(active)][active] ** 2)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """Holds one spoilt recording and what is true of it."""

    source: Samples | Path
    text: str
    f0_hz: float | None = None
    """None where nothing that is called reliable is right."""
    rate: float | None = None
    level_dbfs: float | None = None
    snr_db: float | None = None
    config: MeasureConfig = _CONFIG


def read_clips(root: str, count: int, folder: Path, config: MeasureConfig = _CONFIG) -> list[Clip]:
    """Draws clips of `SPEAKERS` at random; always the same ones."""
    utterances = load_ravdess(root, train_speakers=SPEAKERS, eval_speakers=[])
    rng, clips = np.random.default_rng(1), []
    for index in rng.permutation(len(utterances)):
        spoken = load_audio(utterances[index].audio).astype(float)
        activity = find_activity(spoken, RATE)
        if activity is None:
            continue
        samples = np.pad(spoken, RATE)
        samples += degraded.pink(len(samples), rng) * 10 ** ((activity.level_dbfs - _ROOM_TONE_DB) / 20)
        text = utterances[index].text or ""
        truth = _measured(Case(source=samples, text=text, config=config), folder)
        activity = find_activity(samples, RATE)
        if truth and activity:
            start, end = (int(at * RATE) for at in (activity.start_s, activity.end_s))
            clips.append(
                Clip(
                    samples=samples,
                    text=text,
                    speaker=utterances[index].speaker,
                    truth=truth,
                    activity=activity,
                    speech=samples[start:end],
                )
            )
        if len(clips) == count:
            break
    return clips


Condition = tuple[str, str, list[Case]]
"""Kind, setting and recordings."""


def conditions(clips: Sequence[Clip], folder: Path) -> Iterator[Condition]:
    """Yields the conditions; files of codecs lie in `folder`."""
    rng = np.random.default_rng(2)
    yield "clean", "room tone", [of(clip, clip.samples) for clip in clips]
    yield from _in_noise(clips, rng)
    yield from _processed(clips, rng)
    yield from _coded(clips, folder)
    yield (
        "overlap",
        "two at 0 dB",
        [_overlap(one, two) for one, two in zip(clips, [*clips[7:], *clips[:7]], strict=True)],
    )
    cases = [of(clip, clip.samples, text=clip.text + _LONGER, config=_ALIGNED) for clip in clips]
    yield "longer text", "aligner", [_without_rate(case) for case in cases]
    for kind in degraded.NO_SPEECH:
        for setting in ("cut tight", "in pauses"):
            cases = []
            for clip in clips:
                samples = degraded.no_speech(kind, rng.uniform(2, 4), rng)
                if setting == "in pauses":
                    samples = np.pad(samples, RATE) + 3e-4 * rng.normal(size=len(samples) + 2 * RATE)
                cases.append(Case(source=samples, text=clip.text))
            yield kind, setting, cases


def of(clip: Clip, samples: Samples | Path, **truth: Any) -> Case:
    """Returns a case that is as true as the clip, but for `truth`."""
    known = {
        "f0_hz": clip.truth.get("f0_median_hz"),
        "rate": clip.truth["articulation_rate"],
        "level_dbfs": clip.truth["level_dbfs"],
    }
    return Case(source=samples, **({"text": clip.text} | known | truth))


def _in_noise(clips: Sequence[Clip], rng: np.random.Generator) -> Iterator[Condition]:
    noises = {
        "pink": degraded.pink,
        "white": degraded.white,
        "babble": degraded.babble_of([clip.speech for clip in clips]),
        "hum": degraded.hum,
        "music": degraded.music,
    }
    for kind, noise in noises.items():
        for snr in SNRS_DB:
            cases = []
            for clip in clips:
                size = 10 ** ((clip.truth["level_dbfs"] - snr) / 20)
                cases.append(of(clip, clip.samples + size * noise(len(clip.samples), rng), snr_db=snr))
            yield kind, f"{snr:g} dB", cases


def _processed(clips: Sequence[Clip], rng: np.random.Generator) -> Iterator[Condition]:
    """Compressed, long, and in rooms."""
    for ratio in (2, 4, 10):
        cases = []
        for clip in clips:
            samples = degraded.compressed(clip.speech, ratio)
            samples = np.pad(samples * min(1, 0.9 / np.abs(samples).max()), RATE)
            start = int(clip.activity.start_s * RATE)
            inside = np.pad(samples[RATE:-RATE], (start, len(clip.samples) - start - len(clip.speech)))
            samples += 1e-4 * rng.normal(size=len(samples))
            cases.append(of(clip, samples, level_dbfs=clip.level_of(inside)))
        yield "compressed", f"{ratio}:1", cases
    for seconds in _LONG_S:
        yield "long", f"{seconds} s", [_long(clips, seconds, rng) for _ in range(max(4, len(clips) // 5))]
    for rt60 in (0.3, 1.0, 2.0):
        cases = []
        for clip in clips:
            wet = degraded.in_room(clip.samples, rt60, rng)
            cases.append(of(clip, wet, level_dbfs=clip.level_of(wet)))
        yield "reverberation", f"RT60 {rt60:g} s", cases


def _coded(clips: Sequence[Clip], folder: Path) -> Iterator[Condition]:
    """By codecs, and clipped before."""
    codecs = {
        "MP3": ("MP3", "MPEG_LAYER_III", RATE),
        "Opus": ("OGG", "OPUS", RATE),
        "Vorbis": ("OGG", "VORBIS", RATE),
        "GSM": ("WAV", "GSM610", 8000),
        "mu-law": ("WAV", "ULAW", 8000),
        "8 kHz": ("WAV", "PCM_16", 8000),
    }
    for name, codec in codecs.items():
        cases = []
        for i, clip in enumerate(clips):
            path = degraded.recoded(clip.samples, folder / f"{name.replace(' ', '')}_{i}", *codec)
            cases.append(of(clip, path))
        yield "codec", name, cases
    for share in (0.03, 0.1, 0.3):
        for name in ("MP3", "Opus", "8 kHz"):
            cases = []
            for i, clip in enumerate(clips):
                cut = degraded.clipped(clip.samples, share)
                gain = cut[quiet := np.argmax(np.abs(clip.samples) > 1e-4)] / clip.samples[quiet]
                path = degraded.recoded(cut, folder / f"{share}{name.replace(' ', '')}_{i}", *codecs[name])
                cases.append(of(clip, path, level_dbfs=clip.truth["level_dbfs"] + 20 * np.log10(gain)))
            yield "clipped", f"{share:.0%}, {name}", cases


def _without_rate(case: Case) -> Case:
    return Case(
        source=case.source, text=case.text, f0_hz=case.f0_hz, level_dbfs=case.level_dbfs, config=case.config
    )


def _long(clips: Sequence[Clip], seconds: float, rng: np.random.Generator) -> Case:
    """Joins clips of one speaker, brought to one level and parted by 0.4 s, up to this length."""
    speaker = clips[int(rng.integers(len(clips)))].speaker
    clips = [clip for clip in clips if clip.speaker == speaker]
    parts, texts, active, hertz, length = [], [], 0.0, [], 0.0
    while length < seconds:
        clip = clips[int(rng.integers(len(clips)))]
        part = clip.speech * 10 ** ((-26 - clip.truth["level_dbfs"]) / 20)
        parts += [part, np.zeros(int(0.4 * RATE))]
        texts.append(clip.text)
        active += clip.truth["active_s"]
        voiced = round(clip.truth["voiced_fraction"] * clip.truth["active_s"] / FRAME_S)
        hertz += [clip.truth["f0_median_hz"]] * voiced if "f0_median_hz" in clip.truth else []
        length += len(part) / RATE + 0.4
    samples = np.pad(np.concatenate(parts), RATE)
    return Case(
        source=samples + 10 ** (-76 / 20) * rng.normal(size=len(samples)),
        text=". ".join(texts),
        f0_hz=float(np.median(hertz)),
        rate=(count_syllables(" ".join(texts)) or 0) / active,
        level_dbfs=-26.0,
    )


def _overlap(one: Clip, two: Clip) -> Case:
    """Lays the speech of another clip over this one's, both at its level."""
    samples = one.samples.copy()
    start = int(one.activity.start_s * RATE)
    other = two.speech[: len(samples) - start] * 10 ** (
        (one.truth["level_dbfs"] - two.truth["level_dbfs"]) / 20
    )
    samples[start : start + len(other)] += other
    return Case(
        source=samples,
        text=one.text,
        f0_hz=one.truth.get("f0_median_hz"),
        rate=one.truth["articulation_rate"],
        level_dbfs=one.truth["level_dbfs"],
    )


def _measured(case: Case, folder: Path) -> dict[str, Any] | None:
    """Returns the known fields of `Measurement`, or None of a recording that was put aside."""
    path = case.source
    if not isinstance(path, Path):
        path = folder / "spoilt.wav"
        soundfile.write(path, case.source, RATE, subtype="FLOAT")
    return measure_file(Utterance(id="", audio=str(path), text=case.text), case.config)[0]


def evaluate(cases: Sequence[Case], folder: Path) -> dict[str, float]:
    """Returns shares of the recordings, the median error of the SNR in dB, and the number put aside.

    `_wrong` counts what was measured, flagged or not (F0 is given only where it is not flagged);
    `_unflagged` is what is wrong and called reliable."""
    found = [(case, row) for case in cases if (row := _measured(case, folder)) is not None]
    flags = {name: [bool(row[f"{name}_reliable"]) for _, row in found] for name in ("f0", "rate", "level")}
    wrong = {
        "f0": [_is_off(row.get("f0_median_hz"), case.f0_hz, _semitones, MAX_F0_ST) for case, row in found],
        "rate": [
            _is_off(row.get("articulation_rate"), case.rate, _relative, MAX_RATE) for case, row in found
        ],
        "level": [_is_off(row["level_dbfs"], case.level_dbfs, _apart, MAX_LEVEL_DB) for case, row in found],
    }
    snr = [row["snr_db"] - case.snr_db for case, row in found if case.snr_db is not None and "snr_db" in row]
    figures: dict[str, float] = {"clips": len(cases), "put_aside": len(cases) - len(found)}
    for name, reliable in flags.items():
        figures[f"{name}_reliable"] = sum(reliable) / len(cases)
        if name != "f0":
            figures[f"{name}_wrong"] = sum(wrong[name]) / len(cases)
        both = [off and sure for off, sure in zip(wrong[name], reliable, strict=True)]
        figures[f"{name}_unflagged"] = sum(both) / len(cases)
    figures["snr_error_db"] = float(np.median(snr)) if snr else float("nan")
    figures["snr_known"] = sum("snr_db" in row for _, row in found) / len(cases)
    figures["pitchless"] = sum(has_no_pitch(row) for _, row in found) / len(cases)
    return figures


def _is_off(value: float | None, truth: float | None, distance: Distance, most: float) -> bool:
    """Tells whether a value that was measured is wrong; of what has no truth, every value is."""
    return value is not None and (truth is None or distance(value, truth) > most)


def _semitones(value: float, truth: float) -> float:
    return float(12 * abs(np.log2(value / truth)))


def _relative(value: float, truth: float) -> float:
    return abs(value / truth - 1)


def _apart(value: float, truth: float) -> float:
    return abs(value - truth)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws what noise leaves, and what is wrong and not flagged."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    kinds = ("pink", "white", "babble", "hum", "music")
    for column, name in enumerate(("f0", "rate", "level")):
        for row, what in enumerate(("reliable", "unflagged")):
            for kind in kinds:
                curve = [float(r[f"{name}_{what}"]) for r in rows if r["kind"] == kind]
                axes[row, column].plot(SNRS_DB, curve, marker=".", label=kind)
            title = f"{name}: " + ("called reliable" if what == "reliable" else "wrong and not flagged")
            axes[row, column].set(title=title, xlabel="signal to noise (dB)", ylim=(-0.02, 1.02))
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser: argparse.ArgumentParser = argument_parser(__doc__ or "")
    parser.add_argument("--plot", type=Path, help="write the noise curves to this picture")
    parser.add_argument("--vad", metavar="MODULE:CLASS", help="a detector of speech (default: the level)")
    arguments = parser.parse_args()
    root = os.environ.get("RAVDESS_ROOT")
    if not root:
        sys.exit("RAVDESS_ROOT is not set. Set it to the folder of RAVDESS, which holds Actor_01 to Actor_24")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = replace(_CONFIG, vad=arguments.vad)
        clips = read_clips(root, 10 if arguments.quick else 40, folder, config)
        for kind, setting, cases in conditions(clips, folder):
            cases = [replace(case, config=replace(case.config, vad=arguments.vad)) for case in cases]
            rows.append({"kind": kind, "setting": setting, **evaluate(cases, folder)})
            print(f"{kind}, {setting}: done", flush=True)
    if arguments.plot:
        plot(rows, arguments.plot)
    names = ("f0", "rate", "level")
    worst = {name: max(float(row[f"{name}_unflagged"]) for row in rows) for name in names}
    goals = {
        f"{row['kind']}, {row['setting']}: {name} wrong and not flagged in at most {MAX_UNFLAGGED:.0%}": (
            float(row[f"{name}_unflagged"]) <= MAX_UNFLAGGED
        )
        for row in rows
        for name in names
    }
    headline: Row = {f"worst_{name}_unflagged": value for name, value in worst.items()}
    finish("prosody_recorded", rows, {"conditions": len(rows), **headline}, goals, arguments)


if __name__ == "__main__":
    main()
