"""Finds what free reasoning claims about a voice, by rules over a written lexicon.

Quoted speech, denials ("not especially loud"), suppositions ("anger would be louder") and what is said of
anything but the voice ("her mood is low") make no claim about prosody; "neither fast nor slow" is normal.
docs/explanation/faithfulness.md says how well the finder does on text that was not written from its word
lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from emotion_task.claims.contour import contour_claims
from emotion_task.claims.gender_age import speaker_claims
from emotion_task.claims.grammar import SentenceReader
from emotion_task.claims.quotes import quoted_claims
from emotion_task.claims.sentences import read_sentences

LEVEL_TYPES = ("pitch_level", "energy_level", "speed_level", "intonation", "gender", "age_level")
"""Claim types that hold one value per utterance."""

CLAIM_TYPES = (*LEVEL_TYPES, "stressed_words", "quoted_words")
"""Every claim type; the last two may occur several times in an utterance."""

CONTRADICTORY = "contradictory"
"""Value of a claim type for which reasoning states two values. `contradictory` agrees with no fact, so that
stating everything does not pay."""

_POLES = {"pitch_level": ("low", "high"), "energy_level": ("low", "high"), "speed_level": ("slow", "fast")}
_CORRECTIONS = frozenset(("wait", "actually", "correction", "hmm"))


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """Holds one thing that reasoning says of a recording."""

    type: str
    """One of `CLAIM_TYPES`."""
    value: str
    """A value of `emotion_task.facts.VALUES`, `contradictory`, or the words that are said to be stressed or
    spoken, in lower case."""


def read_claims(reasoning: str) -> tuple[Claim, ...]:
    """Returns every claim of the reasoning, each once.

    A sentence that begins with "wait" or the like overrules what earlier sentences claimed."""
    return _read(reasoning)[0]


def read_denials(reasoning: str) -> frozenset[tuple[str, str]]:
    """Returns (claim type, value) of each level that the reasoning denies: "not especially loud"."""
    return _read(reasoning)[1]


@lru_cache(maxsize=1024)
def _read(reasoning: str) -> tuple[tuple[Claim, ...], frozenset[tuple[str, str]]]:
    sentences = list(read_sentences(reasoning))
    values: dict[str, list[str]] = {}
    overruled: set[str] = set()
    corrected = False
    topics: tuple[str, ...] = ()
    last: tuple[str, str] | None = None
    negations: set[tuple[str, str]] = set()
    for sentence in sentences:
        reader = SentenceReader(sentence, topics, last)
        found: dict[str, list[str]] = {}
        for name, value in (*reader.claims(), *contour_claims(reader)):
            found.setdefault(name, []).append(value)
        corrected = corrected or sentence.tokens[0] in _CORRECTIONS
        for name, new in found.items():
            values[name] = new if corrected and name not in overruled else values.get(name, []) + new
            overruled.update([name] if corrected else [])
        negations.update(reader.negations)
        topics, last = reader.topics(), reader.last
    for name, (low, high) in _POLES.items():
        if name not in values and {(name, low), (name, high)} <= negations:
            values[name] = ["normal"]  # not quick, nor is it slow
    for name, value in speaker_claims(sentences):
        values.setdefault(name, []).append(value)
    claims = [
        Claim(name, found[0] if len(set(found)) == 1 else CONTRADICTORY) for name, found in values.items()
    ]
    claims += [Claim(*claim) for claim in dict.fromkeys(quoted_claims(reasoning))]
    return tuple(claims), frozenset(negations)


def find_claims(reasoning: str) -> dict[str, str]:
    """Returns the claimed value, or `contradictory`, by claim type, for the types of `LEVEL_TYPES`."""
    return {claim.type: claim.value for claim in read_claims(reasoning) if claim.type in LEVEL_TYPES}
