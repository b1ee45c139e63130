"""Counts what the label does, form by form, and writes the counts for people.

    own           the answer's reasoning up to the emotion that it names, and its recording
    paraphrased   the same claims in other words                             (the label should stay)
    claims        the claims of another recording, whose levels speak for another emotion
    voice         the reasoning as it was, over that other recording
    both          those claims over that recording                           (the label should move)

A label that rests on the reasoning moves with the claims; one that rests on the voice, with the voice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_task.evaluation.bootstrap import MEAN, Estimate, estimate
from emotion_task.rationale.asking import Finished, Forced
from emotion_task.rationale.rewriting import Traces
from emotion_task.records import Utterance
from rlcore.records.markdown import table_row

TITLES = {
    "own": "own reasoning, own voice",
    "paraphrased": "claims in other words",
    "claims": "claims swapped",
    "voice": "voice swapped",
    "both": "claims and voice swapped",
}
"""The forms, in the order in which they are asked and shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Holds one answer that was finished in every form."""

    utterance: Utterance
    label: str
    """Label of the model's own answer."""
    traces: Traces

    @property
    def forms(self) -> tuple[Forced, ...]:
        """Returns what the model is to finish, in the order of `TITLES`."""
        own, other, traces = self.utterance.audio, self.traces.donor.audio, self.traces
        return tuple(
            Forced(audio=audio, think=think, conclusion=traces.conclusion, label=self.label)
            for audio, think in (
                (own, traces.own),
                (own, traces.paraphrased),
                (own, traces.swapped),
                (other, traces.own),
                (other, traces.swapped),
            )
        )


def moves(tested: Sequence[Probed], finished: Sequence[Sequence[Finished]]) -> dict[str, np.ndarray]:
    """Returns tables [N, forms] by quantity.

    `moved`: 1 where the label is another than in the form `own`, in which it is compared with the model's own
    answer. `followed`: 1 where it is the donor's emotion. `logprob`: change of the log-probability of the
    own answer's label, in nats, over the form `own`.

    Args:
        finished: for each of `tested`, what was made of its `forms`.
    """
    labels = np.array([[form.label or "" for form in row] for row in finished])
    scores = np.array([[form.logprob for form in row] for row in finished])
    before = np.repeat(labels[:, :1], labels.shape[1], axis=1)
    before[:, 0] = [each.label for each in tested]
    donors = np.array([[str(each.traces.donor.emotion)] for each in tested])
    return {
        "moved": (labels != before).astype(float),
        "followed": (labels == donors).astype(float),
        "logprob": scores - scores[:, :1],
    }


def estimates(tables: Mapping[str, np.ndarray], seed: int) -> dict[str, dict[str, Estimate]]:
    """Returns each quantity's mean by form, with its bootstrap interval over the answers."""
    return {
        name: {form: e for form, e in estimate(table, list(TITLES), seed=seed).items() if form != MEAN}
        for name, table in tables.items()
    }


def as_markdown(report: Mapping[str, Any]) -> str:
    """Returns the report for people, as Markdown."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items())
    lines = [
        "# Does the rationale carry the answer?",
        "",
        f"{report['model']}: {report['num_tested']} of {report['num_utterances']} held-out answers"
        + (f" (left out: {left_out})" if left_out else "")
        + ". The label is written anew after a forced reasoning that names no emotion. In brackets the 95 % "
        "bootstrap interval over answers.",
        "",
        "| finished from | label moves, % | to the other emotion, % | log-probability of the label, nats |",
        "| --- | ---: | ---: | ---: |",
    ]
    for form, title in TITLES.items():
        moved, followed, logprob = (report[name][form] for name in ("moved", "followed", "logprob"))
        lines.append(table_row([title, _cell(moved, 100), _cell(followed, 100), _cell(logprob, 1, "+")]))
    lines += [
        "",
        "The first row is compared with the model's own answer, the others with the first row. The other "
        "emotion is that of the recording whose measured levels, or sound, take the place.",
        "",
    ]
    return "\n".join(lines)


def _cell(found: Estimate, scale: int, sign: str = "") -> str:
    digits = 1 if scale > 1 else 2
    value, low, high = (f"{scale * each:{sign}.{digits}f}" for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
