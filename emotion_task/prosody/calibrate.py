"""Turns physical units into low, normal and high: the second pass.

No absolute constant can say what is loud or high: recording gain and speaker dominate. So the cut points
are percentiles of a corpus (for pitch: of a corpus and gender; for rate: of a corpus and the way its
syllables were counted), tertiles by default. Cut points are data, kept as JSON, and may be applied to other
corpora.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.records.files import write_json

TERTILES = (100 / 3, 200 / 3)
MIN_SAMPLES = 20
"""Least number of measured utterances that a group needs for cut points."""
ATTRIBUTES = {"pitch": "f0_median_hz", "energy": "level_dbfs", "speed": "articulation_rate"}
"""Field of `Measurement` that each attribute's level is cut from."""
_SHARED_DB = {"peak": 0.5, "loudness": 1.0}
"""Span from the 10th to the 90th percentile, in dB, below which the recordings of a group were brought to one
peak or one loudness: nothing is left of how loud anybody spoke. Corpora as recorded span 10 dB and more."""
RELIABLE = {"pitch": "f0_reliable", "energy": "level_reliable", "speed": "rate_reliable"}
"""Field of `Measurement` that says whether an attribute was measured reliably; where it was not, the
utterance gets no level and enters no cut point."""
LEVELS = {
    "pitch": ("low", "normal", "high"),
    "energy": ("low", "normal", "high"),
    "speed": ("slow", "normal", "fast"),
}


@dataclass(frozen=True, slots=True)
class Cuts:
    """Holds the two cut points of one attribute in one group, in the attribute's unit."""

    low: float
    """Values below this are low (slow)."""
    high: float
    """Values at or above this are high (fast)."""
    num_samples: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Holds cut points by attribute and group, for instance `cuts["pitch"]["ravdess/female"]`."""

    percentiles: tuple[float, float]
    cuts: dict[str, dict[str, Cuts]]
    warnings: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads a calibration that `save` wrote.

        Raises:
            DataError: The file is missing or not a calibration.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such calibration. `emotion annotate` writes one.")
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            cuts = {
                attribute: {group: Cuts(**values) for group, values in row["cuts"][attribute].items()}
                for attribute in ATTRIBUTES
            }
            return cls(tuple(row["percentiles"]), cuts, tuple(row["warnings"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not a calibration: {error!r}") from error


def calibrate(utterances: Iterable[Utterance], percentiles: tuple[float, float] = TERTILES) -> Calibration:
    """Computes cut points from measured utterances (pass the training split only).

    A group with fewer than `MIN_SAMPLES` values gets no cut points, and a warning says so. The same holds for
    the energy of recordings that were brought to one peak or one loudness.

    Args:
        percentiles: the two percentiles at which values are cut, rising, between 0 and 100.

    Raises:
        DataError: The percentiles are not two rising numbers between 0 and 100.
    """
    if not 0 < percentiles[0] < percentiles[1] < 100:
        raise DataError(f"percentiles {percentiles}: two rising numbers between 0 and 100 are needed")
    utterances = list(utterances)
    cuts: dict[str, dict[str, Cuts]] = {attribute: {} for attribute in ATTRIBUTES}
    normalised = _normalised(utterances)
    warnings = []
    for attribute, groups in values_by_group(utterances).items():
        by_name = {group: numbers for group, numbers in groups.items() if group is not None}
        if without := len(groups.get(None, ())):
            warnings.append(
                f"{attribute}: no levels for {without} utterances whose speaker's gender is unknown; give it "
                "in the manifest, or name a speaker classifier (corpus.speaker_classifier)"
            )
        for group, numbers in sorted(by_name.items()):
            if len(numbers) < MIN_SAMPLES:
                warnings.append(
                    f"{attribute} of {group}: no levels, only {len(numbers)} utterances were measured "
                    f"and {MIN_SAMPLES} are needed"
                )
                continue
            if attribute == "energy" and (shared := normalised.get(group)):
                warnings.append(
                    f"energy of {group}: no levels, for the recordings were brought to {shared}; use them as "
                    "they were recorded"
                )
                continue
            low, high = np.percentile(numbers, percentiles)
            cuts[attribute][group] = Cuts(float(low), float(high), len(numbers))
    return Calibration(percentiles, cuts, tuple(warnings))


def _normalised(utterances: Iterable[Utterance]) -> dict[str | None, str]:
    """Returns what the recordings of a group of energy have in common, of the groups in which they do."""
    found: dict[str | None, dict[str, list[float]]] = defaultdict(lambda: {"peak": [], "loudness": []})
    for utterance in utterances:
        if (level := value_of(utterance, "energy")) is not None:
            group = found[group_of(utterance, "energy")]
            group["loudness"].append(level)
            if peak := (utterance.measured or {}).get("peak"):
                group["peak"].append(20 * np.log10(peak))
    return {
        name: f"one {what} (eight in ten within {span:.2f} dB)"
        for name, group in found.items()
        for what, decibels in group.items()
        if len(decibels) >= MIN_SAMPLES
        and (span := float(np.ptp(np.percentile(decibels, (10, 90))))) < _SHARED_DB[what]
    }


def apply_calibration(calibration: Calibration, utterance: Utterance) -> Utterance:
    """Returns the utterance with `pitch_level`, `energy_level` and `speed_level` filled; a level is None
    where the attribute was not measured reliably or its group has no cut points."""
    levels: dict[str, Any] = {
        f"{attribute}_level": _level(calibration, utterance, attribute) for attribute in ATTRIBUTES
    }
    return replace(utterance, **levels)


def _level(calibration: Calibration, utterance: Utterance, attribute: str) -> str | None:
    value = value_of(utterance, attribute)
    if value is None:
        return None
    group = group_of(utterance, attribute)
    cuts = None if group is None else calibration.cuts[attribute].get(group)
    return None if cuts is None else LEVELS[attribute][int(value >= cuts.low) + int(value >= cuts.high)]


def value_of(utterance: Utterance, attribute: str) -> float | None:
    """Returns the measured value that an attribute's level is cut from, or None where the attribute was not
    measured reliably."""
    measured = utterance.measured or {}
    if measured.get(RELIABLE[attribute]) is False:
        return None
    return measured.get(ATTRIBUTES[attribute])


def group_of(utterance: Utterance, attribute: str) -> str | None:
    """Returns the group whose cut points fit this utterance.

    The group is None for the pitch of a speaker of unknown gender: mixed cut points would only tell women
    from men."""
    corpus = utterance.dataset
    if attribute == "pitch":
        return f"{corpus}/{utterance.gender}" if utterance.gender else None
    if attribute == "speed":
        return f"{corpus}/{(utterance.measured or {}).get('syllables_from')}"
    return corpus


def values_by_group(utterances: Iterable[Utterance]) -> dict[str, dict[str | None, list[float]]]:
    """Collects the reliably measured values by attribute and group."""
    values: dict[str, dict[str | None, list[float]]] = {name: defaultdict(list) for name in ATTRIBUTES}
    for utterance in utterances:
        for attribute in ATTRIBUTES:
            value = value_of(utterance, attribute)
            if value is not None:
                values[attribute][group_of(utterance, attribute)].append(value)
    return values
