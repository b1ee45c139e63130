"""Represents what the judge hears before it reads: one row of digits per recording, and how that row supports
a response.

    recording -> digits, one per aspect (pitch level 2, energy level 0, ...), as probabilities
    response  -> claims (`emotion_task.claims.finder`)
    both      -> `Heard: 92-593`: for each aspect, how likely the claim is, from 0 to 9

The row depends on the recording alone, so the K responses of a group share it. The judge compares nothing
from memory: its question holds the evidence, which is soft where the voice is ambiguous.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from emotion_task.claims.finder import find_claims
from emotion_task.facts import VALUES, stated_facts
from emotion_task.labels import ALL_LABELS
from emotion_task.parsing import named_emotions, normalise_label, parse_response
from emotion_task.prompt import audio_messages
from emotion_task.records import Utterance
from rlcore.models.chat_template import Messages

DIGITS = tuple("0123456789")

Aspects = Mapping[str, tuple[str, ...]]
"""Values of each aspect, in the order of the row; a value is written as the digit of its place."""


def aspects_of(labels: Sequence[str]) -> Aspects:
    """Returns the aspects of a judge whose emotions are `labels`.

    Ours always have the same digits, whichever of them a corpus uses. A set of one's own has the digits of
    its order; one of more than ten has none, and the judge then hears the voice and not the emotion.
    """
    emotions = ALL_LABELS if set(labels) <= set(ALL_LABELS) else tuple(labels)
    return {**VALUES, "emotion": emotions} if len(emotions) <= len(DIGITS) else dict(VALUES)


ASPECTS: Aspects = aspects_of(ALL_LABELS)
UNKNOWN = "-"
"""Stands in a row for an aspect of which nothing is known or claimed."""
LISTEN_SYSTEM_PROMPT = "You grade answers about a voice."
LISTEN_QUESTION = "Write what is heard, a digit each: pitch, energy, rate, intonation, gender, emotion."

Heard = Mapping[str, Sequence[float]]
"""Probability of each value, by aspect; the values are in the order of the judge's `Aspects`."""


def listen_messages() -> Messages:
    """Returns the conversation in which the judge writes a digit for each of its `Aspects`."""
    return audio_messages(LISTEN_SYSTEM_PROMPT, LISTEN_QUESTION)


def known_aspects(utterance: Utterance, aspects: Aspects = ASPECTS) -> dict[str, str]:
    """Returns the value of each aspect that is known of the recording."""
    emotion = utterance.emotion
    is_heard = emotion is not None and emotion in aspects.get("emotion", ())
    return stated_facts(utterance) | ({"emotion": str(emotion)} if is_heard else {})


def listen_target(utterance: Utterance, aspects: Aspects = ASPECTS) -> str:
    """Returns the row of a recording: a digit per known aspect, `-` for an unknown one."""
    known = known_aspects(utterance, aspects)
    return "".join(
        str(values.index(known[name])) if name in known else UNKNOWN for name, values in aspects.items()
    )


def reasoning_of(response: str) -> str:
    """Returns the part of any response that reasons: the text inside `<think>`, or, without the schema,
    everything before `</think>` or `<answer>`."""
    parsed = parse_response(response)
    return parsed.think if parsed else re.split(r"</think>|<answer>", response)[0]


def claimed_aspects(response: str, aspects: Aspects = ASPECTS) -> dict[str, str]:
    """Returns the value of each aspect that a response claims. The claimed emotion is the answer, or else the
    emotion that the reasoning names last."""
    claims = {name: value for name, value in find_claims(reasoning_of(response)).items() if name in aspects}
    parsed = parse_response(response)
    if parsed is None or "emotion" not in aspects:
        return claims
    named = named_emotions(parsed.think, aspects["emotion"])
    emotion = normalise_label(parsed.answer, aspects["emotion"]) or (named[-1] if named else None)
    return claims | ({"emotion": emotion} if emotion is not None else {})


def support(claims: Mapping[str, str], heard: Heard, aspects: Aspects = ASPECTS) -> str:
    """Returns a digit per aspect: nine times the probability of the claimed value, rounded.

    The digit is `-` where nothing is claimed or nothing could be heard. A claim that contradicts itself is
    not supported at all (0)."""
    digits = []
    for name, values in aspects.items():
        if name not in claims or name not in heard:
            digits.append(UNKNOWN)
        else:
            value = claims[name]
            likely = heard[name][values.index(value)] if value in values else 0.0
            digits.append(str(round(9 * likely)))
    return "".join(digits)


def heard_aspects(rows: Sequence[Sequence[float]], aspects: Aspects = ASPECTS) -> Heard:
    """Turns the probabilities of a row of digits, [aspects, digits], into those of each aspect's values.

    The digits beyond an aspect's values are left out, and the others are scaled to sum to 1."""
    heard = {}
    for (name, values), row in zip(aspects.items(), rows, strict=True):
        total = sum(row[: len(values)])
        heard[name] = [p / total if total > 0 else 1 / len(values) for p in row[: len(values)]]
    return heard


def drawn_hearing(truth: Mapping[str, str], rng: random.Random, aspects: Aspects = ASPECTS) -> Heard:
    """Draws how a calibrated listener might hear a recording, for each aspect in `truth`.

    Among listeners who give a value the probability p, that value is true in a share p of the cases.
    Listeners are drawn from very sure to nearly deaf, so that a judge trained on them learns what a
    probability is worth, whoever listens."""
    heard = {}
    for name, value in truth.items():
        values = aspects[name]
        concentration = 0.04 ** rng.random()  # 0.04, nearly sure, to 1, any distribution as likely as another
        weights = [rng.gammavariate(concentration, 1.0) + 1e-6 for _ in values]
        (place,) = rng.choices(range(len(values)), weights)
        rest = weights[:place] + weights[place + 1 :]
        rng.shuffle(rest)
        rest.insert(values.index(value), weights[place])
        heard[name] = [weight / sum(rest) for weight in rest]
    return heard
