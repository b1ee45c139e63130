"""Guesses what an unlisted word is: adjective or adverb by its ending, else a foreign noun or verb."""

from __future__ import annotations

from emotion_task.claims.lexicon import (
    ADJECTIVES,
    ADVERBS,
    BREAKS,
    CONJUNCTIONS,
    DETERMINERS,
    DOWN,
    FREE,
    LEVEL_WORDS,
    LINKS,
    MOTIONS,
    NOUNS,
    PREPOSITIONS,
    SCALES,
    STATIVE,
    UP,
)
from emotion_task.claims.sentences import MASK

_TRANSPARENT = (
    LINKS | STATIVE | ADVERBS | DETERMINERS | PREPOSITIONS | CONJUNCTIONS | SCALES | UP | DOWN | MOTIONS
)

_SUFFIXES = (
    "ing",
    "ed",
    "ful",
    "al",
    "ive",
    "ous",
    "ish",
    "less",
    "like",
    "ic",
    "ant",
    "ent",
    "ary",
    "able",
    "ible",
)

_NOT_ADJECTIVES = (
    *(
        "thing",
        "ment",
        "refusal",
        "arousal",
        "approval",
        "denial",
        "signal",
        "interval",
        "proposal",
        "appraisal",
    ),
    *(
        "feeling",
        "meaning",
        "meeting",
        "setting",
        "evening",
        "morning",
        "understanding",
        "narrative",
        "motive",
    ),
    *(
        "syllable",
        "perspective",
        "panic",
        "music",
        "topic",
        "accent",
        "intent",
        "content",
        "instant",
        "student",
        "event",
    ),
)


def adjectival(token: str) -> bool:
    if token in ADJECTIVES:
        return True
    if token in NOUNS or token in _TRANSPARENT or token in BREAKS or len(token) < 4:
        return False
    return token.endswith(_SUFFIXES) and not token.endswith(_NOT_ADJECTIVES)


def adverbial(token: str) -> bool:
    return token in ADVERBS or (token.endswith("ly") and token not in LEVEL_WORDS)


def is_foreign(token: str) -> bool:
    return not (
        token in ("", MASK)
        or token in _TRANSPARENT
        or token in BREAKS
        or token in NOUNS
        or token in LEVEL_WORDS
        or token in FREE
        or token in (",", ":")
        or token.endswith("ly")
        or adjectival(token)
    )
