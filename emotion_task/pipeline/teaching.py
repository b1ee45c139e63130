"""The stages that teach models: base model, alignment, prosody SFT, cold start, reward model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace

from emotion_task.claims.support import learn_table
from emotion_task.config import AlignmentConfig, ColdStartConfig, SFTConfig, SupervisedConfig
from emotion_task.cot.template import TemplateWriter
from emotion_task.models.tiny import build_tiny_model
from emotion_task.pipeline.results import Aligned, Model
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.pipeline.workspace import Workspace
from emotion_task.records import Utterance, by_speaker
from emotion_task.reward_model.data import read_graded, training_examples
from emotion_task.sft.examples import Question, format_examples
from emotion_task.sft.mixing import mix
from emotion_task.sft.tasks import MixtureConfig, may_reveal


def base_model(work: Workspace) -> Model:
    """Returns the checkpoint to start from: the configured one, or the tiny model, made here."""
    if work.config.base_model is not None:
        return Model(model=work.config.base_model)
    tiny = replace(work.config.tiny, seed=work.config.seed)
    return Model(model=str(build_tiny_model(work.run_dir / "base", tokenizer_corpus(work.labels()), tiny)))


def align(work: Workspace, base: str, may_resume: bool) -> Aligned:
    """Teaches the base model to hear, where it does not yet."""
    config, aligned = work.config.alignment, Aligned(model=base)
    if config.fit:
        aligned = fit(work, base)
    if config.weights:
        taught = teach(work, "alignment", config, aligned.model, 0.0, may_resume=may_resume)
        aligned = replace(aligned, model=taught.model)
    return aligned


def fit(work: Workspace, base: str) -> Aligned:
    """Fits the base model's projector in closed form; leaves `projector/model`."""
    from emotion_task.sft.projector import fit_projector

    sft, seed = work.config.sft, work.config.seed

    def as_seen(utterance: Utterance) -> Utterance:
        is_heard = utterance.speaker not in sft.without_speakers
        may_see = is_heard and may_reveal(utterance, sft.label_fraction, seed)
        return utterance if may_see else replace(utterance, emotion=None)

    folder, utterances = work.run_dir / "projector" / "model", list(map(as_seen, work.split("train")))
    shutil.rmtree(folder, ignore_errors=True)
    cache = sft.train.media_cache
    fitted = fit_projector(base, utterances, folder, labels=work.labels(), cache_folder=cache)
    heard = ", ".join(f"{name} {recall:.2f}" for name, recall in fitted["recall"].items())
    work.say(f"penalty {fitted['strength']:g}; recall of speakers that were left out: {heard}")
    return Aligned(model=str(folder), fit=fitted)


def sft(work: Workspace, base: str, may_resume: bool) -> Model:
    """Teaches prosody and reasoning, on the part of the emotion labels that SFT may see."""
    config = work.config.sft
    return teach(work, "sft", config, base, config.label_fraction, may_resume=may_resume)


def cold_start(work: Workspace, base: str, may_resume: bool) -> Model:
    """Adds the second stage of SFT, where there is one."""
    config = work.config.cold_start
    if not config.weights:
        return Model(model=base)
    fraction = work.config.sft.label_fraction
    return teach(work, "cold_start", config, base, fraction, may_resume=may_resume)


def reward_model(work: Workspace, base: str, may_resume: bool) -> Model:
    """Fine-tunes the SFT model to hear what it grades by, and to grade responses that are good or bad in
    known ways."""
    config, seed = work.config.reward_model, work.config.seed
    utterances = work.split("train")
    table = learn_table(utterances, work.config.labels or ())
    questions = training_examples(
        utterances,
        TemplateWriter(quote_rate=work.config.sft.quote_rate),
        config.train.num_steps * config.train.batch_size,
        seed=seed,
        table=table,
        listening=config.listening,
        per_utterance=config.per_utterance,
        imported=read_graded(config.graded, utterances, table, seed=seed) if config.graded else (),
    )
    trained = _fine_tune(work, "reward_model", questions, base, config.train, may_resume=may_resume)
    table.write(trained.model)
    return trained


def teach(
    work: Workspace,
    name: str,
    config: AlignmentConfig | SFTConfig | ColdStartConfig,
    base: str,
    label_fraction: float,
    *,
    may_resume: bool,
) -> Model:
    """Trains a model on a mixture of tasks; leaves `run_dir/NAME/model`.

    Args:
        name: of the stage: `alignment`, `sft`, `cold_start` or `sft_full`.
        config: gives the tasks' weights and the training.
        base: checkpoint to start from.
        label_fraction: share of the utterances whose emotion may be seen.
    """
    from rlcore.models.hf_model import load_processor

    sft, utterances = work.config.sft, work.split("train")
    writer = TemplateWriter(quote_rate=sft.quote_rate)
    if name in ("sft", "cold_start"):
        _, utterances = by_speaker(utterances, sft.without_speakers, "sft.without_speakers")
        writer = TemplateWriter(quote_rate=sft.quote_rate, fact_rate=sft.fact_rate)
    window = getattr(load_processor(base).feature_extractor, "chunk_length", None)
    training, validation = mix(
        utterances,
        MixtureConfig(
            weights=config.weights,
            label_fraction=label_fraction,
            seed=work.config.seed,
            text_data=sft.text_data,
            audio_folder=str(work.run_dir / "orders"),
            max_seconds=min(work.config.corpus.max_seconds, window or math.inf),
        ),
        writer,
        num_examples=config.train.num_steps * config.train.batch_size,
        num_validation=0 if name in ("alignment", "sft_full") else sft.num_validation,
        labels=work.labels(),
        num_workers=work.config.corpus.num_workers,
    )
    return _fine_tune(work, name, training, base, config.train, validation, may_resume=may_resume)


def _fine_tune(
    work: Workspace,
    name: str,
    questions: Sequence[Question],
    base: str,
    train: SupervisedConfig,
    validation: Sequence[Question] = (),
    *,
    may_resume: bool,
) -> Model:
    from emotion_task.sft.job import run_supervised
    from rlcore.models.hf_model import load_processor

    processor = load_processor(base)
    folder = work.run_dir / name
    if not may_resume:
        shutil.rmtree(folder, ignore_errors=True)
    trained = run_supervised(
        format_examples(processor, questions, work.config.sft.label_weight),
        base,
        folder,
        train,
        seed=work.config.seed,
        name=name,
        validation=format_examples(processor, validation),
    )
    work.add_companions(trained)
    return Model(model=str(trained))
