"""Panels are what a task adds to the page of its runs: figures of evaluations, and what belongs to a sample.

rlcore draws the figures. What a sample looks like, the task's own script draws; rlcore knows no sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rlcore.config.targets import load_target
from rlcore.records.files import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A matrix counts answers by what was right: a row per truth, a column per answer."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    """Counts [R][C]; the page shows each as a share of its row."""
    kind: str = "matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """A figure of shares with their intervals: a line per name, a mark per series."""

    title: str
    names: Sequence[str]
    nums: Sequence[int]
    """Number of samples behind each name."""
    series: Mapping[str, Sequence[tuple[float, float, float]]]
    """Series to (value, low, high) of each name, as shares."""
    note: str = ""
    """Sentence that says how the intervals were made."""
    kind: str = "intervals"


Figure = Matrix | Intervals


class Panels(Protocol):
    """A task's panels read rows of samples.jsonl, in the process that makes the page."""

    scripts: Sequence[Path]
    """Files (.js, .css) that become part of the page; a script adds itself to `report.panels`."""

    def figures(self, evaluations: Mapping[int, Sequence[JsonObject]]) -> Sequence[Figure]:
        """Returns the figures of a run.

        Args:
            evaluations: step to the rows of its evaluation, of the run's first and last one, in that order.
        """
        ...

    def of_prompt(self, row: JsonObject) -> JsonObject | None:
        """Returns what the script needs to draw of a sample's prompt, the same for all of its samples."""
        ...

    def of_sample(self, row: JsonObject) -> JsonObject | None:
        """Returns what the script needs to draw of one sample beside its row."""
        ...


@runtime_checkable
class HasPanels(Protocol):
    """A task class may have panels. They are asked of the class, as the task's data may be gone."""

    @classmethod
    def panels(cls, args: Mapping[str, Any]) -> Panels:
        """Returns the panels of a run whose `task.args` are `args`."""
        ...


def panels_of(task: Mapping[str, Any]) -> Panels | None:
    """Returns the panels of the section `task` of a run's configuration; None where its class has none.

    Raises:
        ConfigError: the class cannot be imported.
    """
    cls = load_target(str(task.get("target")), where="task")
    return cls.panels(task.get("args") or {}) if isinstance(cls, HasPanels) else None


def plain(figure: Figure) -> JsonObject:
    """Returns a figure as JSON."""
    return asdict(figure)
