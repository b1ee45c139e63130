"""The stages that make data: the corpus, and what is measured of it."""

from __future__ import annotations

import logging

from emotion_task.corpora import make_corpus
from emotion_task.pipeline.early_checks import check_listed
from emotion_task.pipeline.results import Annotated, Listed
from emotion_task.pipeline.settings import corpus_args
from emotion_task.pipeline.workspace import Workspace
from emotion_task.prosody.annotation import annotate as annotate_files
from emotion_task.prosody.files import MeasureConfig
from emotion_task.prosody.store import MeasuredStore

log = logging.getLogger(__name__)


def corpus(work: Workspace) -> Listed:
    """Makes or reads the corpus; leaves `corpus/manifest.jsonl`."""
    config = work.config.corpus
    manifest = make_corpus(
        config.name,
        config.root,
        work.listed.parent,
        args=corpus_args(config),
        seed=work.config.seed,
        num_workers=config.num_workers,
    )
    return Listed(manifest=str(manifest))


def annotate(work: Workspace) -> Annotated:
    """Measures and calibrates; leaves `annotated/manifest.jsonl`. Raises as `check_listed`."""
    check_listed(work)
    config, folder = work.config.corpus, work.annotated.parent
    measuring = MeasureConfig(
        max_seconds=config.max_seconds,
        aligner=config.aligner,
        speaker_classifier=config.speaker_classifier,
        vad=config.vad,
    )
    report = annotate_files(
        work.listed,
        folder,
        config=measuring,
        num_workers=config.num_workers,
        # Of a corpus that has changed a little, little is measured again.
        resume=MeasuredStore(folder).is_of(measuring),
    )
    for warning in report.warnings:
        log.warning("annotation: %s", warning)
    return Annotated(
        num_annotated=report.num_annotated,
        num_quarantined=report.num_quarantined,
        quarantine_reasons=report.reasons,
    )
