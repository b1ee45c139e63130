"""Turns a model's answer into what a client is told: label, reasoning and claims, beside the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from emotion_task.claims.placed import placed_claims
from emotion_task.facts import known_facts, reference_of
from emotion_task.parsing import normalise_label, parse_response
from emotion_task.records import Utterance


def explanation_of(
    answer: str, odds: Mapping[str, float] | None, utterance: Utterance, labels: Sequence[str]
) -> dict[str, Any]:
    """Returns the fields of an explanation that follow from a model's answer and a measured recording.

    An answer outside the schema has no label, and counts as reasoning.

    Args:
        odds: probability of each label, if known.
        utterance: the recording, measured, with its levels.
        labels: options of the question.
    """
    parsed = parse_response(answer)
    facts, reasoning = known_facts(utterance), parsed.think if parsed else answer
    claims = placed_claims(reasoning, reference_of(utterance))
    return {
        "label": normalise_label(parsed.answer, labels) if parsed else None,
        "probabilities": odds and {label: round(value, 6) for label, value in odds.items()},
        "reasoning": reasoning,
        "answer": answer,
        "claims": [{**asdict(claim), "measured": facts.get(claim.type)} for claim in claims],
        "levels": facts,
        "measured": utterance.measured,
    }
