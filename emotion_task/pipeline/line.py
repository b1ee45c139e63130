"""The whole line, from recordings to a model that explains emotions better than before.

    corpus -> annotate -> base model -> (alignment) -> prosody SFT -> (cold start) -> reward model
        -> GRPO-PTR -> report;  beside it: perception test, full-label SFT (reference)

Every stage writes a folder of its own below `run_dir` and is not run again once it is finished there with the
same settings, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emotion_task.config import (
    AlignmentConfig,
    ColdStartConfig,
    PipelineConfig,
    SFTConfig,
    SupervisedConfig,
)
from emotion_task.labels import labels_among
from emotion_task.pipeline.estimate import describe, estimate
from emotion_task.pipeline.stages import Stages
from emotion_task.records import Utterance, by_speaker, read_manifest
from emotion_task.sft.examples import Question
from rlcore.config.targets import check_target
from rlcore.errors import DataError, MissingDependencyError, StoppedError
from rlcore.records.checkpoint import LAYOUT, run_settings
from rlcore.rewards.loading import check_reward

log = logging.getLogger(__name__)


_UPKEEP = ("max_failures", "min_ranks", "feature_cache_mb", "ingest_cpus", "media_cache")
"""Settings of a supervised stage that do not change its model; and those of `LAYOUT` of its learner."""


def _lasting(config: Any, *, validates: bool = False) -> dict[str, Any]:
    """A supervised stage's settings, without those that do not change its model. Where it `validates`, that
    is the best of its checkpoints, so their times count."""
    fields = asdict(config)
    for name in _UPKEEP if validates else (*_UPKEEP, "checkpoint_every"):
        del fields["train"][name]
    for name in LAYOUT["learner"]:
        del fields["train"]["learner"][name]
    fields.pop("full_label_steps", None)  # of a stage of its own
    return fields


class Pipeline:
    """One run of the line. Each stage is a method that returns a JSON-ready result."""

    def __init__(self, config: PipelineConfig):
        self.config = config
        self.run_dir = Path(config.run_dir).resolve()
        self.stages = Stages(self.run_dir)

    def run(self, until: str | None = None) -> dict[str, Any]:
        """Runs the stages, up to and with `until` (all by default), and returns the last one's result; at
        the end that is the summary, which is also written to `run_dir/summary.json`."""
        from emotion_task.pipeline.summary import write_summary
        from emotion_task.sft.projector import check_base_model
        from rlcore.actors.session import ray_session
        from rlcore.config import save_config

        config = self.config
        self.check()
        save_config(config, self.run_dir / "config.yaml")
        stages = self._line()
        finished = self.stages.finished((name, settings) for name, settings, _ in stages)
        if config.base_model is not None and "sft" not in finished:
            check_base_model(config.base_model, fits=config.alignment.fit)
        if (planned := estimate(config)) is not None:
            self.stages.expected = planned.seconds()
            print(describe(planned, finished), flush=True)
        with ray_session(config.rl.cluster):
            for name, settings, work in stages:
                result = self.stages.run(name, settings, work)
                if name == "annotate":
                    self._check_speakers()
                if name == until:
                    return result
        return write_summary(self.run_dir, config, self.stages.results, self.stages.seconds)

    def _line(self) -> tuple[tuple[str, Any, Callable[[bool], dict[str, Any]]], ...]:
        """Name of each stage, what its result hangs on beside the stages before it, and its work."""
        config = self.config
        corpus, sft = replace(config.corpus, num_workers=1), config.sft
        validates = sft.num_validation > 0
        # Without it the stage leaves that reference out; once it is installed, it is run again.
        has_opensmile = config.egemaps and importlib.util.find_spec("opensmile") is not None
        return (
            ("corpus", [corpus, config.seed], self.corpus),
            ("annotate", corpus, self.annotate),
            ("reference", [config.egemaps, has_opensmile], self.reference),
            ("base_model", [config.base_model, config.tiny], self.base_model),
            ("alignment", self._alignment_settings(), self.alignment),
            ("sft", _lasting(sft, validates=validates), self.sft),
            ("cold_start", _lasting(config.cold_start, validates=validates), self.cold_start),
            ("perception", config.perception, self.perception),
            ("reward_model", _lasting(config.reward_model), self.reward_model),
            # A run that may be resumed elsewhere, or with other deadlines, is the same run.
            ("rl", run_settings(config.rl), self.rl),
            ("full_label_sft", sft.full_label_steps, self.full_label_sft),
        )

    def _alignment_settings(self) -> list[Any]:
        config, sft = self.config.alignment, self.config.sft
        settings: list[Any] = [_lasting(config), sft.quote_rate, sft.text_data]
        # A fit sees the emotions that SFT may see.
        return [*settings, sft.label_fraction, sft.without_speakers] if config.fit else settings

    def check(self) -> None:
        """Finds mistakes of later stages before the first is run.

        Raises:
            ConfigError: an unknown task or corpus, a reward or task that does not import or does not take its
                arguments.
            DataError: a file that is not there.
        """
        from emotion_task.corpora import check_args
        from emotion_task.sft.tasks import MixtureConfig

        config = self.config
        args = [name for name, value in config.corpus.args.items() if value is not None]
        check_args(config.corpus.name, args, build=True)
        for section in (config.alignment, config.sft, config.cold_start):
            if section.weights:
                MixtureConfig(weights=section.weights, text_data=config.sft.text_data, audio_folder="orders")
        for path in (config.sft.text_data, config.reward_model.graded):
            if path is not None and not Path(path).is_file():
                raise DataError(f"{path}: no such file (sft.text_data, reward_model.graded)")
        check_target(config.rl.task.target, config.rl.task.args, where="rl.task")
        for name, reward in config.rl.rewards.items():
            check_reward(reward, where=f"rl.rewards.{name}")

    def _check_speakers(self) -> None:
        by_speaker(self._split("train"), self.config.sft.without_speakers, "sft.without_speakers")
        of_rl = self.config.rl.task.args.get("train_speakers") or ()
        by_speaker(self._split("train"), of_rl, "rl.task.args.train_speakers")

    def corpus(self, may_resume: bool) -> dict[str, Any]:
        """Makes or reads the corpus; leaves `corpus/manifest.jsonl`."""
        corpus, folder = self.config.corpus, self.run_dir / "corpus"
        args = {name: value for name, value in corpus.args.items() if value is not None}
        if corpus.name == "synthetic":
            from emotion_task.corpora.synthetic import build_corpus

            build_corpus(folder, seed=self.config.seed, num_workers=corpus.num_workers, **args)
        else:
            from emotion_task.corpora import load_corpus
            from emotion_task.corpora.decode import decode_containers
            from emotion_task.records import write_manifest

            listed = load_corpus(corpus.name, str(corpus.root), **args)
            write_manifest(folder / "manifest.jsonl", decode_containers(listed, folder / "audio"))
        return {"manifest": str(folder / "manifest.jsonl")}

    def annotate(self, may_resume: bool) -> dict[str, Any]:
        """Measures and calibrates; leaves `annotated/manifest.jsonl`."""
        from emotion_task.prosody.files import MeasureConfig
        from emotion_task.prosody.pipeline import annotate

        corpus = self.config.corpus
        report = annotate(
            self.run_dir / "corpus" / "manifest.jsonl",
            self.run_dir / "annotated",
            config=MeasureConfig(
                max_seconds=corpus.max_seconds,
                aligner=corpus.aligner,
                speaker_classifier=corpus.speaker_classifier,
            ),
            num_workers=corpus.num_workers,
            resume=may_resume,
        )
        for warning in report.warnings:
            log.warning("annotation: %s", warning)
        return {
            "num_annotated": report.num_annotated,
            "num_quarantined": report.num_quarantined,
            "quarantine_reasons": report.reasons,
        }

    def reference(self, may_resume: bool) -> dict[str, Any]:
        """What classical classifiers get from the voice, and the majority class."""
        from emotion_task.evaluation.reference import egemaps_classifier, prosody_classifier

        train, evaluation = self._split("train"), self._split("eval")
        result: dict[str, Any] = {"classifier": asdict(prosody_classifier(train, evaluation))}
        if self.config.egemaps:
            try:
                result["egemaps"] = asdict(egemaps_classifier(train, evaluation))
            except MissingDependencyError as error:
                log.warning("the report will lack the eGeMAPS reference: %s", error)
        return result

    def base_model(self, may_resume: bool) -> dict[str, Any]:
        """The checkpoint to start from: the configured one, or the tiny model."""
        from emotion_task.models.tiny import build_tiny_model
        from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus

        if self.config.base_model is not None:
            return {"model": self.config.base_model}
        tiny = replace(self.config.tiny, seed=self.config.seed)
        return {"model": str(build_tiny_model(self.run_dir / "base", tokenizer_corpus(), tiny))}

    def alignment(self, may_resume: bool) -> dict[str, Any]:
        """Teaches the base model to hear, where it does not yet."""
        config, result = self.config.alignment, dict(self.stages.results["base_model"])
        if config.fit:
            result |= self._fit_projector(result["model"])
        if config.weights:
            result |= self._teach("alignment", config, result["model"], 0.0, may_resume=may_resume)
        return result

    def _fit_projector(self, model: str) -> dict[str, Any]:
        from emotion_task.sft.projector import fit_projector
        from emotion_task.sft.tasks import may_reveal

        sft, seed = self.config.sft, self.config.seed

        def as_seen(utterance: Utterance) -> Utterance:
            is_heard = utterance.speaker not in sft.without_speakers
            may_see = is_heard and may_reveal(utterance, sft.label_fraction, seed)
            return utterance if may_see else replace(utterance, emotion=None)

        folder, utterances = self.run_dir / "projector" / "model", list(map(as_seen, self._split("train")))
        shutil.rmtree(folder, ignore_errors=True)
        cache = sft.train.media_cache
        fitted = fit_projector(model, utterances, folder, labels=self._labels(), cache_folder=cache)
        return {"model": str(folder), "fit": fitted}

    def sft(self, may_resume: bool) -> dict[str, Any]:
        """Prosody SFT on the part of the emotion labels that it may see."""
        config, model = self.config.sft, self.stages.results["alignment"]["model"]
        return self._teach("sft", config, model, config.label_fraction, may_resume=may_resume)

    def cold_start(self, may_resume: bool) -> dict[str, Any]:
        """The second stage of SFT, where there is one."""
        config, first = self.config.cold_start, self.stages.results["sft"]
        if not config.weights:
            return first
        fraction = self.config.sft.label_fraction
        return self._teach("cold_start", config, first["model"], fraction, may_resume=may_resume)

    def perception(self, may_resume: bool) -> dict[str, Any]:
        """What SFT has taught to hear, against the base model; leaves `perception/perception.md`."""
        from emotion_task.perception.report import write_perception

        if self.config.perception == 0:
            return {}
        taught = {**self.config.sft.weights, **self.config.cold_start.weights}
        results = self.stages.results
        return write_perception(
            self.run_dir / "annotated" / "manifest.jsonl",
            {"base": results["base_model"]["model"], "SFT": results["cold_start"]["model"]},
            self.run_dir / "perception",
            form="profile" if taught.get("profile") and not taught.get("pitch") else "single",
            limit=self.config.perception,
            seed=self.config.seed,
        )

    def full_label_sft(self, may_resume: bool) -> dict[str, Any]:
        """For reference: the SFT model trained on with every emotion label, evaluated like the policy."""
        from rlcore.run import evaluate

        config, rl = self.config.sft, self.config.rl
        steps = config.full_label_steps
        if steps == 0:
            return {}
        model, train = self.stages.results["cold_start"]["model"], replace(config.train, num_steps=steps)
        every_label = replace(config, train=train, weights={"reasoning": 1.0})
        trained = self._teach("sft_full", every_label, model, label_fraction=1.0, may_resume=may_resume)
        run_dir = str(self.run_dir / "sft_full")
        return evaluate(replace(rl, run_dir=run_dir, model=replace(rl.model, path=trained["model"])))

    def _teach(
        self,
        name: str,
        config: AlignmentConfig | SFTConfig | ColdStartConfig,
        model: str,
        label_fraction: float,
        *,
        may_resume: bool,
    ) -> dict[str, Any]:
        """Fine-tunes a model on a mixture of tasks."""
        from emotion_task.cot.template import TemplateWriter
        from emotion_task.sft.mixing import mix
        from emotion_task.sft.tasks import MixtureConfig
        from rlcore.models.hf_model import load_processor

        sft, utterances = self.config.sft, self._split("train")
        writer = TemplateWriter(quote_rate=sft.quote_rate)
        if name in ("sft", "cold_start"):
            _, utterances = by_speaker(utterances, sft.without_speakers, "sft.without_speakers")
            writer = TemplateWriter(quote_rate=sft.quote_rate, fact_rate=sft.fact_rate)
        window = getattr(load_processor(model).feature_extractor, "chunk_length", None)
        training, validation = mix(
            utterances,
            MixtureConfig(
                weights=config.weights,
                label_fraction=label_fraction,
                seed=self.config.seed,
                text_data=sft.text_data,
                audio_folder=str(self.run_dir / "orders"),
                max_seconds=min(self.config.corpus.max_seconds, window or math.inf),
            ),
            writer,
            num_examples=config.train.num_steps * config.train.batch_size,
            num_validation=0 if name in ("alignment", "sft_full") else sft.num_validation,
            labels=self._labels(),
            num_workers=self.config.corpus.num_workers,
        )
        return self._fine_tune(name, training, model, config.train, validation, may_resume=may_resume)

    def reward_model(self, may_resume: bool) -> dict[str, Any]:
        """The SFT model fine-tuned to hear what it grades by, and to grade responses that are good or bad in
        known ways."""
        from emotion_task.cot.template import TemplateWriter
        from emotion_task.reward_model.data import read_graded, training_examples

        config, seed = self.config.reward_model, self.config.seed
        utterances = self._split("train")
        questions = training_examples(
            utterances,
            TemplateWriter(quote_rate=self.config.sft.quote_rate),
            config.train.num_steps * config.train.batch_size,
            seed=seed,
            listening=config.listening,
            per_utterance=config.per_utterance,
            imported=read_graded(config.graded, utterances, seed=seed) if config.graded else (),
        )
        model = self.stages.results["cold_start"]["model"]
        return self._fine_tune("reward_model", questions, model, config.train, may_resume=may_resume)

    def rl(self, may_resume: bool) -> dict[str, Any]:
        """GRPO-PTR from the SFT model."""
        from rlcore.run import train

        result = train(self.config.rl, resume=may_resume)
        if result["stopped_by"] is not None:
            raise StoppedError(
                f"stopped by {result['stopped_by']} after RL step {result['steps']}, with a checkpoint; the "
                "same command goes on from there"
            )
        self._add_companions(result["model"])
        return result

    def _fine_tune(
        self,
        name: str,
        questions: Sequence[Question],
        model: str,
        train: SupervisedConfig,
        validation: Sequence[Question] = (),
        *,
        may_resume: bool,
    ) -> dict[str, Any]:
        from emotion_task.sft.examples import format_examples
        from emotion_task.sft.job import run_supervised
        from rlcore.models.hf_model import load_processor

        processor = load_processor(model)
        folder = self.run_dir / name
        if not may_resume:
            shutil.rmtree(folder, ignore_errors=True)
        trained = run_supervised(
            format_examples(processor, questions, self.config.sft.label_weight),
            model,
            folder,
            train,
            seed=self.config.seed,
            name=name,
            validation=format_examples(processor, validation),
        )
        self._add_companions(trained)
        return {"model": str(trained)}

    def _add_companions(self, model: str | Path) -> None:
        from emotion_task.explain import write_companions

        write_companions(model, self.run_dir / "annotated" / "calibration.json", self._labels())

    def _labels(self) -> list[str]:
        """The options of the emotion question: the same in every stage, as `EmotionTask` has them."""
        return labels_among(utterance.emotion for utterance in self._annotated())

    def _split(self, split: str) -> list[Utterance]:
        return [utterance for utterance in self._annotated() if utterance.split == split]

    def _annotated(self) -> list[Utterance]:
        return read_manifest(self.run_dir / "annotated" / "manifest.jsonl")
