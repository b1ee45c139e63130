"""The stages that make data: the corpus, and what is measured of it."""

from __future__ import annotations

import logging

from emotion_task.corpora import make_corpus
from emotion_task.pipeline.results import Annotated, Listed
from emotion_task.pipeline.settings import corpus_args
from emotion_task.pipeline.workspace import Workspace
from emotion_task.prosody.annotation import annotate as annotate_files
from emotion_task.prosody.files import MeasureConfig

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


def annotate(work: Workspace, may_resume: bool) -> Annotated:
    """Measures and calibrates; leaves `annotated/manifest.jsonl`."""
    config = work.config.corpus
    report = annotate_files(
        work.listed,
        work.annotated.parent,
        config=MeasureConfig(
            max_seconds=config.max_seconds,
            aligner=config.aligner,
            speaker_classifier=config.speaker_classifier,
        ),
        num_workers=config.num_workers,
        resume=may_resume,
    )
    for warning in report.warnings:
        log.warning("annotation: %s", warning)
    return Annotated(
        num_annotated=report.num_annotated,
        num_quarantined=report.num_quarantined,
        quarantine_reasons=report.reasons,
    )
