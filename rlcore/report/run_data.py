"""All that a page shows of one run, as JSON: `Run` reads a run's folder again whenever it is asked to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcore.errors import ConfigError, DataError
from rlcore.records.files import JsonObject, finite, read_json, read_rows
from rlcore.records.timeline import SPANS, Span, busy_seconds
from rlcore.records.tracking import CHANGES, METRICS, read_metrics
from rlcore.report.charts import charts_of
from rlcore.report.estimates import headline
from rlcore.report.panels import Panels, panels_of, plain
from rlcore.report.sample_table import Table, table_of
from rlcore.report.samples import SampleFile, choose
from rlcore.report.state import alarms_of, check_run, read_config, seconds_per_step, state_of

log = logging.getLogger(__name__)

MAX_SPANS = 20_000
"""Spans that a page draws; of more the last ones."""


class Run:
    """A run's folder, as the page shows it.

    Args:
        max_samples: rows of samples.jsonl that the page shows at most.

    Raises:
        DataError: the folder holds no run.
    """

    def __init__(self, folder: str | Path, *, max_samples: int):
        self.folder = Path(folder).resolve()
        check_run(self.folder)
        self.config = read_config(self.folder)
        self.panels, self.panels_fault = self._panels()
        self.samples = SampleFile(self.folder)
        self._max_samples = max_samples
        self._evaluated: (
            tuple[object, tuple[JsonObject | None, dict[str, float], list[JsonObject]]] | None
        ) = None

    def _panels(self) -> tuple[Panels | None, str | None]:
        """Returns the task's panels, or why there are none."""
        if "task" not in self.config:
            return None, None
        try:
            return panels_of(self.config["task"]), None
        except (ConfigError, DataError) as error:
            return None, f"{error}. The page has no figures of the task"

    def head(self) -> JsonObject:
        """Returns what is seen first: state, headline, alarms, figures, and how the run was set up."""
        rows = self._rows()
        if not self.config:  # a run writes it once its actors are up
            self.config = read_config(self.folder)
            self.panels, self.panels_fault = self._panels()
        self.samples.refresh()
        first, figures = self._evaluation(rows)
        head = {
            "name": self.name,
            "folder": str(self.folder),
            "state": state_of(self.folder, self.config, rows),
            "seconds_per_step": seconds_per_step(rows),
            "started": rows[0].get("time") if rows else None,
            "headline": first,
            "figures": figures,
            "alarms": alarms_of(self.folder, rows) + self._own_alarms(),
            "changes": list(read_rows(self.folder / CHANGES)),
            "summary": read_json(self.folder / "summary.json"),
            "config": self.config,
            "outcome": self.outcome,
            "num_samples": len(self.samples.entries),
        }
        return dict(finite(head))  # type: ignore[call-overload, no-any-return]

    @property
    def name(self) -> str:
        """The run's name: its folder's, with the one above where that says little."""
        generic = ("rl", "sft", "eval", "run", "train")
        return (
            f"{self.folder.parent.name}/{self.folder.name}"
            if self.folder.name in generic
            else self.folder.name
        )

    @property
    def outcome(self) -> str | None:
        """The reward by which an answer is right or wrong: the one that PTR names, else the first."""
        rewards = self.config.get("rewards") or {}
        named = ((self.config.get("algorithm") or {}).get("ptr") or {}).get("outcome")
        return named if named in rewards else next(iter(rewards), None)

    def _own_alarms(self) -> list[JsonObject]:
        told = [self.panels_fault] if self.panels_fault else []
        if self.samples.num_damaged:
            told.append(f"{self.samples.path}: {self.samples.num_damaged} lines are no samples, and left out")
        return [{"text": text, "step": None, "time": None, "count": 1} for text in told]

    def metrics(self) -> JsonObject:
        """Returns `steps`, each metric's `values` at them (null where there is none), and the `charts`."""
        rows = self._rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        values = {
            name: [_short(row.get(name)) for row in rows] for name in names if name not in ("step", "time")
        }
        evaluated = [row["step"] for row in rows if any(name.startswith("eval/") for name in row)]
        return {
            "steps": [row["step"] for row in rows],
            "values": values,
            "evaluated": evaluated,
            "charts": charts_of(names),
        }

    def timeline(self) -> JsonObject:
        """Returns each actor's spans (phase, start and length in seconds from the first, step), and its busy
        seconds by phase."""
        spans = sorted((Span(**row) for row in read_rows(self.folder / SPANS)), key=lambda span: span.start)
        if not spans:
            return {"actors": [], "phases": [], "spans": [], "busy": {}, "seconds": 0.0, "left_out": 0}
        actors = sorted({span.actor for span in spans}, key=lambda actor: (actor != "controller", actor))
        phases = list(dict.fromkeys(span.phase for span in spans))
        origin, shown = spans[0].start, spans[-MAX_SPANS:]
        return {
            "actors": actors,
            "phases": phases,
            "spans": [
                [
                    actors.index(span.actor),
                    phases.index(span.phase),
                    round(span.start - origin, 3),
                    round(span.end - span.start, 3),
                    span.step,
                ]
                for span in shown
            ],
            "busy": busy_seconds(spans),
            "seconds": max(span.end for span in spans) - origin,
            "left_out": len(spans) - len(shown),
        }

    def table(self, *, with_details: bool) -> Table:
        """Returns the samples that the page shows."""
        self.samples.refresh()
        chosen = choose(self.samples.entries, self._max_samples)
        rows = self.samples.rows(chosen) if chosen else []
        panels = self.panels if with_details else None
        return table_of(rows, len(self.samples.entries), self.outcome, panels)

    def _rows(self) -> list[JsonObject]:
        return read_metrics(self.folder) if (self.folder / METRICS).is_file() else []

    @property
    def values(self) -> Mapping[str, float]:
        """The last evaluation's values by prompt, as far as `head` has found them."""
        return {} if self._evaluated is None else self._evaluated[1][1]

    def _evaluation(self, rows: Sequence[JsonObject]) -> tuple[JsonObject | None, list[JsonObject]]:
        """Returns the headline, and the task's figures: made anew only where there are new answers."""
        evaluated = [row["step"] for row in rows if any(name.startswith("eval/") for name in row)]
        if self._evaluated is None or self._evaluated[0] != evaluated:
            entries = self.samples.evaluations()
            steps = (
                [step for step in dict.fromkeys((evaluated[0], evaluated[-1])) if step in entries]
                if evaluated
                else []
            )
            answers = {step: self.samples.rows(entries[step]) for step in steps}
            first, values = headline(rows, answers)
            figures: list[Any] = []
            if self.panels is not None and answers:
                figures = [plain(figure) for figure in self.panels.figures(answers)]
            self._evaluated = evaluated, (first, values, figures)
        return self._evaluated[1][0], self._evaluated[1][2]


def _short(value: object) -> object:
    """Returns a number with the digits that a screen can show."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
