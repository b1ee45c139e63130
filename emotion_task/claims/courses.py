"""Reads how the course of the pitch is told as plainer words: shapes of the melody ("V-shaped", "an arch") as
words of `figures.STATED`, other movements ("gains height", "comes crashing down") as rising and falling.

Whether it is the pitch that rises or falls, `contour.py` decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Replacement = str | Callable[[re.Match[str]], str]

_MELODY = r"(?:pitch|f0|contour|melody|tune|intonation|melodic line|pitch curve|pitch line|curve|trajectory)"
_ARCH = r"(?:arch|arc|hill|dome|bell|hump|hump ?back|mountain|rainbow|parabola|(?:inverted|upside down) [uv])"
_BOWL = r"(?:bowl|valley|trough|[uv]|cup|dish|hammock|smile)"
_DRAWS = (
    r"(?:is|has|forms?|makes?|draws?|traces?|describes?|follows?|takes?|like|resembles?|:)"
    r"(?: (?:like|an?|the|shape of|form of|of|one|smooth|gentle|single|wide|broad|clear|shallow|little|"
    r"big))* "
)
_OTHER = r"(?:volume|loudness|energy|intensity|speed|rate|tempo|pace)"
_BACK = r"(?:right |straight |all the way |gently |slowly |quickly |sharply |almost )*"
_START = (
    r"(?:its |the |his |her )?(?:base ?line|base|start(?:ing)?(?: point| level| note)?|beginning|"
    r"initial (?:level|height|note|pitch)|original (?:level|height|note|pitch)|"
    r"where (?:it|he|she) (?:began|begins|started|starts|was|had been|came from))"
)
_CLOSE = (
    r"(?:toward|towards|by|near|until|till|approaching|at|on|to)"
    r"(?: (?:the|its|his|her|their|every|each|very))* "
    r"(?:end|close|finish|conclusion|ending|(?:last|final|closing) (?:word|words|syllable|syllables|beat))"
)

_FIRST = r"(?:initial|early|first|brief|short|slight|small|sharp|quick|steep)"
_GROWS = r"(?:(?:goes|gets|grows|becomes|keeps getting|keeps going) |\w+ly )*"
_MEANWHILE = (
    r"(?: \w+ly)?(?= (?:over|throughout|from (?:the )?(?:start|beginning|first)|toward|as (?:he|she|it|the)|"
    r"with (?:each|every)|word by word|until|till))"
)
_MOVES = (
    r"(?:rise|climb|lift|ascend|fall|drop|sink|descend|decline|dip)(?:s|ed|ing|ping|ped)?|"
    r"(?:go|mov|com|turn|creep)(?:e?s|ing) (?:up|down)(?:wards?)?"
)


def _of_melody(word: str) -> Callable[[re.Match[str]], str]:
    """Returns the replacement of a shape by the word, where the sentence has named the melody, or names no
    other attribute."""

    def replaced(match: re.Match[str]) -> str:
        before, after = match.string[: match.start()], match.string[match.end() :]
        is_named = re.search(rf"\b{_MELODY}\b", match[0])
        is_other = re.search(rf"\b{_OTHER}\b[^,.]*$", before) or re.match(r" (?!and |movement)\w", after)
        return match[0] if is_other and not is_named else f" {word} "

    return replaced


def _of_pitch(word: str) -> Callable[[re.Match[str]], str]:
    """Returns the replacement of what a voice or words may do as well, where the sentence speaks of the
    pitch: the pitch trails off."""
    return lambda match: word if re.search(rf"\b{_MELODY}\b", match.string) else match[0]


COURSES: tuple[tuple[re.Pattern[str], Replacement], ...] = tuple(
    (re.compile(rf"\b{pattern}" if pattern[0].isalnum() or pattern[0] == "(" else pattern), replacement)
    for pattern, replacement in (
        # shapes
        (rf"{_ARCH} (?:shaped|like)(?: {_MELODY})?\b", _of_melody("stated_arched")),
        (rf"{_BOWL} (?:shaped|like)(?: {_MELODY})?\b", _of_melody("stated_bowed")),
        (
            rf"(?:{_MELODY}|it) {_DRAWS}{_ARCH}(?: shape)?(?= ?[,.:;]|$| that| which| over| with| ,| and\b)",
            _of_melody("stated_arched"),
        ),
        (
            rf"(?:{_MELODY}|it) {_DRAWS}{_BOWL}(?: shape)?(?= ?[,.:;]|$| that| which| over| with| ,| and\b)",
            _of_melody("stated_bowed"),
        ),
        (rf"{_MELODY} (?:arches|humps)\b(?: up\w*)?(?: and \w+)?", " stated_arched "),
        (
            rf"{_MELODY}\b([^,.]*?) highest (?:in|around|near|at) (?:the )?(?:middle|midpoint|center|centre)",
            r" stated_arched\1",
        ),
        (
            rf"{_MELODY}\b([^,.]*?) lowest (?:in|around|near|at) (?:the )?(?:middle|midpoint|center|centre)",
            r" stated_bowed\1",
        ),
        (
            r"(?:low|mid) ?,? (?:then |to )*high ?,? (?:then |back |to |again )*(?:low|mid)\b(?! \w)",
            _of_melody("stated_arched"),
        ),
        (
            r"(?:high|mid) ?,? (?:then |to )*low ?,? (?:then |back |to |again )*(?:high|mid)\b(?! \w)",
            _of_melody("stated_bowed"),
        ),
        (r"rise fall shape\b", " stated_arched "),
        (r"fall rise shape\b", " stated_bowed "),
        (r"dipping (?:contour|tone|melody|intonation|pattern|tune)\b", " stated_bowed "),
        (
            rf"{_MELODY} (?:stays?|remains?|keeps?) (?:put|still|where it is|in (?:one |the same )?place)\b",
            " stated_flat ",
        ),
        (rf"(?:{_MELODY}|voice) (?:zigzags?|meanders?|wanders?|seesaws?|yo yos?)\b", " stated_varied "),
        (
            rf"{_MELODY}[^,.]* (?:twists and turns|a lot of ground|a (?:wide|large|broad) span)\b",
            " stated_varied ",
        ),
        # both ends
        (rf"(?:{_MELODY} )?slope ?:? (?:is )?(?:positive|upwards?)\b", "pitch rises"),
        (rf"(?:{_MELODY} )?slope ?:? (?:is )?(?:negative|downwards?)\b", "pitch falls"),
        (r"low onset ?,? (?:and )?(?:an? )?high (?:offset|end\w*|finish)\b", "rising melody"),
        (r"high onset ?,? (?:and )?(?:an? )?low (?:offset|end\w*|finish)\b", "falling melody"),
        (rf"(?:from )?low to (?:mid |medium )?high(?= {_MELODY}\b)", "rising"),
        (rf"(?:from )?high to (?:mid |medium )?low(?= {_MELODY}\b)", "falling"),
        (
            rf"({_MELODY}) ?:? (?:goes |moves |runs |is )?(?:from )?(?:very |fairly )?low to (?:very |"
            r"fairly )?high\b",
            r"\1 rises",
        ),
        (
            rf"({_MELODY}) ?:? (?:goes |moves |runs |is )?(?:from )?(?:very |fairly )?high to (?:very |"
            r"fairly )?low\b",
            r"\1 falls",
        ),
        # one after the other
        (rf"after an? (?:{_FIRST} )*(?:rise|climb|ascent|lift|jump) ?,", "melody rises , then"),
        (rf"after an? (?:{_FIRST} )*(?:fall|drop|descent|dip|decline) ?,", "melody falls , then"),
        # upward
        (
            rf"(?:{_MELODY}|voice) {_GROWS}(?:(?:increases|rises)|higher(?: and higher)?){_MEANWHILE}",
            "melody rises",
        ),
        (rf"{_MELODY} {_GROWS}(?:(?:decreases|lessens)|lower(?: and lower)?){_MEANWHILE}", "melody falls"),
        (rf"voice {_GROWS}(?:deeper(?: and deeper)?|lower and lower){_MEANWHILE}", "melody falls"),
        (r"(?:is |goes |runs )(?:all )?(?:down hill|downhill)\b", "falls"),
        (r"los(?:es|ing) height\b", "falls"),
        (r"slants?(?:ing)? (up|down)(?:wards?)?\b", r"slopes \1"),
        (r"(?:gain(?:s|ed|ing)?|gather(?:s|ed|ing)?) (?:in )?(?:height|altitude)\b", "rises"),
        (r"(?:lift(?:s|ed|ing)?|tak(?:es|ing)) off\b(?! on)", "rises"),
        (
            r"(?:(?:swell|surg|spik)(?:e?s|ed|ing)(?: up(?:wards?)?)?|(?:swoop|shoot)(?:s|ing) "
            r"up(?:wards?)?)\b(?! (?:up )?and down)",
            "rises",
        ),
        (
            r"(?:works?|working|makes?|making|inch(?:es)?|edges?|creeps?) (?:its |his |her )?(?:way "
            rf")?{_BACK}up(?:wards?)?\b",
            "rises",
        ),
        (
            rf"(?:(?:bounc|spring)(?:es|ing) {_BACK}back|com(?:es|ing) {_BACK}(?:back up|up again))\b(?: "
            r"again| up)*(?! and down)",
            "rises",
        ),
        (r"(?:rebounds?|rebounding|perks up|picks (?:itself )?(?:back )?up(?: again)?)\b", "rises"),
        (
            r"an? (?:\w+ )?(?:dip|fall|drop|descent)(?: in the middle(?: of the \w+)?)? ?,? ?(?:and |then )*"
            r"(?:followed by|then|before) (?:an? )?(?:\w+ )?(?:recovery|rebound|rise|climb|ascent|upturn)\b",
            _of_melody("melody falls and then rises"),
        ),
        (
            r"an? (?:\w+ )?(?:rise|climb|ascent|lift)(?: in the middle(?: of the \w+)?)? ?,? ?(?:and |then )*"
            r"(?:followed by|then|before) (?:an? )?(?:\w+ )?(?:fall|drop|descent|dip|decline)\b",
            _of_melody("melody rises and then falls"),
        ),
        (r"followed by an? (?:\w+ )?(?:recovery|rebound|rise|climb|ascent|upturn)\b", "and then rises"),
        (r"followed by an? (?:\w+ )?(?:fall|drop|decline|descent|dip)\b", "and then falls"),
        (
            r"(?:reach(?:es|ing)?|hits|hitting) (?:an?|its|the) (?:\w+ )?(?:peak|crest|summit|apex|high "
            r"point|maximum)\b",
            "rises",
        ),
        (r"soars?(?= ?,? (?:(?:and|but) )?(?:then|only to|before)\b)", "rises"),
        # downward
        (rf"(?:steady|constant|even|continuous|continual|smooth) (?=(?:{_MOVES})\b)", ""),
        (
            r"(?:settl|crash|sink|tumbl|com|drift|glid|slip|eas|drop|fall)(?:e|e?s|ing)? "
            rf"{_BACK}(?:crashing |tumbling )?(?:back(?: down| to)?|down)\b(?! up)",
            "falls",
        ),
        (
            rf"(?:returns?|returning|goes back|is back|gets back|settles) (?:down )?(?:to )?{_START}\b",
            "falls",
        ),
        (r"(?:fizzl|taper|trail|tail|peter)(?:e?s|ing)? (?:off|out|away)\b", _of_pitch("falls")),
        (r"(?:droops?|drooping|lowers|deepens)\b(?! (?:his|her|its|the|their))", "falls"),
        # toward the end
        (
            r"(?:until (?:it|he|she) )?(?:reach\w*|hits?|hitting) (?:its|the|an?|his|her) (?:lowest|"
            r"highest) (?:point|level|note|value)\b",
            " ",
        ),
        (
            r"(?:the )?end of (?:the|each|every|his|her|this) (?:sentence|phrase|line|utterance|clause)"
            rf"(?= (?:\w+ )?(?:{_MOVES}))",
            "the melody at_the_end",
        ),
        (rf"(?:even |much |a bit |slightly )?(?:lower|deeper) {_CLOSE}\b", "falls at_the_end"),
        (rf"(?:even |much |a bit |slightly )?higher {_CLOSE}\b", "rises at_the_end"),
        (rf"\b({_MOVES})((?: \w+ly)?) {_CLOSE}(?: of (?:the|each|every|his|her) \w+)?", r"\1\2 at_the_end"),
    )
)
"""Movements and what each is read as. They are replaced in this order."""
