"""Annotation of a corpus: measure every file in a pool, calibrate on the train split, write the manifest.

    out/manifest.jsonl     utterances with measured fields and levels
    out/calibration.json   the cut points
    out/quarantine.jsonl   id, audio and reason of every file that could not be measured

Each utterance that comes in goes out once, in the manifest or in quarantine. Stressed words stay what the
corpus says (null mostly): to hear them takes word times, and an even share of the time is none.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.calibrate import TERTILES, Calibration, apply_calibration, calibrate
from emotion_task.prosody.measure import measure
from emotion_task.records import Utterance, read_manifest, write_manifest
from rlcore.errors import DataError

SAMPLE_RATE = 16000
_SILENT_PEAK = 1e-4
_CLIPPED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class AnnotationReport:
    """What became of the utterances."""

    manifest: Path
    calibration: Path
    quarantine: Path
    num_utterances: int
    num_annotated: int
    reasons: dict[str, int]
    """Quarantined utterances by kind of failure (unreadable, empty, too short, too long, silent, ...)."""
    warnings: tuple[str, ...]
    seconds: float

    @property
    def num_quarantined(self) -> int:
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class _Job:
    utterance: Utterance
    min_seconds: float
    max_seconds: float
    marks: str
    """Folder in which a worker notes the file that it is at."""


def annotate(
    source: str | Path | Iterable[Utterance],
    out_folder: str | Path,
    *,
    calibration: Calibration | str | Path | None = None,
    num_workers: int = 2,
    min_seconds: float = 0.2,
    max_seconds: float = 30.0,
    percentiles: tuple[float, float] = TERTILES,
    progress: bool = True,
) -> AnnotationReport:
    """Measures and calibrates a manifest.

    Args:
        source: a manifest's path, or utterances (with absolute audio paths, or valid from here).
        calibration: cut points to apply, as an object or a file; by default they are made from the
            `train` split, or from everything where no utterance has that split.
        num_workers: processes; 0 measures in this one.
        min_seconds, max_seconds: allowed durations; other files are quarantined.

    Raises:
        DataError: the manifest or calibration is unusable, no utterance could be measured, or a worker
            died (the message names the files that were being measured).
    """
    started = time.monotonic()
    utterances = read_manifest(source) if isinstance(source, str | Path) else list(source)
    if isinstance(calibration, str | Path):
        calibration = Calibration.load(calibration)
    utterances, failures = _without_duplicates(utterances)
    measured: list[Utterance] = []
    outcomes = _measure_all(utterances, num_workers, min_seconds, max_seconds)
    bar = tqdm(outcomes, total=len(utterances), desc="prosody", unit="utt", disable=not progress)
    for utterance, reason in bar:
        if reason is None:
            measured.append(utterance)
        else:
            failures.append((utterance, reason))
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    _write_quarantine(out / "quarantine.jsonl", failures)
    if not measured:
        raise DataError(
            f"{out / 'quarantine.jsonl'}: none of {len(failures)} utterances could be measured; it says why"
        )
    if calibration is None:
        train = [utterance for utterance in measured if utterance.split == "train"]
        calibration = calibrate(train or measured, percentiles)
    calibration.save(out / "calibration.json")
    annotated = (apply_calibration(calibration, utterance) for utterance in measured)
    write_manifest(out / "manifest.jsonl", annotated)
    return AnnotationReport(
        manifest=out / "manifest.jsonl",
        calibration=out / "calibration.json",
        quarantine=out / "quarantine.jsonl",
        num_utterances=len(measured) + len(failures),
        num_annotated=len(measured),
        reasons=dict(Counter(reason.split(":")[0] for _, reason in failures)),
        warnings=calibration.warnings,
        seconds=time.monotonic() - started,
    )


def measure_file(
    utterance: Utterance, *, min_seconds: float = 0.2, max_seconds: float = 30.0
) -> tuple[Utterance, str | None]:
    """Measures one utterance: it comes back with `measured` and `intonation`, or with the reason."""
    path = Path(utterance.audio)
    try:
        waveform = load_audio(path, SAMPLE_RATE, max_seconds=max_seconds)
        _check_waveform(waveform, min_seconds)
        measurement = measure(waveform, SAMPLE_RATE, utterance.text)
    except DataError as error:
        return utterance, str(error).removeprefix(f"{path}: ")
    except Exception as error:  # the boundary: one odd file must not end a run over a corpus
        return utterance, f"unexpected {type(error).__name__}: {error}"
    row = {
        field: round(value, 5) if isinstance(value, float) else value
        for field, value in asdict(measurement).items()
        if value is not None
    }
    absolute = str(path.resolve())
    return replace(utterance, audio=absolute, measured=row, intonation=measurement.intonation), None


def _check_waveform(waveform: np.ndarray, min_seconds: float) -> None:
    seconds = len(waveform) / SAMPLE_RATE
    if seconds < min_seconds:
        raise DataError(f"too short: {seconds:.2f} s, at least {min_seconds:g} s are needed")
    peak = float(np.abs(waveform - waveform.mean()).max())
    if peak < _SILENT_PEAK:
        raise DataError(f"silent: no sample exceeds {_SILENT_PEAK:g} of full scale")
    clipped = float(np.mean(np.abs(waveform) >= 0.999 * np.abs(waveform).max()))
    if clipped > _CLIPPED_SHARE:
        raise DataError(f"clipped: {clipped:.0%} of the samples lie at the limit")


def _measure_all(
    utterances: Sequence[Utterance], num_workers: int, min_seconds: float, max_seconds: float
) -> Iterator[tuple[Utterance, str | None]]:
    """Outcomes in the order of the utterances."""
    if num_workers == 0:
        for utterance in utterances:
            yield measure_file(utterance, min_seconds=min_seconds, max_seconds=max_seconds)
        return
    # Spawned, not forked: the caller may hold threads (torch, Ray) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="prosody-") as marks:
        jobs = [_Job(utterance, min_seconds, max_seconds, marks) for utterance in utterances]
        try:
            with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
                yield from pool.map(_run_job, jobs, chunksize=8)
        except BrokenProcessPool as error:
            files = ", ".join(sorted(mark.read_text() for mark in Path(marks).iterdir()))
            raise DataError(
                f"{files or 'unknown file'}: a measuring process died here (killed, out of memory, or a "
                "crash inside a native library). Remove the file from the manifest, or lower num_workers."
            ) from error


def _run_job(job: _Job) -> tuple[Utterance, str | None]:
    mark = Path(job.marks) / str(os.getpid())
    mark.write_text(job.utterance.audio)
    outcome = measure_file(job.utterance, min_seconds=job.min_seconds, max_seconds=job.max_seconds)
    mark.unlink()
    return outcome


def _without_duplicates(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[tuple[Utterance, str]]]:
    seen: set[str] = set()
    kept, failures = [], []
    for utterance in utterances:
        if utterance.id in seen:
            failures.append((utterance, "duplicate id: an earlier line of the manifest has the same"))
        else:
            seen.add(utterance.id)
            kept.append(utterance)
    return kept, failures


def _write_quarantine(path: Path, failures: Iterable[tuple[Utterance, str]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for utterance, reason in failures:
            row = {"id": utterance.id, "audio": utterance.audio, "reason": reason}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
