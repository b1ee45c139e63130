"""Mistakes of later stages, found before the first is run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from emotion_task.claims.support import learn_table
from emotion_task.config import PipelineConfig
from emotion_task.corpora import check_args
from emotion_task.labels import ALL_LABELS, check_set
from emotion_task.pipeline.settings import corpus_args
from emotion_task.pipeline.workspace import Workspace
from emotion_task.records import Utterance, by_speaker, read_manifest
from emotion_task.sft.tasks import MixtureConfig
from rlcore.config.targets import check_target
from rlcore.errors import ConfigError, DataError
from rlcore.rewards.loading import check_reward

log = logging.getLogger(__name__)

_LABELS = "corpus.args.emotions, rl.task.args.labels"
"""The two settings that name labels."""


def check_config(config: PipelineConfig) -> None:
    """Checks what the later stages are given; nothing is built or read.

    Raises:
        ConfigError: an unknown task or corpus, a reward or task that does not import or does not take its
            arguments.
        DataError: a file that is not there.
    """
    check_args(config.corpus.name, corpus_args(config.corpus), build=True)
    _check_labels(config)
    if not config.sft.weights:
        raise ConfigError("sft.weights: got none; name at least one task, for instance {profile: 1.0}")
    for section in (config.alignment, config.sft, config.cold_start):
        if section.weights:
            MixtureConfig(weights=section.weights, text_data=config.sft.text_data, audio_folder="orders")
    for path in (config.sft.text_data, config.reward_model.graded):
        if path is not None and not Path(path).is_file():
            raise DataError(f"{path}: no such file (sft.text_data, reward_model.graded)")
    check_target(config.rl.task.target, config.rl.task.args, where="rl.task")
    for name, reward in config.rl.rewards.items():
        check_reward(reward, where=f"rl.rewards.{name}")


def _check_labels(config: PipelineConfig) -> None:
    emotions, labels = config.corpus.args.get("emotions"), config.labels
    if emotions is not None:
        check_set(emotions, "corpus.args.emotions")
    if labels is not None and emotions is not None and (unknown := sorted(set(labels) - set(emotions))):
        raise ConfigError(
            f"rl.task.args.labels: {unknown} are not of corpus.args.emotions ({', '.join(emotions)}); "
            "leave rl.task.args.labels out, and the corpus' set is taken"
        )


def check_listed(work: Workspace) -> None:
    """Checks, before a recording is measured, that the listed corpus can be trained and evaluated on.

    Raises:
        DataError: there is no utterance with an emotion in one of the splits, or emotions are none of ours
            and no set of labels is named; names the list.
        ConfigError: a label that no utterance to train on has, or as `check_speakers`.
    """
    utterances, source = read_manifest(work.listed), work.config.corpus.root or work.listed
    _check_emotions(work, utterances, source)
    for split in ("train", "eval"):
        if not any(u.split == split and u.emotion is not None for u in utterances):
            raise DataError(
                f"{source}: none of {len(utterances)} utterances has the split {split!r} and an emotion; "
                "fill the columns `split` (train or eval) and `emotion` of the list, or choose speakers for "
                "each split by corpus.args where the corpus has such arguments"
            )
    check_speakers(work, utterances)


def _check_emotions(work: Workspace, utterances: Sequence[Utterance], source: object) -> None:
    labels, used = work.config.labels, {u.emotion for u in utterances if u.emotion}
    others = sorted(used - set(labels or ALL_LABELS))
    if labels is None and others:
        raise DataError(
            f"{source}: the emotions {others} are none of {list(ALL_LABELS)}; name the whole set of labels "
            "in corpus.args.emotions where the corpus takes that, else in rl.task.args.labels"
        )
    trained = {u.emotion for u in utterances if u.emotion and u.split == "train"}
    if unused := sorted(set(labels or ()) - trained):
        raise ConfigError(
            f"{_LABELS}: no recording of {source} has the emotion {unused} and the split 'train', so no "
            f"stage could learn it; take it out of the labels (the split has {sorted(trained)})"
        )
    if others:
        log.warning("%s: %s are no options of the question, and are left out", source, others)


def check_annotated(work: Workspace) -> None:
    """Checks, before anything is trained, that enough of the corpus was measured.

    Raises:
        ConfigError: a label has no recording to train on whose prosody was measured, or as `check_speakers`.
    """
    check_speakers(work, read_manifest(work.annotated))
    try:
        learn_table(work.split("train"), work.config.labels or ())
    except ConfigError as error:
        quarantine = work.annotated.with_name("quarantine.jsonl")
        raise ConfigError(f"{_LABELS}: {error}. What could not be measured: {quarantine}") from error


def check_speakers(work: Workspace, utterances: Sequence[Utterance]) -> None:
    """Checks that the speakers who are named say something.

    Raises:
        ConfigError: a speaker of `sft.without_speakers` or `rl.task.args.train_speakers` does not.
    """
    config, train = work.config, [u for u in utterances if u.split == "train"]
    by_speaker(train, config.sft.without_speakers, "sft.without_speakers")
    by_speaker(train, config.rl.task.args.get("train_speakers") or (), "rl.task.args.train_speakers")
