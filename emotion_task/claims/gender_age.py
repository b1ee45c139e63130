"""Finds what reasoning claims about who speaks: gender and age."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emotion_task.claims.lexicon import words
from emotion_task.claims.sentences import Sentence

_MALE = words("man male gentleman boy guy men's masculine")
_FEMALE = words("woman female lady girl feminine")
_HE = words("he his him himself")
_SHE = words("she her hers herself")

_ADDRESSING = re.compile(
    r"\b(?:talk|speak|address|yell|shout|complain|refer|respond|repl|answer|mention|describ|listen|compar|directed|"
    r"toward|towards|than|unlike|comparison)\w*"
    r"(?: to| about| at| with| of)?(?: the| a| an| another| some| average| typical| usual)*$"
)
_EITHER = re.compile(
    r"\b(?:man|male|woman|female|men|women) or (?:an? )?(?:man|male|woman|female|men|women)\b"
)
_REPORTING = words("says said mentions tells claims asks complains explains that because about")
_AGES = (
    ("young", r"young|youthful|teenage[rd]?|teens|adolescent|twenties"),
    ("middle-aged", r"middle aged|(?:mid|early|late)? ?(?:forties|fifties)"),
    ("elderly", r"elderly|old(?:er)? (?:man|woman|lady|gentleman|person|speaker|male|female|voice)"
                r"|(?<=sounds )old|(?<=seems )old|(?<=quite )old|senior|aged"
                r"|advanced age|sixties|seventies|eighties"),
    ("child", r"child(?!hood|ren)|kid|toddler|(?:little|small|young) (?:girl|boy)|schoolboy|schoolgirl"
              r"|(?:boy|girl) of (?:\w+ )?(?:four|five|six|seven|eight|nine|ten|eleven|twelve)"),
)  # fmt: skip
_AGE = re.compile("|".join(rf"\b(?P<a{i}>{pattern})\b" for i, (_, pattern) in enumerate(reversed(_AGES))))


def speaker_claims(sentences: list[Sentence]) -> Iterator[tuple[str, str]]:
    """Yields (attribute, value) for each claim about gender and age.

    Nouns of gender outrank pronouns. Only the first pronoun counts: those that follow may be of anyone."""
    genders = [g for s in sentences for g in _named_genders(s)]
    yield from (("gender", g) for g in genders or [g for s in sentences for g in _pronouns(s)][:1])
    for sentence in sentences:
        text = " ".join(" " if i in sentence.denied else t for i, t in enumerate(sentence.tokens))
        for match in _AGE.finditer(text):
            yield "age_level", list(reversed(_AGES))[int(str(match.lastgroup)[1:])][0]


def _named_genders(sentence: Sentence) -> Iterator[str]:
    if _EITHER.search(" ".join(sentence.tokens)):
        return
    for i, token in enumerate(sentence.tokens):
        before = " ".join(sentence.tokens[max(0, i - 5) : i])
        if token in _MALE | _FEMALE and i not in sentence.denied and not _ADDRESSING.search(before):
            yield "male" if token in _MALE else "female"


def _pronouns(sentence: Sentence) -> Iterator[str]:
    tokens = sentence.tokens
    for i, token in enumerate(tokens):
        if token in _HE | _SHE and (i == 0 or tokens[i - 1] not in _REPORTING):
            is_object = token == "him" or (
                token == "her" and (i + 1 == len(tokens) or tokens[i + 1] in _AFTER_OBJECT)
            )
            if not is_object:
                yield "male" if token in _HE else "female"


_AFTER_OBJECT = words(", : and but or the a an to about that for in at on with of as is so")
