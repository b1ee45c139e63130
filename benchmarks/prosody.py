"""Measures how right the prosody measurements are, where the truth is known.

The speech is that of the synthetic corpus, whose melody, level, timing and stressed word were laid on by the
program, clean and with noise added.

    python -m benchmarks.prosody [--quick] [--json FILE] [--gate] [--plot FILE]

Goals (clean): median F0 error below 0.3 semitones; levels of pitch, energy and rate agree with those cut from
the truth in 9 of 10 utterances; contour in 0.85 of those with a melody to hear; stressed word in 0.8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import Row, argument_parser, finish
from emotion_task.corpora.synthesis import render as renderer
from emotion_task.corpora.synthesis.design import Design, draw_corpus
from emotion_task.prosody.activity import FRAME_S, find_activity
from emotion_task.prosody.align import SynthesisAligner
from emotion_task.prosody.calibrate import TERTILES
from emotion_task.prosody.f0 import track_f0
from emotion_task.prosody.intonation import FLAT_BELOW_ST
from emotion_task.prosody.measure import Measurement, measure
from emotion_task.prosody.syllables import count_syllables
from emotion_task.records import Utterance

RATE = renderer.SAMPLE_RATE
SNRS_DB = (40.0, 30.0, 20.0, 15.0, 10.0, 5.0, 0.0)
GOALS = {"pitch_level": 0.9, "energy_level": 0.9, "speed_level": 0.9, "contour": 0.85, "stress": 0.8}
MAX_F0_ERROR_ST = 0.3


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Holds one utterance of the corpus and what was laid on it."""

    design: Design
    waveform: np.ndarray
    """Samples [N] at `RATE`."""
    f0_times: np.ndarray
    """Times [P] of the pitch tier, in seconds."""
    f0_hz: np.ndarray
    """Pitch [P] of the pitch tier, in Hz."""
    speech_s: float
    """Seconds from the first to the last loud sample."""


def make_truth(design: Design) -> Truth:
    """Renders a design and repeats the drawing of its melody, from the same seed."""
    rng = np.random.default_rng(design.seed)
    speech, bump = renderer._monotone(design)
    duration = len(speech) / RATE
    times = np.arange(0, duration, 0.025)
    position = np.clip(times / max(duration - 0.1, 0.1), 0, 1)
    semitones = (
        design.level_st
        + design.range_st * (renderer._contour(position, design.contour) + 0.25 * bump(times))
        + design.tremor_st * np.sin(2 * np.pi * renderer._TREMOR_HZ * times + rng.uniform(0, 6))
        + rng.normal(0, 0.1, len(times))
    )
    loud = np.flatnonzero(np.abs(speech) > 0.003)
    return Truth(
        design=design,
        waveform=renderer.render(design),
        f0_times=times,
        f0_hz=np.clip(design.speaker.f0_hz * 2 ** (semitones / 12), *renderer._F0_LIMITS),
        speech_s=(loud[-1] - loud[0]) / RATE,
    )


def evaluate(truths: Sequence[Truth], snr_db: float | None) -> dict[str, float]:
    """Returns figures over the utterances, with white noise added at `snr_db` below the active level; None
    adds none."""
    aligner, rng = SynthesisAligner(), np.random.default_rng(0)
    measured: list[Measurement] = []
    errors, gross, stress, bias = [], [], [], []
    for truth in truths:
        waveform, activity = truth.waveform, find_activity(truth.waveform, RATE)
        assert activity is not None
        if snr_db is not None:
            noise = 10 ** ((activity.level_dbfs - snr_db) / 20)
            waveform = waveform + rng.normal(size=len(waveform)) * noise
        design = truth.design
        said = Utterance(id="", audio="", text=design.text, gender=design.speaker.gender)
        words = aligner.align(waveform, RATE, said)
        found = measure(waveform, RATE, design.text, words=words)
        measured.append(found)
        if found.level_reliable:
            bias.append(found.level_dbfs - activity.level_dbfs)
        if design.whispered:
            continue
        if found.f0_reliable:
            error = _f0_errors(truth, waveform)
            errors.append(float(np.median(np.abs(error))))
            gross.append(float(np.mean(np.abs(error) > 2)))
        stressed = design.text.split()[design.stressed_word]
        named = None if found.stressed_word is None else (found.word_times or [])[found.stressed_word][0]
        stress.append((named is not None, named == stressed))
    voiced = [(t, m) for t, m in zip(truths, measured, strict=True) if not t.design.whispered]
    melodic = [(t, m) for t, m in voiced if t.design.contour == "flat" or t.design.range_st >= FLAT_BELOW_ST]
    return {
        "f0_error_st": float(np.median(errors)) if errors else float("nan"),
        "gross_errors": float(np.mean(gross)) if gross else float("nan"),
        "f0_reliable": float(np.mean([m.f0_reliable for _, m in voiced])),
        "level_reliable": float(np.mean([m.level_reliable for m in measured])),
        "level_bias_db": float(np.median(bias)) if bias else float("nan"),
        **_level_agreement(truths, measured),
        "contour": float(np.mean([t.design.contour == m.intonation for t, m in melodic])),
        "stress": float(np.mean([right for _, right in stress])),
        "stress_named": float(np.mean([named for named, _ in stress])),
    }


def _f0_errors(truth: Truth, waveform: np.ndarray) -> np.ndarray:
    """Returns the distance from the truth in semitones, of the frames that are voiced and speech."""
    track, activity = track_f0(waveform, RATE), find_activity(waveform, RATE)
    assert activity is not None
    frame = np.minimum((track.times / FRAME_S).astype(int), len(activity.active) - 1)
    kept = (track.hertz > 0) & activity.active[frame]
    laid_on = np.exp(np.interp(track.times[kept], truth.f0_times, np.log(truth.f0_hz)))
    return 12 * np.log2(track.hertz[kept] / laid_on)


def _level_agreement(truths: Sequence[Truth], measured: Sequence[Measurement]) -> dict[str, float]:
    """Returns the share of utterances whose level is that of the truth, both cut at tertiles. An unmeasured
    utterance counts as wrong; the pitch of whispers is left out."""
    pairs = list(zip(truths, measured, strict=True))
    by_gender = []
    for gender in ("male", "female"):
        kept = [(t, m) for t, m in pairs if t.design.speaker.gender == gender and not t.design.whispered]
        by_gender += _agree([np.median(_said_f0(t)) for t, _ in kept], [m.f0_median_hz for _, m in kept])
    energy = _agree(
        [t.design.energy_db + t.design.speaker.gain_db for t, _ in pairs],
        [m.level_dbfs if m.level_reliable else None for _, m in pairs],
    )
    speed = _agree(
        [(count_syllables(t.design.text) or 0) / t.speech_s for t, _ in pairs],
        [m.articulation_rate if m.rate_reliable else None for _, m in pairs],
    )
    return {
        "pitch_level": float(np.mean(by_gender)),
        "energy_level": float(np.mean(energy)),
        "speed_level": float(np.mean(speed)),
    }


def _said_f0(truth: Truth) -> np.ndarray:
    """Returns the melody where the clean recording is voiced: a median over pauses would be of no voice."""
    track = track_f0(truth.waveform, RATE)
    return np.exp(np.interp(track.times[track.hertz > 0], truth.f0_times, np.log(truth.f0_hz)))


def _agree(truth: Sequence[float], measured: Sequence[float | None]) -> list[bool]:
    known = [value for value in measured if value is not None]
    if not known:
        return [False] * len(measured)
    true_cuts, cuts = np.percentile(truth, TERTILES), np.percentile(known, TERTILES)
    return [
        m is not None and np.searchsorted(true_cuts, t, "right") == np.searchsorted(cuts, m, "right")
        for t, m in zip(truth, measured, strict=True)
    ]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the noise curves."""
    from matplotlib.figure import Figure

    noisy = [row for row in rows if row["snr_db"] != "clean"]
    snr = [float(row["snr_db"]) for row in noisy]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("f0_reliable", "level_reliable", *GOALS):
        left.plot(snr, [row[name] for row in noisy], marker=".", label=name)
    left.set(title="agreement with the truth", xlabel="signal to noise (dB)", ylim=(0, 1.02))
    left.legend(fontsize=7)
    right.plot(snr, [row["f0_error_st"] for row in noisy], marker=".", label="median error (semitones)")
    right.plot(snr, [row["gross_errors"] for row in noisy], marker=".", label="frames off by 2 semitones")
    right.set(title="F0 where it is called reliable", xlabel="signal to noise (dB)", ylim=(0, None))
    right.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser: argparse.ArgumentParser = argument_parser(__doc__ or "")
    parser.add_argument("--plot", type=Path, help="write the noise curves to this picture")
    arguments = parser.parse_args()
    count = 60 if arguments.quick else 300
    designs = draw_corpus(count, count, 0, 1.0)
    truths = [make_truth(design) for design in designs]
    rows: list[Row] = []
    for snr_db in (None, *SNRS_DB):
        name = "clean" if snr_db is None else f"{snr_db:g}"
        rows.append({"snr_db": name, "utterances": len(truths), **evaluate(truths, snr_db)})
        print(f"{name}: done", flush=True)
    clean = rows[0]
    goals = {f"{name} at least {goal}": float(clean[name]) >= goal for name, goal in GOALS.items()}
    goals[f"F0 error below {MAX_F0_ERROR_ST} semitones"] = float(clean["f0_error_st"]) < MAX_F0_ERROR_ST
    if arguments.plot:
        plot(rows, arguments.plot)
    finish("prosody", rows, {key: clean[key] for key in ("f0_error_st", *GOALS)}, goals, arguments)


if __name__ == "__main__":
    main()
