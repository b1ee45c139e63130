"""Writes the calibration report: what was measured, where levels are cut, and what to be wary of.

    out/calibration.md, calibration.png      for people
    out/calibration_report.json              for programs

The JSON holds the numbers that the other two show.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from emotion_task.prosody.calibrate import (
    ATTRIBUTES,
    LEVELS,
    RELIABLE,
    Calibration,
    values_by_group,
)
from emotion_task.records import Utterance
from rlcore.records.files import write_json
from rlcore.records.markdown import table_row

PERCENTILES = (5, 25, 50, 75, 95)
UNITS = {"pitch": "Hz", "energy": "dBFS", "speed": "syllables/s"}
_CLOSE_CUTS = {"pitch": 1.0, "energy": 2.0}
"""Semitones and decibels between the cut points below which levels are hard to tell apart."""
_UNRELIABLE_SHARE = 0.2
_SKEWED = 0.5
"""Share of a split in one level above which a warning is due: thirds were meant."""


class CalibrationReport(TypedDict):
    """Holds what calibration_report.json holds."""

    num_utterances: int
    quarantined: dict[str, int]
    """Number of utterances that could not be measured, by kind of failure."""
    reliable: dict[str, float]
    """Share of utterances that were measured reliably, by attribute."""
    distributions: dict[str, dict[str, dict[str, float]]]
    """Count and percentiles of the measured values, by attribute and group."""
    levels: dict[str, dict[str, dict[str, float]]]
    """Share of each level, by attribute and split."""
    intonation: dict[str, int]
    """Number of utterances by class of intonation."""
    filled: dict[str, int]
    """Number of utterances of which a field is known, by field."""
    warnings: list[str]


def write_report(
    folder: str | Path,
    calibration: Calibration,
    utterances: Sequence[Utterance],
    reasons: Mapping[str, int],
    warnings: Sequence[str] = (),
) -> CalibrationReport:
    """Writes calibration.md, calibration.png and calibration_report.json, and returns what the JSON holds.

    Args:
        utterances: utterances annotated with `calibration`.
        reasons: number of quarantined utterances by kind of failure.
        warnings: what else to be wary of.
    """
    folder = Path(folder)
    values = {
        name: {group or "unknown gender": numbers for group, numbers in groups.items()}
        for name, groups in values_by_group(utterances).items()
    }
    report: CalibrationReport = {
        "num_utterances": len(utterances),
        "quarantined": dict(reasons),
        "reliable": {name: _share_reliable(utterances, flag) for name, flag in RELIABLE.items()},
        "distributions": {
            name: {group: _distribution(numbers) for group, numbers in sorted(groups.items())}
            for name, groups in values.items()
        },
        "levels": {name: _level_shares(utterances, f"{name}_level", LEVELS[name]) for name in ATTRIBUTES},
        "intonation": dict(Counter(u.intonation or "null" for u in utterances).most_common()),
        "filled": {
            name: sum(getattr(u, name) is not None for u in utterances)
            for name in ("stressed_words", "gender", "age_years")
        },
        "warnings": [],
    }
    report["warnings"] = [*warnings, *calibration.warnings, *_warnings(calibration, report)]
    write_json(folder / "calibration_report.json", report)
    (folder / "calibration.md").write_text(_markdown(calibration, report), encoding="utf-8")
    _plot(folder / "calibration.png", calibration, values)
    return report


def _share_reliable(utterances: Sequence[Utterance], flag: str) -> float:
    return float(np.mean([bool((u.measured or {}).get(flag)) for u in utterances]))


def _distribution(numbers: Sequence[float]) -> dict[str, float]:
    cuts = np.percentile(numbers, PERCENTILES)
    return {"count": len(numbers)} | {f"p{p}": float(v) for p, v in zip(PERCENTILES, cuts, strict=True)}


def _level_shares(
    utterances: Sequence[Utterance], field: str, levels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Returns each level's share by split; utterances without a level count as `null`."""
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        by_split[utterance.split or "all"][str(getattr(utterance, field) or "null")] += 1
    return {
        split: {level: counts[level] / counts.total() for level in (*levels, "null")}
        for split, counts in sorted(by_split.items())
    }


def _warnings(calibration: Calibration, report: CalibrationReport) -> list[str]:
    found = []
    for name, share in report["reliable"].items():
        if share < 1 - _UNRELIABLE_SHARE:
            found.append(f"{name}: {1 - share:.0%} of the utterances could not be measured reliably")
    for name, closest in _CLOSE_CUTS.items():
        for group, cuts in calibration.cuts[name].items():
            apart = 12 * np.log2(cuts.high / cuts.low) if name == "pitch" else cuts.high - cuts.low
            if apart < closest:
                unit = "semitones" if name == "pitch" else "dB"
                found.append(f"{name} of {group}: cut points only {apart:.1f} {unit} apart, hardly audible")
    for name, splits in report["levels"].items():
        for split, shares in splits.items():
            level = max(LEVELS[name], key=shares.__getitem__)
            if shares[level] > _SKEWED:
                found.append(f"{name} of split {split}: {shares[level]:.0%} are {level}, a third was meant")
    return found


def _markdown(calibration: Calibration, report: CalibrationReport) -> str:
    low, high = calibration.percentiles
    quarantined = ", ".join(f"{count} {kind}" for kind, count in report["quarantined"].items()) or "none"
    reliable = ", ".join(f"{name} {share:.1%}" for name, share in report["reliable"].items())
    lines = [
        "# Calibration",
        "",
        f"{report['num_utterances']} utterances; quarantined: {quarantined}. Measured reliably: {reliable}.",
        f"Cut at percentiles {low:.1f} and {high:.1f}.",
        "",
        "![distributions and cut points](calibration.png)",
        "",
        "## Cut points and distributions",
        "",
        "| attribute | group | n | p5 | p25 | median | p75 | p95 | low below | high from |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, groups in report["distributions"].items():
        for group, row in groups.items():
            cuts = calibration.cuts[name].get(group)
            shown = [f"{row[f'p{p}']:.1f}" for p in PERCENTILES]
            marks = [f"{cuts.low:.1f}", f"{cuts.high:.1f}"] if cuts else ["-", "-"]
            lines.append(table_row([f"{name} ({UNITS[name]})", group, row["count"], *shown, *marks]))
    lines += ["", "## Levels", "", "| attribute | split | low (slow) | normal | high (fast) | null |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, splits in report["levels"].items():
        for split, shares in splits.items():
            lines.append(table_row([name, split, *(f"{share:.1%}" for share in shares.values())]))
    contours = ", ".join(f"{name} {count}" for name, count in report["intonation"].items())
    filled = ", ".join(f"{name} {count}" for name, count in report["filled"].items())
    lines += ["", f"Intonation: {contours}.", "", f"Known: {filled}.", "", "## Warnings", ""]
    lines += [f"- {warning}" for warning in report["warnings"]] or ["None."]
    return "\n".join(lines) + "\n"


def _plot(path: Path, calibration: Calibration, values: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, (name, groups) in zip(figure.subplots(1, len(values)), values.items(), strict=True):
        everything = [number for numbers in groups.values() for number in numbers]
        axes.set(title=name, xlabel=UNITS[name])
        if not everything:
            continue
        bins = np.linspace(min(everything), max(everything) + 1e-9, 41)
        for index, (group, numbers) in enumerate(sorted(groups.items())):
            axes.hist(numbers, bins, alpha=0.5, color=f"C{index}", label=f"{group} ({len(numbers)})")
            cuts = calibration.cuts[name].get(group)
            for cut in (cuts.low, cuts.high) if cuts else ():
                axes.axvline(cut, color=f"C{index}", linestyle="--", linewidth=1)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
