"""The task's panels: confusion and recall by emotion with intervals; claims beside what was measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from scipy import stats

from emotion_task.claims.finder import CLAIM_TYPES
from emotion_task.evaluation.metrics import NO_ANSWER, confusion, predicted_labels
from emotion_task.labels import labels_among
from emotion_task.records import Utterance, read_manifest
from emotion_task.report.claim_spans import RIGHT, UNMEASURED, placed_claims
from emotion_task.report.recordings import outline
from rlcore.errors import DataError
from rlcore.records.files import JsonObject
from rlcore.report.panels import Figure, Intervals, Matrix

log = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"
_UNITS = {
    "pitch_level": ("f0_median_hz", "Hz median F0"),
    "energy_level": ("level_dbfs", "dBFS"),
    "speed_level": ("articulation_rate", "syllables/s"),
    "intonation": ("intonation_change_st", "st from start to end"),
}
"""Measurement behind each level, and its unit."""
_NOTE = "95 % Wilson intervals; n in brackets."


class EmotionPanels:
    """Panels of emotion runs (`rlcore.report.panels.Panels`).

    Args:
        args: `task.args` of the run. The manifest they name gives measurements in physical units; where it is
            gone, levels are shown alone.
    """

    scripts: Sequence[Path] = (_STATIC / "speech.js", _STATIC / "emotion.js", _STATIC / "emotion.css")

    def __init__(self, args: Mapping[str, Any]):
        self._manifest = str(args.get("manifest", ""))
        self._labels: Sequence[str] | None = args.get("labels")

    @cached_property
    def _utterances(self) -> dict[str, Utterance]:
        try:
            return {utterance.id: utterance for utterance in read_manifest(self._manifest)}
        except (DataError, OSError) as error:
            log.warning("no measurements in physical units: %s", error)
            return {}

    def figures(self, evaluations: Mapping[int, Sequence[JsonObject]]) -> list[Figure]:
        """Returns recall by emotion, the share of right claims by kind, and a confusion matrix each."""
        if not evaluations:
            return []
        answered = {step: _answers(rows) for step, rows in evaluations.items()}
        labels = list(self._labels or labels_among(truth for truth, _ in next(iter(answered.values()))))
        recall: dict[str, Any] = {}
        matrices: list[Figure] = []
        nums: list[int] = []
        for step, pairs in answered.items():
            truth = [emotion for emotion, _ in pairs]
            predicted = predicted_labels([text for _, text in pairs], labels)
            counts = confusion(truth, predicted, labels)
            nums = [int(row.sum()) for row in counts]
            recall[f"step {step}"] = [_share(int(row[i]), int(row.sum())) for i, row in enumerate(counts)]
            columns = [*labels, NO_ANSWER]
            title = f"Confusion, step {step}"
            matrices.append(Matrix(title=title, rows=labels, columns=columns, counts=counts.tolist()))
        # The last evaluation first: that is what the run came to.
        by_emotion = Intervals(title="Recall by emotion", names=labels, nums=nums, series=recall, note=_NOTE)
        return [by_emotion, *_claim_figure(evaluations), *matrices[::-1]]

    def of_sample(self, row: JsonObject) -> JsonObject | None:
        """Returns the answer's claims with their places and verdicts."""
        reference = row.get("reference") or {}
        return {"claims": [asdict(claim) for claim in placed_claims(str(row.get("text", "")), reference)]}

    def of_prompt(self, row: JsonObject) -> JsonObject | None:
        """Returns the recording's outline and what was measured of it."""
        utterance = self._utterances.get(str(row.get("prompt")))
        path = (row.get("media") or {}).get("audio")
        path = path[0] if isinstance(path, list) and path else path
        channel = None if utterance is None else utterance.channel
        drawn = outline(path, channel) if isinstance(path, str) else None
        measured = (None if utterance is None else utterance.measured) or {}
        facts = [
            {"name": name, "level": (row.get("reference") or {}).get(name), **_unit(name, measured)}
            for name in CLAIM_TYPES
            if name != "quoted_words"
        ]
        return {"outline": drawn, "facts": facts, "word_times": measured.get("word_times")}


def _unit(name: str, measured: Mapping[str, Any]) -> JsonObject:
    field, unit = _UNITS.get(name, ("", ""))
    return {"measured": measured.get(field), "unit": unit}


def _answers(rows: Sequence[JsonObject]) -> list[tuple[str, str]]:
    """Returns the emotion and the answer of each row that has one."""
    pairs = [((row.get("reference") or {}).get("emotion"), str(row.get("text", ""))) for row in rows]
    return [(str(emotion), text) for emotion, text in pairs if emotion is not None]


def _claim_figure(evaluations: Mapping[int, Sequence[JsonObject]]) -> list[Figure]:
    """Returns the share of checked claims that are right, by kind of claim."""
    tallies: dict[str, dict[str, list[bool]]] = {}
    for step, rows in evaluations.items():
        kinds = tallies.setdefault(f"step {step}", {})
        for row in rows:
            for claim in placed_claims(str(row.get("text", "")), row.get("reference") or {}):
                if claim.verdict != UNMEASURED:
                    kinds.setdefault(claim.type, []).append(claim.verdict == RIGHT)
    last = list(tallies.values())[-1]
    names = [name for name in CLAIM_TYPES if all(name in kinds for kinds in tallies.values())]
    if not names:
        return []
    series = {
        step: [_share(sum(kinds[name]), len(kinds[name])) for name in names]
        for step, kinds in tallies.items()
    }
    shown = [name.removesuffix("_level").replace("_", " ") for name in names]
    nums = [len(last[name]) for name in names]
    note = f"Of the claims whose fact was measured. {_NOTE}"
    return [Intervals(title="Claims that are right", names=shown, nums=nums, series=series, note=note)]


def _share(count: int, total: int) -> tuple[float, float, float]:
    """Returns a share with Wilson's 95 % interval; 0 to 1 where there is nothing."""
    if total == 0:
        return 0.0, 0.0, 1.0
    found = stats.binomtest(count, total).proportion_ci(method="wilson")
    return count / total, float(found.low), float(found.high)
