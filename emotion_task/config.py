"""The configuration of the whole line: corpus, annotation, prosody SFT, reward model, GRPO-PTR.

A stage's section says what it makes; `rl` is rlcore's own configuration. `run_dir` holds everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from emotion_task.labels import check_set
from emotion_task.models.tiny import TinyModelConfig
from rlcore.config import LARGEST_SEED, LearnerConfig, LoRAConfig, RunConfig
from rlcore.config.checks import at_least, between, without_tilde
from rlcore.config.io import MAY_CHANGE, Arguments, check
from rlcore.config.offline import OfflineConfig

_TASK = "emotion_task.task:EmotionTask"
"""The task that asks for one of the line's labels; one of your own may not."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Source of the recordings."""

    name: str = "synthetic"
    """Name of a corpus of docs/guides/data.md, or `module:NAME`. `synthetic` is made on the spot, the others
    are read from `root`."""
    root: str | None = None
    """Folder of a corpus on disk, or the manifest file."""
    args: Arguments = field(default_factory=dict)
    """Further arguments of the corpus (synthetic: `num_train`, `num_eval`, `spread`, `emotions`; others, such
    as `eval_speakers`: docs/guides/data.md). `emotions` is the set of labels of the whole line. Null takes an
    argument back that an earlier file gave."""
    num_workers: int = 2
    """Processes that generate and measure audio."""
    max_seconds: float = 30.0
    """Longer recordings are quarantined."""
    aligner: str | None = None
    """`package.module:Class` that finds words in recordings; with one, stressed words are heard where the
    corpus does not tell them."""
    speaker_classifier: str | None = None
    """`package.module:Class` that hears gender and age, used where the corpus does not tell."""
    vad: str | None = None
    """`package.module:Class` that hears where somebody speaks, such as `emotion_task.prosody.vad:SileroVad`;
    without one, speech is told from noise by its level."""

    def __post_init__(self) -> None:
        check(self.name == "synthetic" or self.root is not None, "root", self.root, f"set for {self.name!r}")
        check(self.num_workers >= 1, "num_workers", self.num_workers, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(OfflineConfig):
    """One supervised stage: a Ray Train job whose workers are ranks of rlcore's DeepSpeed engine."""

    freeze: tuple[str, ...] = ("visual",)
    """Parameters whose name contains one of these are not trained."""
    feature_cache_mb: int = field(default=1024, metadata=MAY_CHANGE)
    """Audio features that a worker keeps in memory."""
    media_cache: str | None = field(default=None, metadata=MAY_CHANGE)
    """Folder that keeps a frozen audio tower's output from run to run, by content and weights (as
    `rl.model.media_cache`), or the tower's input where it is trained."""
    ingest_cpus: float = field(default=0.0, metadata=MAY_CHANGE)
    """CPUs that encode examples ahead of each rank, as Ray Data actors wherever the cluster has them free; 0:
    a rank encodes by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "feature_cache_mb")
        at_least(self, 0, "ingest_cpus")


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Teaching a language model to hear, before the prosody SFT: its projector fitted, or trained without
    emotions, or one after the other."""

    fit: bool = False
    """Fits the projector in closed form to the training utterances' facts and the emotions that SFT may see
    (`emotion_task.sft.projector`); the later stages should then freeze it."""
    train: SupervisedConfig = field(
        default_factory=lambda: SupervisedConfig(freeze=("audio_tower", "language_model", "lm_head"))
    )
    weights: Mapping[str, float] = field(default_factory=dict)
    """Task to its share of the examples, as `sft.weights`; empty: nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Prosody SFT: its tasks, and the share of the emotion labels that it sees."""

    train: SupervisedConfig = field(default_factory=SupervisedConfig)
    weights: Mapping[str, float] = field(
        default_factory=lambda: dict(pitch=0.1, energy=0.1, rate=0.1, intonation=0.1, reasoning=0.6)
    )
    """Task to its share of the examples: pitch, energy, rate, intonation, age (one attribute each), stress
    (the stressed word), order (three versions of one utterance), profile (all attributes), melody (the pitch
    contour), transcript (the words), caption (a sentence or two on the voice), reasoning (think and answer),
    description (reasoning whose label is withheld), text (conversations of `text_data`). What a file gives
    takes the place of the default."""
    text_data: str | None = None
    """JSON lines of chat messages for the task `text`."""
    num_validation: int = 0
    """Examples of held-back training speakers on which each checkpoint's loss is measured; the model with the
    lowest is the result. 0: no validation, and the last is."""
    label_fraction: float = 1.0
    """Share of utterances whose emotion SFT may see; less leaves something for RL to find."""
    quote_rate: float = 0.0
    """Share of traces that quote the transcript."""
    fact_rate: float = 1.0
    """Chance that a trace states a fact that is known. Below 1 the model sees that a fact may be left out, so
    that reinforcement learning can find where that is better than to guess."""
    without_speakers: tuple[str, ...] = ()
    """Speakers of the training split that neither stage of SFT hears. Reinforcement learning on them
    (`rl.task.args.train_speakers`) is about voices that the model does not know by heart."""
    label_weight: float = 1.0
    """Weight of a token of the emotion's name in a trace's loss; the other tokens count 1."""
    full_label_steps: int = 0
    """Steps of a reference model that goes on from the SFT model with every label; 0: no reference."""

    def __post_init__(self) -> None:
        for name in ("label_fraction", "quote_rate", "fact_rate"):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        check(self.label_weight > 0, "label_weight", self.label_weight, "above 0")
        check(self.num_validation >= 0, "num_validation", self.num_validation, "at least 0")


def _adapters_alone() -> SupervisedConfig:
    """The paper's second stage: adapters on the language model, at the learning rate of the first."""
    return SupervisedConfig(
        freeze=("visual", "audio_tower", "multi_modal_projector"),
        learner=LearnerConfig(lr=1e-5, lr_schedule="cosine", lora=LoRAConfig(rank=16)),
    )


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """A second stage of SFT: reasoning on top of what the first has taught to hear. Labels, text data and
    validation are those of `sft`."""

    train: SupervisedConfig = field(default_factory=_adapters_alone)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Task to its share of the examples, as `sft.weights`; empty: one stage."""


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """The reasoning reward model: the SFT model fine-tuned on what is heard and on graded traces."""

    train: SupervisedConfig = field(default_factory=SupervisedConfig)
    listening: float = 0.4
    """Share of the examples that ask what is heard; the others ask for a response's grades."""
    per_utterance: int = 2
    """Graded responses made from one utterance."""
    graded: str | None = None
    """JSON lines of responses that others graded (`emotion_task.reward_model.data.read_graded`), to train on
    before those that are made."""

    def __post_init__(self) -> None:
        check(0 < self.listening < 1, "listening", self.listening, "between 0 and 1")
        check(self.per_utterance >= 1, "per_utterance", self.per_utterance, "at least 1")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """`emotion quickstart --config FILE` runs this from top to bottom; a finished stage is not run again."""

    run_dir: str = "runs/quickstart"
    """Folder of all stages; a stage has a folder of its own in it."""
    seed: int = 0
    """Seed of corpus, stages and figures; `rl` has its own."""
    base_model: str | None = None
    """Folder or hub id to start from; null builds the tiny model of `tiny`."""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    egemaps: bool = False
    """Also report logistic regression on eGeMAPS functionals, where openSMILE is installed."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    cold_start: ColdStartConfig = field(default_factory=ColdStartConfig)
    perception: int = 0
    """Held-out utterances on which the perception test compares the SFT model with the base model; 0: no
    test."""
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    rl: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        without_tilde(self, "run_dir")
        between(self, 0, LARGEST_SEED, "seed")
        task, emotions = self.rl.task, self.corpus.args.get("emotions")
        if task.target == _TASK and task.args.get("labels") is not None:
            check_set(task.args["labels"], "rl.task.args.labels")
        is_told = task.target != _TASK or task.args.get("labels") is not None
        if isinstance(emotions, list | tuple) and not is_told:
            # One set for all: readers, SFT, the judge, the question and the metrics.
            args = {**task.args, "labels": list(emotions)}
            object.__setattr__(self, "rl", replace(self.rl, task=replace(task, args=args)))

    @property
    def labels(self) -> list[str] | None:
        """Options of the emotion question, where they are set: `corpus.args.emotions`, or those of them that
        `rl.task.args.labels` names. None: the emotions that the corpus has."""
        labels = self.rl.task.args.get("labels") if self.rl.task.target == _TASK else None
        return None if labels is None else list(labels)
