"""Measures prosody and calibrates levels: `emotion annotate`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands

if TYPE_CHECKING:
    from emotion_task.records import Utterance


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `annotate` to the commands."""
    from emotion_task.corpora import corpus_names

    others = [name for name in corpus_names() if name != "manifest"]
    parser = commands.add_parser(
        "annotate",
        parents=parents,
        help="measure prosody and calibrate levels",
        description="Measures every recording of a manifest (JSONL, CSV or Parquet with a column `audio`, "
        "and where known text, emotion, speaker, gender, split) or of a corpus in its owner's layout, "
        "calibrates low/normal/high, and writes manifest.jsonl, calibration.json and quarantine.jsonl.",
    )
    parser.add_argument("source", metavar="MANIFEST|FOLDER")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for the reader, such as eval_speakers=[KL]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--corpus",
        default="manifest",
        help=f"reader of SOURCE: manifest (default), {', '.join(others[:-1])} or {others[-1]}",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="FIELD=COLUMN",
        help="columns of a list that are not called as the fields, such as text=sentence",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="OTHER=OURS",
        help="labels of a list in our terms, such as cheery=happy; `bored=` leaves such rows out",
    )
    parser.add_argument(
        "--split-by-speaker",
        metavar="SHARES",
        help="new splits without a shared speaker, such as 0.8/0.2 (train, eval) or 0.8/0.1/0.1 (the part "
        "between is in neither)",
    )
    parser.add_argument("--calibration", metavar="FILE", help="apply these cut points, make none")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="quarantine longer files")
    parser.add_argument("--language", default="en", help="of transcripts whose corpus does not tell")
    _add_plugins(parser)
    parser.add_argument(
        "--pass",
        dest="only",
        choices=("measure", "calibrate"),
        help="only the first, or only the second over what the first left (default: both)",
    )
    parser.add_argument(
        "--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"), help="cut points (default: thirds)"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what OUT holds")
    parser.add_argument(
        "--workers", type=int, help="processes (default: every CPU of the Ray cluster; 0: this process)"
    )
    parser.set_defaults(run=run)


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--aligner",
        metavar="MODULE:CLASS",
        help="finds words, for stress, such as emotion_task.prosody.align:SynthesisAligner (default: none)",
    )
    parser.add_argument(
        "--speaker-classifier",
        metavar="MODULE:CLASS",
        help="hears gender and age, such as emotion_task.prosody.speaker:PitchGender (default: none)",
    )
    parser.add_argument(
        "--vad",
        metavar="MODULE:CLASS",
        help="hears where somebody speaks, such as emotion_task.prosody.vad:SileroVad (default: the level)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Annotates the source, prints what became of its recordings and returns 0."""
    from emotion_task.prosody.annotation import calibrate_corpus, measure_corpus
    from emotion_task.prosody.calibrate import TERTILES
    from emotion_task.prosody.files import MeasureConfig

    utterances = _listed(arguments)
    if arguments.only != "calibrate":
        config = MeasureConfig(
            max_seconds=arguments.max_seconds,
            language=arguments.language,
            aligner=arguments.aligner,
            speaker_classifier=arguments.speaker_classifier,
            vad=arguments.vad,
        )
        measure_corpus(
            utterances,
            arguments.out,
            config=config,
            num_workers=arguments.workers,
            resume=not arguments.fresh,
        )
    if arguments.only == "measure":
        print(arguments.out / "measured.jsonl")
        return 0
    report = calibrate_corpus(
        utterances,
        arguments.out,
        calibration=arguments.calibration,
        percentiles=tuple(arguments.percentiles) if arguments.percentiles else TERTILES,
    )
    for warning in report.warnings:
        print(f"warning: {warning}")
    done = f"{report.num_annotated} of {report.num_utterances} annotated"
    print(f"{report.manifest}: {done}")
    if report.num_quarantined:
        print(f"{report.quarantine}: {report.num_quarantined} left out: {report.reasons}")
    return 0


def _listed(arguments: argparse.Namespace) -> list[Utterance]:
    """Lists the corpus' utterances. What its reader leaves out, and why, is printed."""
    from emotion_task.corpora import load_corpus
    from rlcore.config.io import parse_overrides

    logging.basicConfig(format="%(message)s")
    logging.getLogger("emotion_task.corpora").setLevel(logging.INFO)
    args = parse_overrides(arguments.overrides)
    for name in ("columns", "labels"):
        if (pairs := getattr(arguments, name)) is not None:
            args[name] = _pairs(f"--{name}", pairs)
    if arguments.split_by_speaker is not None:
        args["split_by_speaker"] = arguments.split_by_speaker
    return load_corpus(arguments.corpus, arguments.source, **args)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str | None]:
    """Reads `NAME=VALUE` texts; None where nothing stands after the sign."""
    from rlcore.errors import ConfigError

    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, sign, _ in pairs if not sign]:
        form = "FIELD=COLUMN" if option == "--columns" else "OTHER=OURS"
        raise ConfigError(f"{option}: got {wrong[0]!r}; it is {form}")
    return {name: value or None for name, _, value in pairs}
