"""The results of the line's stages: frozen values, kept as JSON in `stages/NAME.json`.

The names of the fields are the keys of those files, so that stages of earlier runs are found finished. Knows
no stage and no configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from emotion_task.evaluation.reference import ReferenceResult

if TYPE_CHECKING:
    from typing import Self

    from emotion_task.sft.projector import ProjectorFit


Json = Mapping[str, Any]
"""A JSON object as it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A stage's result is JSON-able: its fields, without those that are None."""

    def as_json(self) -> dict[str, object]:
        """Returns the mapping that `from_json` reads back as an equal result."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, found: Json) -> Self:
        """Builds the result from what `as_json` returned.

        Raises:
            TypeError: a key is missing or unknown.
        """
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Result):
    """A corpus whose recordings are listed is known by its manifest."""

    manifest: str
    """Path of `corpus/manifest.jsonl`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated(Result):
    """Counts of the annotation tell how many recordings were measured."""

    num_annotated: int
    num_quarantined: int
    quarantine_reasons: dict[str, int]
    """Quarantined recordings by kind of failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References(Result):
    """Classical classifiers give the accuracies that the models are read against."""

    classifier: ReferenceResult
    """Gradient-boosted trees on measured prosody."""
    egemaps: ReferenceResult | None = None
    """Logistic regression on eGeMAPS; None where openSMILE was not asked or is not installed."""

    @classmethod
    def from_json(cls, found: Json) -> Self:
        return cls(**{name: ReferenceResult(**scores) for name, scores in found.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Result):
    """A model is known by its checkpoint."""

    model: str
    """Folder or hub id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned(Model):
    """An aligned model hears; where its projector was fitted, the fit tells how well."""

    fit: ProjectorFit | None = None
    """`strength` and `recall`, as `emotion_task.sft.projector.fit_projector` returns them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Result):
    """Metrics of a model on held-out prompts; empty where the stage is switched off."""

    metrics: dict[str, float]
    """Values by the metric's name."""

    def as_json(self) -> dict[str, object]:
        return dict(self.metrics)

    @classmethod
    def from_json(cls, found: Json) -> Self:
        return cls(metrics=dict(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceived(Result):
    """The perception test's report; empty where the test is switched off."""

    report: dict[str, Any]
    """Contents of `perception/perception.json`."""

    @property
    def mean_gain(self) -> dict[str, float] | None:
        """The `value`, `low` and `high` of SFT's gain over the base model, as shares, over all
        attributes; None where the test is switched off."""
        return self.report["gain"]["mean"] if self.report else None

    def as_json(self) -> dict[str, object]:
        return self.report

    @classmethod
    def from_json(cls, found: Json) -> Self:
        return cls(report=dict(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforced(Result):
    """The policy after reinforcement learning, with its run's summary."""

    summary: dict[str, Any]
    """Contents of `rl/summary.json`, as `rlcore.run.train` returns them."""

    @property
    def model(self) -> str:
        """Folder of the policy's checkpoint."""
        return self.summary["model"]

    @property
    def before(self) -> dict[str, float]:
        """Held-out metrics of the SFT model."""
        return self.summary["before"]

    @property
    def after(self) -> dict[str, float]:
        """Held-out metrics of the policy."""
        return self.summary["after"]

    def as_json(self) -> dict[str, object]:
        return self.summary

    @classmethod
    def from_json(cls, found: Json) -> Self:
        return cls(summary=dict(found))
