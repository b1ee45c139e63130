"""Annotates a corpus in two passes: measures every file, then calibrates levels and writes the manifest.

    out/measured.jsonl     measurements, appended as they are made; a killed run goes on from here
    out/quarantine.jsonl   id, audio and reason of every file that could not be measured
    out/calibration.json   the cut points; calibration.md and .png show them
    out/manifest.jsonl     utterances with measured fields and levels
    out/audio/             what was decoded from videos and the like, and channels that rows name

Each utterance that comes in goes out once, in the manifest or in quarantine. What the corpus tells (stressed
words, gender, age) is kept; what the corpus does not tell is filled where a plug-in is sure, else None.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_task.corpora.reading.decode import decode_containers
from emotion_task.prosody.audio import cut_channels
from emotion_task.prosody.calibrate import TERTILES, Calibration, apply_calibration, calibrate
from emotion_task.prosody.files import MeasureConfig, Measured, Outcome, build_plugins, measure_file
from emotion_task.prosody.levels_report import write_report
from emotion_task.prosody.speaker import fill_traits
from emotion_task.prosody.store import MeasuredStore, key_of, stamp_of
from emotion_task.records import Utterance, broken_text, read_manifest, shared_by_splits, write_manifest
from rlcore.errors import DataError
from rlcore.records.files import read_rows, write_rows
from rlcore.records.progress import Progress

log = logging.getLogger(__name__)

Source = str | Path | Iterable[Utterance]
Failures = list[tuple[Utterance, str]]


@dataclass(frozen=True, slots=True)
class AnnotationReport:
    """Holds the results of an annotation: the files written, and how many utterances each of them got."""

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


def annotate(
    source: Source,
    out_folder: str | Path,
    *,
    config: MeasureConfig | None = None,
    calibration: Calibration | str | Path | None = None,
    percentiles: tuple[float, float] = TERTILES,
    num_workers: int | None = None,
    resume: bool = True,
    progress: bool = True,
) -> AnnotationReport:
    """Runs both passes over a corpus: `measure_corpus`, then `calibrate_corpus`, whose arguments and errors
    are also these."""
    started = time.monotonic()
    utterances = _read(source, out_folder, progress)
    measure_corpus(
        utterances, out_folder, config=config, num_workers=num_workers, resume=resume, progress=progress
    )
    report = calibrate_corpus(utterances, out_folder, calibration=calibration, percentiles=percentiles)
    return replace(report, seconds=time.monotonic() - started)


def measure_corpus(
    source: Source,
    out_folder: str | Path,
    *,
    config: MeasureConfig | None = None,
    num_workers: int | None = None,
    resume: bool = True,
    progress: bool = True,
) -> None:
    """Measures every utterance of a corpus (first pass). What `out_folder` already holds is not measured
    again, unless its recording was replaced (another size or time of change); the log says how many were.

    Args:
        source: a manifest's path, or utterances whose audio paths are absolute or valid from the working
            directory.
        num_workers: number of processes; None for every CPU of the Ray cluster (the job's, or a local one), 0
            to measure in this process.
        resume: whether measurements of an earlier run in `out_folder` are kept.

    Raises:
        DataError: The manifest is unusable, or the folder holds measurements of other settings.
        ConfigError: A plug-in of `config` cannot be built.
    """
    config = config or MeasureConfig()
    build_plugins(config)  # built here, so that an error reaches the user at once
    out = Path(out_folder)
    utterances, failures = _usable(_read(source, out, progress))
    with MeasuredStore(out).open(config, resume=resume) as store:
        # An earlier run's: until this one has ended, nobody knows what is unusable.
        (out / "quarantine.jsonl").unlink(missing_ok=True)
        jobs = {key_of(utterance): utterance for utterance in utterances}
        pending = [(key, utterance) for key, utterance in jobs.items() if store.found.of(utterance) is None]
        if replaced := [utterance.audio for _, utterance in pending if store.found.is_replaced(utterance)]:
            told = "%s: %d recordings were replaced since they were measured, and are measured again: %s%s"
            log.warning(told, out, len(replaced), replaced[0], ", ..." if len(replaced) > 1 else "")
        stamps = {key: stamp_of(utterance) for key, utterance in pending}
        bar = Progress(
            _outcomes(pending, config, num_workers),
            total=len(jobs),
            initial=len(jobs) - len(pending),
            desc="prosody",
            unit="utt",
            disable=not progress,
        )
        for outcome in bar:
            store.add(outcome, stamps[outcome.key])
            if outcome.reason is not None:
                failures.append((jobs[outcome.key], outcome.reason))
        _write_quarantine(out / "quarantine.jsonl", failures)


def calibrate_corpus(
    source: Source,
    out_folder: str | Path,
    *,
    calibration: Calibration | str | Path | None = None,
    percentiles: tuple[float, float] = TERTILES,
) -> AnnotationReport:
    """Reads what `measure_corpus` left and writes calibration, report and manifest (second pass, in seconds).

    Args:
        calibration: cut points to apply, as an object or a file; by default they are made from the
            `train` split, or from everything where no utterance has that split.
        percentiles: where values are cut, if `calibration` is None.

    Raises:
        DataError: The calibration is unusable, an utterance was not measured yet, or none could be.
    """
    started, out = time.monotonic(), Path(out_folder)
    listed = _listed(source)
    utterances = _read(listed, out)
    if isinstance(calibration, str | Path):
        calibration = Calibration.load(calibration)
    quarantine = _read_quarantine(out / "quarantine.jsonl")
    reasons = dict(Counter(row["reason"].split(":")[0] for row in quarantine))
    measured = fill_traits(_join(utterances, out, {row["id"] for row in quarantine}))
    if calibration is None:
        train = [utterance for utterance in measured if utterance.split == "train"]
        calibration = calibrate(train or measured, percentiles)
    annotated = [apply_calibration(calibration, utterance) for utterance in measured]
    calibration.save(out / "calibration.json")
    report = write_report(out, calibration, annotated, reasons, shared_by_splits(listed))
    write_manifest(out / "manifest.jsonl", annotated)
    return AnnotationReport(
        manifest=out / "manifest.jsonl",
        calibration=out / "calibration.json",
        quarantine=out / "quarantine.jsonl",
        num_utterances=len(utterances),
        num_annotated=len(annotated),
        reasons=reasons,
        warnings=tuple(report["warnings"]),
        seconds=time.monotonic() - started,
    )


def _listed(source: Source) -> list[Utterance]:
    return read_manifest(source) if isinstance(source, str | Path) else list(source)


def _read(source: Source, out: str | Path, progress: bool = False) -> list[Utterance]:
    """Returns the utterances, with files of their own in `out` in the place of recordings that are not read
    as they are."""
    folder = Path(out) / "audio"
    return cut_channels(decode_containers(_listed(source), folder, progress=progress), folder)


def _outcomes(
    jobs: Sequence[tuple[str, Utterance]], config: MeasureConfig, num_workers: int | None
) -> Iterator[Outcome]:
    if not jobs:
        return
    if num_workers == 0:
        for key, utterance in jobs:
            measured, reason = measure_file(utterance, config)
            yield Outcome(key=key, measured=measured, reason=reason)
        return
    from emotion_task.prosody.stream import stream_outcomes

    yield from stream_outcomes(jobs, config, num_workers)


def _join(utterances: Sequence[Utterance], out: Path, quarantined: set[str]) -> list[Utterance]:
    """Returns the measured utterances, in the order of the corpus; checks that none is missing."""
    store = MeasuredStore(out).read()
    unique, _ = _usable(utterances)
    found = [(utterance, store.of(utterance)) for utterance in unique]
    measured = [with_measured(utterance, row) for utterance, row in found if row is not None]
    missing = [u.id for u, row in found if row is None and u.id not in quarantined]
    if missing:
        raise DataError(
            f"{out}: {len(missing)} of {len(utterances)} utterances were not measured yet ({missing[0]}, "
            "...), or not as their recordings are now. Run the measuring pass to its end first: the same "
            "command goes on where it was."
        )
    if not measured:
        raise DataError(
            f"{out / 'quarantine.jsonl'}: none of {len(utterances)} utterances could be measured; it says why"
        )
    return measured


def with_measured(utterance: Utterance, measured: Measured) -> Utterance:
    """Returns the utterance with its measurements, and with the fields that follow from them without a
    calibration: `intonation`, `stressed_words` where the corpus tells none, and an absolute `audio`."""
    stressed, times = measured.get("stressed_word"), measured.get("word_times")
    words = utterance.stressed_words
    if words is None and stressed is not None and times:
        words = [times[stressed][0]]
    return replace(
        utterance,
        audio=str(Path(utterance.audio).resolve()),
        measured=measured,
        intonation=measured.get("intonation"),
        stressed_words=words,
    )


def _usable(utterances: Iterable[Utterance]) -> tuple[list[Utterance], Failures]:
    """Returns the utterances to be measured, and the others with the reason that their rows give."""
    seen: set[str] = set()
    kept, failures = [], []
    for utterance in utterances:
        if (broken := broken_text(utterance)) is not None:
            failures.append((utterance, broken))
        elif utterance.id in seen:
            failures.append((utterance, "duplicate id: an earlier line of the manifest has the same"))
        else:
            seen.add(utterance.id)
            kept.append(utterance)
    return kept, failures


def _write_quarantine(path: Path, failures: Failures) -> None:
    write_rows(path, ({"id": u.id, "audio": u.audio, "reason": reason} for u, reason in failures))


def _read_quarantine(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path.parent}: nothing was measured to its end here. Run the measuring pass first.")
    return list(read_rows(path))
