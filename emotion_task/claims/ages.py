"""Finds the ages that reasoning tells: in words ("an elderly man"), decades ("in her 40s") and years ("a boy
of 8")."""

from __future__ import annotations

import re
from collections.abc import Iterator

from emotion_task.records import AGE_LEVELS

_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven "
    "twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_COUNTING_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: n for n, word in enumerate(_COUNTING.split())}
_TENS = {word: 10 * n for n, word in enumerate(_COUNTING_TENS.split(), 2)}
_DECADES = {
    **{word.removesuffix("y") + "ies": n for word, n in _TENS.items()},
    **{f"{n}s": n for n in _TENS.values()},
}

_NUMBER = (
    r"(?P<{0}>\d{{1,3}}|(?:"
    + "|".join(_TENS)
    + r")(?: (?:one|two|three|four|five|six|seven|eight|nine))?|"
    + "|".join(list(_UNITS)[1:])
    + r")"
)
_ABOUT = (
    r"(?:(?:about|around|roughly|approximately|perhaps|maybe|probably|"
    r"some|say|i|would|d|guess|circa|ca|approx|nearly|almost|"
    r"just|over|under|of|aged|age|at|is|be|looks?|sounds?|to|might|"
    r"may|could|must|should|can|seems?|appears?|,|:|in|an?|only|"
    r"like|possibly|somewhere|or so) )*"
)
_PERSON = (
    r"(?:man|woman|male|female|boy|girl|child|kid|person|speaker|"
    r"lady|gentleman|guy|bloke|lad|lass|fellow|chap|"
    r"dude|someone|somebody|talker|youngster|voice|he|she|him|her|sex)"
)
_STOP = (
    r"(?= ?(?:$|,|:|or\b|to\b|and (?!a half)|give\b|maybe\b|perhaps\b|"
    r"who\b|with\b|by\b|if\b|at most\b|speak|talk|i\b|"
    r"though\b|but\b|years?\b|yrs?\b))"
)
_YEARS = re.compile(
    "|".join(
        rf"\b(?:{pattern})"
        for pattern in (
            _NUMBER.format("a") + r"(?: (?:or|to) \w+)? ?(?:years?|yrs?|y) ?(?:of age|olds?|o)\b",
            _NUMBER.format("f")
            + r" (?:, |or )(?:or |maybe )?(?:"
            + "|".join(_TENS)
            + r"|\d\d).* something like that",
            r"(?:age|aged|old|years)\b.*\bbetween " + _NUMBER.format("i") + r" and",
            r"^" + _NUMBER.format("g") + r" ?(?:years?|yrs?|y)$",
            r"^(?:m|f) (?:, )?" + _NUMBER.format("j") + r"(?: (?:to )?\d\d)?(?= ?(?:$|,))",
            r"(?:perhaps|maybe|probably|around|about|roughly) (?:about "
            r"|around )?" + _NUMBER.format("h") + r"(?= ?(?:$|, (?!\w+ing)|or so|i would|i say))",
            _NUMBER.format("e") + r" ?(?:something|ish|odd|plus)\b",
            r"(?:aged|age)(?: group)?(?: (?:i|would|estimated?|guess|put|"
            r"seems|appears|to|be|approx|of|is|:|around|about|roughly|approximately|"
            r"probably|maybe|perhaps|,|near|at))* " + _NUMBER.format("b") + r"\b(?! \w*(?:group|cues?))",
            rf"{_PERSON}(?: (?:speaker|voice))? {_ABOUT}" + _NUMBER.format("c") + r"\b" + _STOP,
            r"(?:pushing|nearing|approaching|going on|turning|past|well "
            r"over|not yet|put (?:him |her |them |it |this )?at|"
            r"(?:guess|say|estimate) (?:him|her|around|about|roughly)(?: "
            r"at)?) (?:about |around |roughly |maybe )?" + _NUMBER.format("d") + r"\b" + _STOP,
        )
    )
)
_DECADE = re.compile(r"\b(?:" + "|".join(_DECADES) + r"|(?:sixt|sevent|eight|ninet)een(?:s|th)|teens)\b")
_WORDS = (
    (
        "child",
        r"child(?!hood|ren)|kiddo|kid|toddler|preschooler|infant|(?:little|"
        r"small|young) (?:girl|boy|kid)|schoolboy|"
        r"schoolgirl|child owner_s",
    ),
    ("middle-aged", r"middle aged?|mid ?life"),
    (
        "elderly",
        r"(?:very |quite |rather )?(?<!year )(?<!years )(?<!yrs )old(?:er|ish)? (?:man|woman|lady|"
        r"gentleman|person|speaker|male|female|voice|guy|chap|"
        r"fellow|adult|bloke|timer|dude)|elderly|elder|(?<=sounds )old|"
        r"(?<=seems )old|(?<=quite )old|senior(?: citizen)?|aged(?! "
        r"\d)|"
        r"(?:advanced|old|great) (?:in )?(?:age|years)|advanced in "
        r"years|grann\w+|grandm\w+|grandpa\w*|grandfather\w*|"
        r"pensioners?|octogenarian|septuagenarian|nonagenarian|geriatric",
    ),
    (
        "young",
        r"young(?:ish|er)?(?! (?:\w+ )?(?:speakers|people|women|men|"
        r"adults|girls|boys|persons|listeners)\b)|youthful|youths?|"
        r"teenage[rd]?|teen|adolescents?|juvenile",
    ),
)
_WORD = re.compile("|".join(rf"\b(?P<w{i}>{pattern})\b" for i, (_, pattern) in enumerate(_WORDS)))
_DENIED = re.compile(r"\b(?:no longer|not|no|never|hardly|of unknown|than|unknown)(?: \w+){0,2} $")


def told_ages(text: str) -> Iterator[str]:
    """Yields the age group (`AGE_LEVELS`) of each age that a sentence tells.

    A child is young too, so that "a very young child" is a child."""
    found = [(m.start(), _group(_years(next(filter(None, m.groups()))))) for m in _YEARS.finditer(text)]
    for match in _DECADE.finditer(text):
        found.append((match.start(), _group(_DECADES.get(match[0], 15))))
    for match in _WORD.finditer(text):
        if not _DENIED.search(text[: match.start()]):
            found.append((match.start(), _WORDS[int(str(match.lastgroup)[1:])][0]))
    groups = [group for _, group in sorted(found) if group]
    yield from (group for group in groups if group != "young" or "child" not in groups)


def _years(number: str) -> int:
    if number.isdigit():
        return int(number)
    return sum(_TENS.get(word, _UNITS.get(word, 0)) for word in number.split())


def _group(years: int) -> str:
    """Returns the age group; an empty string for what is no age of a speaker."""
    return next(name for name, below in AGE_LEVELS.items() if years < below) if 3 <= years <= 105 else ""
