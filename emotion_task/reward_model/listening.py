"""Represents what the judge hears before it reads: one row of digits per recording, and how that row supports
a response.

    recording -> digits, one per aspect (pitch level 2, energy level 0, ...), as probabilities
    response  -> claims (`emotion_task.claims.finder`)
    both      -> `Heard: 92-593946`: for each aspect, how likely the claim is, from 0 to 9; whether the
                 claims support the emotion; and the grade of facts that is to be expected, in tenths

The row depends on the recording alone, so the K responses of a group share it. The judge compares nothing
from memory: its question holds the evidence, which is soft where the voice is ambiguous.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from emotion_task.claims.finder import find_claims
from emotion_task.claims.support import ClaimTable
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


def support(
    claims: Mapping[str, str], heard: Heard, table: ClaimTable | None, aspects: Aspects = ASPECTS
) -> str:
    """Returns what is heard of claims as digits: one per aspect, nine times the probability of the claimed
    value, rounded; 9 if the claims support the claimed emotion, else 0; and two digits, the expected grade of
    facts in tenths.

    A digit is `-` where nothing is claimed or nothing could be heard, and where no table tells what supports
    the emotion. A claim that contradicts itself is not supported at all (0)."""
    likely = {
        name: heard[name][values.index(claims[name])] if claims[name] in values else 0.0
        for name, values in aspects.items()
        if name in claims and name in heard
    }
    return support_digits(claims, likely, table, aspects)


def support_digits(
    claims: Mapping[str, str],
    likely: Mapping[str, float],
    table: ClaimTable | None,
    aspects: Aspects = ASPECTS,
) -> str:
    """Returns the digits of `support`, from the probability of each claim that could be heard.

    The expected grade of facts is 5 less the expected number of wrong claims, at least 1; without a claim
    about the voice it is 1. A small model adds badly, so the sum stands there."""
    digits = [str(round(9 * likely[name])) if name in likely else UNKNOWN for name in aspects]
    if table is None or claims.get("emotion") not in table.labels:
        digits.append(UNKNOWN)
    else:
        digits.append("9" if table.supports(claims, claims["emotion"]) else "0")
    doubts = [1 - p for name, p in likely.items() if name != "emotion"]
    expected = max(1.0, 5 - sum(doubts)) if doubts else 1.0
    return f"{''.join(digits)}{round(10 * expected)}"


def heard_aspects(rows: Sequence[Sequence[float]], aspects: Aspects = ASPECTS) -> Heard:
    """Turns the probabilities of a row of digits, [aspects, digits], into those of each aspect's values.

    The digits beyond an aspect's values are left out, and the others are scaled to sum to 1."""
    heard = {}
    for (name, values), row in zip(aspects.items(), rows, strict=True):
        total = sum(row[: len(values)])
        heard[name] = [p / total if total > 0 else 1 / len(values) for p in row[: len(values)]]
    return heard


_RIGHT_RATE = 0.7
"""Share of right ones among the claims of a drawn listener."""


def drawn_support(
    claims: Mapping[str, str],
    truth: Mapping[str, str],
    table: ClaimTable | None,
    rng: random.Random,
    aspects: Aspects = ASPECTS,
) -> str:
    """Draws how a calibrated listener might support claims (`support`), for the aspects in `truth`.

    Of the claims to which listeners give a probability p, a share p is right: p of a right claim has the
    density Beta(a + 1, b), of a wrong one Beta(a, b + 1), with a : b as right to wrong. Listeners are drawn
    from very sure (a + b = 0.1) to nearly deaf (10), so that a judge trained on them learns what a
    probability is worth, whoever listens.
    """
    likely = {}
    for name, values in aspects.items():
        if name in claims and name in truth:
            sureness = 10 ** rng.uniform(-1, 1)
            a, b = sureness * _RIGHT_RATE, sureness * (1 - _RIGHT_RATE)
            is_right = claims[name] == truth[name]
            p = rng.betavariate(a + is_right, b + (not is_right))
            likely[name] = p if claims[name] in values else 0.0
    return support_digits(claims, likely, table, aspects)
