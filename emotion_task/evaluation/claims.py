"""What free reasoning claims about a voice, found by a written lexicon, and whether measurement agrees.

The finder reads clause by clause. A level word belongs to the attribute noun that it stands before ("a high
pitch") or that a copula leads back to ("the pitch is high"). Negated levels are no claim ("not loud"),
"neither high nor low" is normal, quoted speech is left out. An attribute that is given two values is
`contradictory`, which agrees with nothing, so that stating everything does not pay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emotion_task.evaluation.lexicon import (
    ADVERBS,
    ALONE,
    COPULAS,
    GENDERS,
    LEVELS,
    NEGATIONS,
    NOUNS,
    OPPOSITES,
    SPEECH_NOUNS,
)

CONTRADICTORY = "contradictory"

_RISE = r"(?:rising|rises|rise)"
_FALL = r"(?:falling|falls|fall)"
_THEN = r"(?:\s*,?\s*(?:and|then|before|and\s+then)\s+|-)"
_COMPOUNDS = (
    (re.compile(rf"\b{_RISE}{_THEN}{_FALL}\b"), "rising-falling"),
    (re.compile(rf"\b{_FALL}{_THEN}{_RISE}\b"), "falling-rising"),
)
_NEITHER = re.compile(r"\bneither (?:\w+ )?(\w+) nor (?:\w+ )?(\w+)\b")
_SENTENCE = re.compile(r"[.!?;\n]+")
_CLAUSE = re.compile(r"[,:]|\b(?:and|but|while|with|yet|although|though|whereas|beside|besides)\b")
_TOKEN = re.compile(r"[a-z0-9]+(?:['-][a-z]+)*")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the claims of one reasoning compare with the facts of its utterance."""

    num_correct: int
    """Claims that are facts."""
    num_claims: int
    """Claims that can be checked: of an attribute that was measured."""
    num_facts: int
    """Facts of the utterance, claimed or not."""
    num_covered: int
    """Facts whose attribute was claimed, rightly or not."""

    @property
    def precision(self) -> float:
        """Share of the checkable claims that are facts; 0 where there are none."""
        return self.num_correct / self.num_claims if self.num_claims else 0.0

    @property
    def coverage(self) -> float:
        """Share of facts that are spoken of; 1 where there are none."""
        return self.num_covered / self.num_facts if self.num_facts else 1.0


def compare_claims(claims: Mapping[str, str], facts: Mapping[str, str]) -> Agreement:
    """Compares what `find_claims` found with what `emotion_task.facts.stated_facts` knows."""
    return Agreement(
        num_correct=sum(facts.get(name) == value for name, value in claims.items()),
        num_claims=sum(name in facts for name in claims),
        num_facts=len(facts),
        num_covered=sum(name in claims for name in facts),
    )


def find_claims(reasoning: str) -> dict[str, str]:
    """Attribute (as in `emotion_task.facts.VALUES`) to the claimed value, or to `contradictory`."""
    found: dict[str, set[str]] = {}
    for name, value in _iter_claims(_prepare(reasoning)):
        found.setdefault(name, set()).add(value)
    return {name: next(iter(values)) if len(values) == 1 else CONTRADICTORY for name, values in found.items()}


def _prepare(text: str) -> str:
    text = re.sub(r'["“][^"“”]*["”]', " ", text.lower().replace("\u2019", "'"))
    text = re.sub(r"</?\w+>", " ", text)
    text = re.sub(r"-pitched\b", " pitch", text)
    text = _NEITHER.sub(lambda m: OPPOSITES.get(frozenset(m.groups()), m[0]), text)
    for pattern, word in _COMPOUNDS:
        text = pattern.sub(word, text)
    return text


def _iter_claims(text: str) -> Iterator[tuple[str, str]]:
    for sentence in _SENTENCE.split(text):
        waiting: set[str] = set()
        for clause in _CLAUSE.split(sentence):
            tokens = _TOKEN.findall(clause)
            claims = list(_clause_claims(tokens))
            yield from claims
            # "the pitch and the energy are high": a noun without a level takes the next clause's level.
            stated = {name for name, _ in claims}
            levels = [token for i, token in enumerate(tokens) if not _negated(tokens, i)]
            if claims:
                for name in waiting - stated:
                    yield from ((name, LEVELS[name][level]) for level in levels if level in LEVELS[name])
                waiting = set()
            elif (
                tokens
                and tokens[-1] in NOUNS
                and tokens[-1] not in SPEECH_NOUNS
                and tokens[-1][:5] != "voice"
            ):
                waiting.add(NOUNS[tokens[-1]])


def _clause_claims(tokens: list[str]) -> Iterator[tuple[str, str]]:
    leveled = False
    for i, token in enumerate(tokens):
        if token in GENDERS and not _negated(tokens, i):
            yield "gender", GENDERS[token]
        name = _attribute_of(tokens, i)
        if name is not None:
            leveled = True
            if not _negated(tokens, i):
                level = LEVELS[name][token] if token in LEVELS[name] else ALONE[token][1]
                yield name, level
    if not leveled and "pitch" in tokens and any(token in NEGATIONS for token in tokens):
        yield "pitch_level", "none"


def _attribute_of(tokens: list[str], i: int) -> str | None:
    """The attribute that the level word at `i` is said of; None where it is no level word or said of
    nothing."""
    word = tokens[i]
    before = next((j for j in range(i - 1, -1, -1) if _takes(tokens[j], word)), None)
    after = next((j for j in range(i + 1, min(i + 3, len(tokens))) if _takes(tokens[j], word)), None)
    previous = next((t for t in reversed(tokens[:i]) if t not in ADVERBS and t not in NEGATIONS), None)
    noun = before if previous in COPULAS and before is not None else after if after is not None else before
    if noun is not None:
        return _named(tokens[noun], word)
    if word not in ALONE:
        return None
    name = ALONE[word][0]
    # "the energy is rising" is no claim about intonation.
    others = {NOUNS[t] for t in tokens if t in NOUNS and t not in SPEECH_NOUNS} - {
        name,
        "voice",
        "pitch_level",
    }
    return None if name == "intonation" and others else name


def _takes(noun: str, word: str) -> bool:
    return noun in NOUNS and _named(noun, word) is not None


def _named(noun: str, word: str) -> str | None:
    name = NOUNS[noun]
    if name == "voice":
        if word in ("high", "higher", "deep", "deeper"):
            return "pitch_level"
        return ALONE[word][0] if word in ALONE else "energy_level" if word in ("strong", "weak") else None
    if noun in SPEECH_NOUNS and word in LEVELS["pitch_level"] and LEVELS["pitch_level"][word] != "normal":
        return None
    if word in LEVELS[name]:
        return name
    # "the pitch rises": the contour, whatever noun carries it.
    return "intonation" if name == "pitch_level" and word in LEVELS["intonation"] else None


def _negated(tokens: list[str], i: int) -> bool:
    return any(token in NEGATIONS for token in tokens[max(0, i - 3) : i])
