"""The records of a run: metrics.jsonl, samples.jsonl, changes.jsonl, TensorBoard events, summary.json,
config.yaml (and skipped.jsonl, which the learner writes).

Steps are counted as finished updates: the first update is logged as step 1, an evaluation before training
as step 0. A run resumed from the checkpoint of step n first drops every row after n, and what there is of an
evaluation of step n that was cut short, so that nothing is counted twice.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rlcore.config import save_config
from rlcore.errors import DataError
from rlcore.records.checkpoint import Change
from rlcore.records.files import (
    JsonObject,
    RowAppender,
    append_rows,
    keep_rows,
    read_json,
    read_rows,
    write_json,
)
from rlcore.records.run_lock import LOCK
from rlcore.records.versions import versions
from rlcore.types import Group, Score

log = logging.getLogger(__name__)

METRICS, SAMPLES, CHANGES = "metrics.jsonl", "samples.jsonl", "changes.jsonl"


class Tracker:
    """Writes one run's records into `run_dir`. Rows are flushed as they come; `close` ends TensorBoard.

    summary.json is only ever merged into: stages before the training may have written their sections.

    Args:
        resume_step: the checkpoint's step; without one the rows of an earlier run in the folder go.
    """

    def __init__(self, run_dir: str | Path, config: object, *, resume_step: int | None = None):
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if resume_step is None:
            from rlcore.records.events import PATTERN

            for events in (self.run_dir / "tensorboard").glob(PATTERN):
                events.unlink()
        save_config(config, self.run_dir / "config.yaml")
        self.update_summary({"versions": versions()})
        # A run that goes on after this step once more says itself what has changed there.
        first = 0 if resume_step is None else resume_step
        keep_rows(self.run_dir / CHANGES, lambda row: row["step"] < first)
        self._open(resume_step)

    def _open(self, resume_step: int | None) -> None:
        # TensorBoard's formats take a while to import: not for readers of metrics.jsonl.
        from rlcore.records.events import EventWriter

        self._drop_rows(-1 if resume_step is None else resume_step)
        self._metrics = RowAppender(self.run_dir / METRICS)
        self._samples = RowAppender(self.run_dir / SAMPLES)
        purge_step = None if resume_step is None else resume_step + 1
        self._tensorboard = EventWriter(self.run_dir / "tensorboard", purge_step=purge_step)

    def rewind(self, step: int) -> None:
        """Drops the rows of what is done again after `step`, as a resumed run does."""
        self.close()
        self._open(step)

    def _drop_rows(self, last: int) -> None:
        """Drops the rows of what a run that goes on after the step `last` will do again."""
        keep_rows(self.run_dir / METRICS, lambda row: row["step"] <= last)
        ends = {"train": last, "eval": last if self.evaluation(last) else last - 1}
        keep_rows(self.run_dir / SAMPLES, lambda row: row["step"] <= ends[row["split"]])
        # The learner numbers its own updates: a step that was left out is none of them.
        num_updates = sum(row.get("update_skipped") == 0 for row in read_rows(self.run_dir / METRICS))
        keep_rows(self.run_dir / "skipped.jsonl", lambda row: row["step"] <= num_updates)

    def evaluation(self, step: int) -> dict[str, float]:
        """Returns the metrics of the evaluation of `step`, none where that was not evaluated."""
        found: dict[str, float] = {}
        for row in read_rows(self.run_dir / METRICS):
            if row["step"] == step:
                found |= {n.removeprefix("eval/"): v for n, v in row.items() if n.startswith("eval/")}
        return {name: math.nan if value is None else value for name, value in found.items()}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row of metrics.jsonl and the same scalars to TensorBoard. NaN and infinity become null."""
        row = {name: float(value) for name, value in metrics.items()}
        self._metrics.write({"step": step, "time": round(time.time(), 3), **row})
        self._tensorboard.add(step, row)

    def log_samples(
        self,
        step: int,
        groups: Sequence[Group],
        scores: Mapping[str, Sequence[Sequence[Score]]],
        *,
        split: str = "train",
        rewards: np.ndarray | None = None,
        advantages: np.ndarray | None = None,
    ) -> None:
        """Writes a row of samples.jsonl per completion.

        Args:
            groups: G groups of K completions.
            scores: [G][K] by reward.
            rewards: [G, K], mixed.
            advantages: [G, K].
        """
        for g, group in enumerate(groups):
            for k, completion in enumerate(group.completions):
                row: dict[str, object] = {
                    "step": step,
                    "split": split,
                    "prompt": group.prompt.id,
                    "sample": k,
                    "media": group.prompt.media,
                    "reference": group.prompt.reference,
                    "text": completion.text,
                    "tokens": completion.num_sampled,
                    "finish_reason": completion.finish_reason,
                    "policy_version": completion.policy_version,
                    "versions": completion.version_spans
                    or [(completion.policy_version, len(completion.token_ids))],
                    "scores": {name: _score_row(per_group[g][k]) for name, per_group in scores.items()},
                }
                if completion.observations:
                    row["transcript"] = completion.transcript
                if completion.error is not None:
                    row["error"] = completion.error
                if rewards is not None:
                    row["reward"] = float(rewards[g, k])
                if advantages is not None:
                    row["advantage"] = float(advantages[g, k])
                self._samples.write({name: _readable(value) for name, value in row.items()})

    def log_changes(self, step: int, changes: Sequence[Change]) -> None:
        """Writes a row of changes.jsonl per setting that a run which goes on after `step` has changed."""
        now = round(time.time(), 3)
        rows = [
            {"step": step, "time": now, "key": each.key, "before": each.before, "now": each.now}
            for each in changes
        ]
        append_rows(self.run_dir / CHANGES, rows)

    def update_summary(self, values: Mapping[str, object]) -> JsonObject:
        """Merges `values` into summary.json and returns the whole."""
        return merge_summary(self.run_dir / "summary.json", values)

    def close(self) -> None:
        """Closes the files and TensorBoard."""
        self._metrics.close()
        self._samples.close()
        self._tensorboard.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def keep_earlier(folder: Path) -> None:
    """Moves the records of a finished evaluation out of `folder`, to the first free of `folder.1`,
    `folder.2`, ..., and says so. What was cut short before it had metrics stays, to be replaced."""
    if not any(read_rows(folder / METRICS)):
        return
    kept = next(path for n in itertools.count(1) if not (path := Path(f"{folder}.{n}")).exists())
    kept.mkdir()
    for path in list(folder.iterdir()):
        if path.name != LOCK:
            shutil.move(path, kept)
    log.warning("%s: the earlier evaluation is kept as %s", folder, kept)


def merge_summary(path: str | Path, values: Mapping[str, object]) -> JsonObject:
    """Merges `values` into a JSON file, section by section, and returns the whole.

    The file is replaced at once: a reader never finds half of one, and a kill never leaves one.
    """
    path = Path(path)
    merged = _merge(read_json(path), values)
    write_json(path, merged)
    return merged


def read_metrics(run_dir: str | Path) -> list[JsonObject]:
    """Returns the rows of metrics.jsonl in order of step, rows of one step merged into one.

    Raises:
        DataError: there is no metrics.jsonl.
    """
    path = Path(run_dir) / METRICS
    if not path.is_file():
        raise DataError(f"{path}: no such file. Name the folder of a run (run_dir of its config).")
    by_step: dict[int, JsonObject] = {}
    for row in read_rows(path):
        by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def _score_row(score: Score) -> dict[str, object]:
    if score.error is not None:
        return {"error": score.error}
    row: dict[str, object] = {"value": float(score.value)}
    if score.parts:
        row["parts"] = {name: float(v) for name, v in score.parts.items()}
    if score.token_values:
        row["token_values"] = {str(at): float(v) for at, v in score.token_values.items()}
    if score.token_advantages:
        row["token_advantages"] = list(score.token_advantages)
    return row


def _readable(value: object) -> object:
    """Returns what a person can read in a line: paths and labels as they are, arrays by their shape."""
    if isinstance(value, Mapping):
        return {str(name): _readable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    shape = getattr(value, "shape", None)
    return str(value) if shape is None else f"{type(value).__name__}{list(shape)}"


def _merge(old: Mapping[str, object], new: Mapping[str, object]) -> JsonObject:
    merged = dict(old)
    for name, value in new.items():
        inner = merged.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged
