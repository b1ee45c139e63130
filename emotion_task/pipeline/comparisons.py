"""The stages beside the line: what its models are read against."""

from __future__ import annotations

import logging
from dataclasses import replace

from emotion_task.evaluation.reference import egemaps_classifier, prosody_classifier
from emotion_task.pipeline.results import Metrics, Perceived, References
from emotion_task.pipeline.teaching import teach
from emotion_task.pipeline.workspace import Workspace
from rlcore.errors import MissingDependencyError

log = logging.getLogger(__name__)


def classifiers(work: Workspace) -> References:
    """Scores classical classifiers on the voice alone, and the majority class."""
    train, evaluation = work.split("train"), work.split("eval")
    references = References(classifier=prosody_classifier(train, evaluation))
    if work.config.egemaps:
        try:
            references = replace(references, egemaps=egemaps_classifier(train, evaluation))
        except MissingDependencyError as error:
            log.warning("the report will lack the eGeMAPS reference: %s", error)
    return references


def perception(work: Workspace, base: str, taught: str) -> Perceived:
    """Tests what SFT has taught to hear, against the base model; leaves `perception/perception.md`."""
    from emotion_task.perception.hearing import write_perception

    config = work.config
    if config.perception == 0:
        return Perceived(report={})
    weights = {**config.sft.weights, **config.cold_start.weights}
    report = write_perception(
        work.annotated,
        {"base": base, "SFT": taught},
        work.run_dir / "perception",
        form="profile" if weights.get("profile") and not weights.get("pitch") else "single",
        limit=config.perception,
        seed=config.seed,
    )
    return Perceived(report=report)


def full_label_sft(work: Workspace, base: str, may_resume: bool) -> Metrics:
    """Trains the SFT model on with every emotion label, and evaluates it like the policy."""
    from rlcore.run import evaluate

    config, rl = work.config.sft, work.config.rl
    if config.full_label_steps == 0:
        return Metrics(metrics={})
    every_label = replace(
        config,
        train=replace(config.train, num_steps=config.full_label_steps),
        weights={"reasoning": 1.0},
    )
    trained = teach(work, "sft_full", every_label, base, label_fraction=1.0, may_resume=may_resume)
    run_dir = str(work.run_dir / "sft_full")
    return Metrics(
        metrics=evaluate(replace(rl, run_dir=run_dir, model=replace(rl.model, path=trained.model)))
    )
