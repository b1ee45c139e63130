"""Writes the perception test's files: what a model hears before and after training, by attribute and
emotion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.evaluation.bootstrap import estimate, estimate_gain, plain
from emotion_task.evaluation.intervals import estimates_table, plot_estimates
from emotion_task.labels import labels_among
from emotion_task.perception.ask import choose_apart, hits
from emotion_task.perception.emotions import recall_report, recall_section
from emotion_task.perception.questions import FORMS, STRESS, Turn, attributes_of, is_graded, turns_of
from emotion_task.records import Utterance, choose, read_manifest
from rlcore.errors import ConfigError, DataError
from rlcore.records.files import write_json
from rlcore.records.versions import versions


def write_perception(
    manifest: str | Path,
    models: Mapping[str, str],
    out: str | Path,
    *,
    form: str = "single",
    split: str = "eval",
    limit: int | None = None,
    samples: Sequence[str | Path] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Asks each model about a split and writes perception.json, perception.md and perception.png into `out`;
    returns what perception.json holds.

    Args:
        manifest: an annotated manifest.
        models: checkpoint by name. Of two models, the second is taken to be trained from the first.
        form: one of `emotion_task.perception.questions.FORMS`.
        split: split of the utterances that are asked about.
        limit: number of utterances, chosen by a hash of their ids; None for all.
        samples: files as for `emotion_task.perception.emotions.recall_report`, which add the recall by
            emotion.
        seed: seed of the bootstrap.

    Raises:
        ConfigError: The form is unknown, or there are more than two files of samples.
        DataError: No utterance of the split can be asked about.
    """
    if form not in FORMS:
        raise ConfigError(f"form: got {form!r}; allowed are {list(FORMS)}")
    if len(samples) > 2:
        raise ConfigError(f"samples: got {len(samples)} files; one run's, or those before and after")
    utterances, turns = _asked(manifest, form, split, limit)
    recall = recall_report(samples, seed=seed) if samples else None
    attributes = attributes_of(turns)
    heard = choose_apart(models, utterances, turns)
    tables = {name: hits(turns, chosen, attributes) for name, chosen in heard.items()}
    report: dict[str, Any] = {
        "form": form,
        "num_utterances": len(utterances),
        "num_speakers": len({utterance.speaker for utterance in utterances}),
        "models": dict(models),
        "floor": floors(turns, attributes),
        **_estimates("attributes", "gain", tables, attributes, seed),
    }
    emotions = labels_among(u.emotion for u in utterances)
    if emotions:
        by_emotion = {name: _by_emotion(table, utterances, emotions) for name, table in tables.items()}
        report |= _estimates("emotions", "gain_by_emotion", by_emotion, emotions, seed)
    if recall is not None:
        report["recall"] = recall
    report |= {"seed": seed, "versions": versions()}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "perception.json", plain(report))
    plot_estimates(report["attributes"], folder / "perception.png", title="Prosody perception")
    (folder / "perception.md").write_text(as_markdown(report), encoding="utf-8")
    return plain(report)


def _asked(
    manifest: str | Path, form: str, split: str, limit: int | None
) -> tuple[list[Utterance], list[list[Turn]]]:
    rows = [utterance for utterance in read_manifest(manifest) if utterance.split == split]
    pairs = [(utterance, turns_of(utterance, form)) for utterance in choose(rows, limit)]
    pairs = [(u, turns) for u, turns in pairs if any(is_graded(c) for turn in turns for c in turn.choices)]
    if not pairs:
        raise DataError(
            f"{manifest}: of {len(rows)} utterances with the split {split!r} none has an annotated "
            "attribute; run `emotion annotate`, or name another split"
        )
    return [u for u, _ in pairs], [turns for _, turns in pairs]


def floors(turns: Sequence[Sequence[Turn]], attributes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the accuracies that need no hearing, by attribute.

    `chance` is one over the number of options, `majority` the accuracy of always giving the commonest answer.
    The stressed word has no majority."""
    found: dict[str, dict[str, float]] = {}
    for attribute in attributes:
        choices = [
            c
            for of_one in turns
            for turn in of_one
            for c in turn.choices
            if c.attribute == attribute and is_graded(c)
        ]
        found[attribute] = {"chance": float(np.mean([1 / len(c.options) for c in choices]))}
        if attribute != STRESS:
            counts = Counter(c.answer for c in choices)
            found[attribute]["majority"] = max(counts.values()) / len(choices)
    return found


def _estimates(
    name: str, gain: str, tables: Mapping[str, np.ndarray], columns: Sequence[str], seed: int
) -> dict[str, object]:
    """Returns the estimates of each model's table of hits as `name`, and of two models' difference as
    `gain`."""
    found: dict[str, object] = {
        name: {model: estimate(table, columns, seed=seed) for model, table in tables.items()}
    }
    if len(tables) == 2:
        before, after = tables.values()
        found[gain] = estimate_gain(before, after, columns, seed=seed)
    return found


def _by_emotion(table: np.ndarray, utterances: Sequence[Utterance], emotions: Sequence[str]) -> np.ndarray:
    """Turns hits [N, A] into [N, E]: an utterance's share of right answers, in the column of its emotion."""
    scores = np.full((len(table), len(emotions)), np.nan)
    for row, utterance in enumerate(utterances):
        if utterance.emotion in emotions:
            scores[row, emotions.index(utterance.emotion)] = np.nanmean(table[row])
    return scores


def as_markdown(report: Mapping[str, Any]) -> str:
    """Returns the report for people, as Markdown."""
    lines = [
        "# Prosody perception",
        "",
        f"{report['num_utterances']} held-out utterances of {report['num_speakers']} speakers, forced "
        f"choice, questions in the form `{report['form']}`. In brackets the 95 % bootstrap interval over "
        "utterances; the gain is paired.",
        "",
        *estimates_table("attribute", report["attributes"], report.get("gain"), report["floor"]),
    ]
    if "emotions" in report:
        lines += [
            "",
            "## By emotion",
            "",
            "Share of right answers about utterances of each emotion.",
            "",
            *estimates_table("emotion", report["emotions"], report.get("gain_by_emotion")),
        ]
    if "recall" in report:
        lines += ["", recall_section(report["recall"])]
    return "\n".join([*lines, "", "![Accuracy by attribute](perception.png)", ""])
