"""Numbers of a set of answers. Pure functions of responses and utterances' references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score

from emotion_task.claims.finder import find_claims
from emotion_task.facts import PROSODY, VALUES
from emotion_task.parsing import normalise_label, parse_response

NO_ANSWER = "(none)"
"""Name of the confusion matrix's column for responses without a readable label."""


def predicted_labels(responses: Sequence[str], labels: Sequence[str]) -> list[str | None]:
    """Returns the label that each response answers with; None where schema or label cannot be read."""
    parsed = [parse_response(text) for text in responses]
    return [None if p is None else normalise_label(p.answer, labels) for p in parsed]


def emotion_metrics(
    truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> dict[str, float]:
    """Returns `accuracy`, and over the emotions that occur `unweighted_accuracy` (mean recall), `macro_f1`.

    An unreadable answer is wrong.
    """
    guesses = [p if p is not None else NO_ANSWER for p in predicted]
    present = [label for label in labels if label in set(truth)]
    hits = np.array([t == g for t, g in zip(truth, guesses, strict=True)], dtype=float)
    recalls = [hits[[t == label for t in truth]].mean() for label in present]
    return {
        "accuracy": float(hits.mean()),
        "unweighted_accuracy": float(np.mean(recalls)),
        "macro_f1": float(f1_score(truth, guesses, labels=present, average="macro", zero_division=0)),
    }


def confusion(truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Returns counts int64 [L, L + 1]: rows are true labels, columns answers, the last one `NO_ANSWER`."""
    guesses = [p if p is not None else NO_ANSWER for p in predicted]
    return confusion_matrix(truth, guesses, labels=[*labels, NO_ANSWER])[: len(labels)]


def prosody_metrics(responses: Sequence[str], references: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Compares what the reasoning says with what was measured.

    `<attribute>_accuracy`: share of the utterances whose field is known where the claim equals it; a
    missing claim is wrong. `prosody_accuracy`: mean over pitch, energy, speed and intonation.
    `claim_precision`: share of the claims of measured attributes that are right. Attributes that no
    utterance knows are left out.

    Args:
        references: each with the attributes of `emotion_task.facts.VALUES` (null or absent where unknown).
    """
    hits: dict[str, list[bool]] = {name: [] for name in VALUES}
    num_claims = num_correct = 0
    for text, reference in zip(responses, references, strict=True):
        parsed = parse_response(text)
        claims = find_claims(parsed.think if parsed else text)
        for name, values in VALUES.items():
            known = reference.get(name)
            # A whisper has no pitch level to be right about; saying so counts for precision only.
            if known in values and known != "none":
                hits[name].append(claims.get(name) == known)
            if name in claims and known in values:
                num_claims += 1
                num_correct += claims[name] == known
    metrics = {f"{_short(name)}_accuracy": float(np.mean(h)) for name, h in hits.items() if h}
    prosody = [float(np.mean(hits[name])) for name in PROSODY if hits[name]]
    if prosody:
        metrics["prosody_accuracy"] = float(np.mean(prosody))
    metrics["claim_precision"] = num_correct / num_claims if num_claims else 0.0
    return metrics


def _short(attribute: str) -> str:
    return attribute.removesuffix("_level")
