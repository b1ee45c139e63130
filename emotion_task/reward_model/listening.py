"""What the judge hears before it reads: one row of digits a recording, and how it bears on a response.

    recording -> digits, one an aspect (pitch level 2, energy level 0, ...), as probabilities
    response  -> claims (`emotion_task.claims.finder`)
    both      -> `Heard: 92-593`: of each aspect, how likely what is claimed is, from 0 to 9

The row depends on the recording alone, so the K responses of a group share it. A judge that reads it compares
nothing from memory: it weighs evidence that stands in its question, soft where the voice is ambiguous.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from emotion_task.claims.finder import find_claims
from emotion_task.facts import VALUES, stated_facts
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import named_emotions, normalise_label, parse_response
from emotion_task.prompt import Messages, audio_messages
from emotion_task.records import Utterance

ASPECTS: dict[str, tuple[str, ...]] = {**VALUES, "emotion": ALL_LABELS}
"""Aspect to its values, in the order of the row; a value is written as the digit of its place."""

DIGITS = tuple("0123456789")
UNKNOWN = "-"
LISTEN_SYSTEM_PROMPT = "You grade answers about a voice."
LISTEN_QUESTION = "Write what is heard, a digit each: pitch, energy, rate, intonation, gender, emotion."

Heard = Mapping[str, Sequence[float]]
"""Aspect to the probability of each of its values."""


def listen_messages() -> Messages:
    """The conversation in which the judge writes a digit for each of `ASPECTS`."""
    return audio_messages(LISTEN_SYSTEM_PROMPT, LISTEN_QUESTION)


def known_aspects(utterance: Utterance) -> dict[str, str]:
    """Aspect to value, for what is known of the recording."""
    known = stated_facts(utterance)
    return known | ({"emotion": utterance.emotion} if utterance.emotion in ALL_LABELS else {})


def listen_target(utterance: Utterance) -> str:
    """The row of a recording whose aspects are known; `-` where one is not."""
    known = known_aspects(utterance)
    return "".join(
        str(values.index(known[name])) if name in known else UNKNOWN for name, values in ASPECTS.items()
    )


def reasoning_of(response: str) -> str:
    """The part of any response that reasons: inside `<think>`, or all before what closes it."""
    parsed = parse_response(response)
    return parsed.think if parsed else re.split(r"</think>|<answer>", response)[0]


def claimed_aspects(response: str) -> dict[str, str]:
    """Aspect to what a response claims of it; the emotion is its answer, or else what its reasoning names
    last."""
    claims = {name: value for name, value in find_claims(reasoning_of(response)).items() if name in ASPECTS}
    parsed = parse_response(response)
    named = named_emotions(parsed.think) if parsed else []
    emotion = (normalise_label(parsed.answer) if parsed else None) or (named[-1] if named else None)
    return claims | ({"emotion": emotion} if emotion is not None else {})


def support(claims: Mapping[str, str], heard: Heard) -> str:
    """A digit an aspect: nine times the probability of what is claimed, rounded; `-` where nothing is claimed
    or nothing could be heard. A claim that contradicts itself is not supported at all."""
    digits = []
    for name, values in ASPECTS.items():
        if name not in claims or name not in heard:
            digits.append(UNKNOWN)
        else:
            value = claims[name]
            likely = heard[name][values.index(value)] if value in values else 0.0
            digits.append(str(round(9 * likely)))
    return "".join(digits)


def heard_aspects(rows: Sequence[Sequence[float]]) -> Heard:
    """Probabilities [aspects, digits] of a row of digits, as those of each aspect's values."""
    heard = {}
    for (name, values), row in zip(ASPECTS.items(), rows, strict=True):
        total = sum(row[: len(values)])
        heard[name] = [p / total if total > 0 else 1 / len(values) for p in row[: len(values)]]
    return heard


def drawn_hearing(truth: Mapping[str, str], rng: random.Random) -> Heard:
    """How some calibrated listener might hear a recording: for each aspect a distribution that gives its true
    value the probability p in a share p of the cases. Listeners are drawn from very sure to nearly deaf, so
    that a judge trained on them learns what a probability is worth, whoever listens."""
    heard = {}
    for name, value in truth.items():
        values = ASPECTS[name]
        concentration = 0.04 ** rng.random()  # 0.04, nearly sure, to 1, any distribution as likely as another
        weights = [rng.gammavariate(concentration, 1.0) + 1e-6 for _ in values]
        (place,) = rng.choices(range(len(values)), weights)
        rest = weights[:place] + weights[place + 1 :]
        rng.shuffle(rest)
        rest.insert(values.index(value), weights[place])
        heard[name] = [weight / sum(rest) for weight in rest]
    return heard
