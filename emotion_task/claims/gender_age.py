"""Finds what reasoning claims about who speaks: gender and age."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emotion_task.claims.ages import told_ages
from emotion_task.claims.lexicon import words
from emotion_task.claims.sentences import Sentence

_MALE = words(
    "man male gentleman boy guy masculine bloke dude fellow chap "
    "lad gent grandpa granddad grandfather schoolboy m"
)
_FEMALE = words("woman female lady girl feminine lass gal granny grandma grandmother schoolgirl f")
_MEN = words("men males guys blokes")
_WOMEN = words("women females ladies")
_HE = words("he his him himself")
_SHE = words("she her hers herself")

_ADDRESSING = re.compile(
    r"\b(?:talk|speak(?!er)|address|yell|shout|complain|refer|respond|"
    r"repl|answer|mention|describ|listen|compar|directed|"
    r"toward|towards|than|unlike|comparison)\w*"
    r"(?: to| about| at| with| of)?(?: the| a| an| another| some| average| typical| usual)*$"
)
_EITHER = re.compile(
    r"\b(?:man|male|woman|female|men|women|boy|girl|he|him) or "
    r"(?:an? )?(?:man|male|woman|female|men|women|girl|boy|she|"
    r"her)\b"
)
_BE = words("is was does did can , has")
_PERCEIVING = words("hear put accuse guess place find call make consider take blame judge picture imagine")
"""Verbs whose object is the speaker: nobody could accuse her of being loud."""
_REPORTING = words("says said mentions tells claims asks complains explains that because about")


def speaker_claims(sentences: list[Sentence]) -> Iterator[tuple[str, str]]:
    """Yields (attribute, value) for each claim about gender and age.

    Nouns of gender outrank pronouns. Only the first pronoun counts: those that follow may be of anyone."""
    genders = [g for s in sentences for g in _named_genders(s)]
    yield from (("gender", g) for g in genders or [g for s in sentences for g in _pronouns(s)][:1])
    for sentence in sentences:
        text = " ".join(" " if i in sentence.denied else t for i, t in enumerate(sentence.tokens))
        yield from (("age_level", age) for age in told_ages(text))


def _named_genders(sentence: Sentence) -> Iterator[str]:
    if _EITHER.search(" ".join(sentence.tokens)):
        return
    for i, token in enumerate(sentence.tokens):
        before = " ".join(sentence.tokens[max(0, i - 5) : i])
        after = sentence.tokens[i + 1 : i + 3]
        if token in _MEN | _WOMEN and re.search(r"\bfor(?: (?:most|adult|other|young|older|the))*$", before):
            yield "male" if token in _MEN else "female"
        elif token in ("m", "f") and not (
            (i == 0 and after[:1] == (",",))
            or sentence.tokens[max(0, i - 2) : i] in (("sex", ":"), ("gender", ":"))
        ):
            continue
        elif token in ("boy", "man") and (
            sentence.tokens[i - 1] == "oh"
            or (after[:1] == (",",) and before.split()[-1:] in (["but"], ["and"], ["wow"]))
            or (after and after[0] in _BE and after[1:2] and after[1] in _HE | _SHE)
        ):
            continue  # boy, is she loud
        elif (
            token in _MALE | _FEMALE
            and (i not in sentence.denied or sentence.tokens[i - 2 : i] == ("for", "a"))
            and not _ADDRESSING.search(before)
        ):
            yield "male" if token in _MALE else "female"


def _pronouns(sentence: Sentence) -> Iterator[str]:
    tokens = sentence.tokens
    if _EITHER.search(" ".join(tokens)):
        return
    for i, token in enumerate(tokens):
        if token in _HE | _SHE and (i == 0 or tokens[i - 1] not in _REPORTING):
            is_object = token == "him" or (
                token == "her" and (i + 1 == len(tokens) or tokens[i + 1] in _AFTER_OBJECT)
            )
            if not is_object or tokens[i - 1] in _PERCEIVING or tokens[i - 2 : i] == ("for", "to"):
                yield "male" if token in _HE else "female"


_AFTER_OBJECT = words(", : and but or the a an to about that for in at on with of as is so")
