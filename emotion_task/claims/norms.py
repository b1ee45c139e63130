"""Reads comparisons with what is usual, places in a range, and measured numbers, as plainer words.

"Well above what one would expect" is elevated, "not as loud as most" is less loud, "at the low end of her
range" is low, "in the 90th percentile" is high, and "180 Hz" is left out: the text has to say what it means.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Replacement = str | Callable[[re.Match[str]], str]

_LEAD = (
    r"(?:(?:the|an?|his|her|its|their|my|this|that|those|of|what|"
    r"is|are|for|in|on|during|owner_s|speakers?|men|women|"
    r"corpus|own|general|overall|population|male|female|vocal|speaking|"
    r"usually|normally|typically|generally|"
    r"considered|most|talker) )*"
)
_USUAL = (
    r"(?:norms?|averages?|mean|median|baseline|usual|normal|typical|"
    r"ordinary|everyday|conversational|conversations?|"
    r"expected|standard|customary|common|comfortable|habitual|regular|"
    r"relaxed|neutral|moderate|natural|midpoint|"
    r"middle|par)"
)
_KIND = (
    r"(?: (?:speech|speaking|conversations?|talk|talking|speakers?|"
    r"levels?|register|range|rendition|reading|position|place|"
    r"delivery|human|adult|(?:fe)?male|voices?|tone))*"
)
_OF = (
    r"(?: (?:for|of|in|among) (?:this|the|most|all|his|her|such|"
    r"other|that)(?: \w+)?(?: (?:clips|recordings|voice|sex|age))?)?"
)
_PEOPLE = (
    r"(?:most|others?|other (?:people|speakers|voices|talkers)|"
    r"most (?:people|speakers|voices|of us)(?: would)?|"
    r"people usually do|(?:that of |those of )?(?:(?:any|every)(?:one|body)(?: else)?(?: owner_s)?|most "
    r"(?:men|women|adults))|(?:that of |those of )?(?:the |his |her "
    r"|their )?(?:speaker owner_s )?(?:other|usual|remaining|earlier) "
    r"(?:recordings|utterances|clips|samples|sentences))(?! of)"
)
_EXPECT = (
    r"(?:what |where |how |as )?(?:one|you|i|we|anyone|anybody|most people|people|listeners?) "
    r"(?:would |might |could |should |ll |d |usually |normally |generally |ordinarily )*"
    r"(?:expects?|expected|anticipates?|assumes?|predicts?|thinks?|"
    r"gets?|meets?|encounters?|finds?|hears?)"
    r"(?: (?:of|from|in) (?:an? |the |this |such |his |her |any(?=one|"
    r"body))*(?:\w+ )?(?:one|body|chat|speech|life|voice|age|person|"
    r"man|"
    r"woman|conversation|situation|speaker|setting|circumstances)| to hear| to be| it to be)?"
)
_CUSTOM = rf"(?:{_LEAD}{_USUAL}{_KIND}{_OF}|{_PEOPLE})"
_REQUIRED = (
    r"what (?:\w+ ){1,3}?(?:would |might |could )?(?:requires?|"
    r"demands?|calls? for|needs?|warrants?|suggests?)"
)
NORM = rf"(?:{_EXPECT}|{_REQUIRED}|{_LEAD}{_USUAL}{_KIND}{_OF}|{_PEOPLE})"
"""What is usual, in many words."""

_BEING = (
    r"(?:is|are|was|lies|sits|stays|remains|falls|drops|dips|sinks|"
    r"hovers|goes|rises|climbs|moves|gets|stands) "
)
_RANGE = r"(?:range|scale|spectrum|compass|continuum|distribution|tessitura)"
_IN_RANGE = (
    rf"(?: (?:of|in) (?:what is \w+(?: (?:for|in|among) (?:\w+ )?\w+)?|"
    rf"(?:the |his |her |its |their |an? )?(?:[\w]+ ){{0,3}}?{_RANGE}))"
)
_AT = (
    r"(?:\b(?:right |down |up |somewhere |deep |well )*(?:at|in|"
    r"on|near|towards?|to|around|close to|within|about|into|from) "
    r")?"
    r"(?:the |an? |its |his |her |their )?(?:very |extreme |far )?"
)
_PART = (
    r"(?:end|side|limits?|extremes?|edge|half|third|part|parts|"
    r"regions?|reaches|portion|quarter|boundary|area|"
    r"territory|zone)"
)


def _placed(match: re.Match[str]) -> str:
    """Returns the level that a place in a range means; a range of nothing named is the pitch's."""
    place = re.search(
        r"\b(?:(low\w*|bottom|deep\w*|depths|basement|cellar|foot|floor)|"
        r"(high\w*|upper\w*|top\w*|ceiling|heights|roof|rafters|summit)|"
        r"mid\w*|cent\w+|heart)\b",
        match[0],
    )
    level = "normal" if place is None or place.lastindex is None else ("low", "high")[place.lastindex - 1]
    ranged = re.search(rf"\b{_RANGE}\b", match[0])
    named = re.search(
        r"\b(?:pitch|f0|volume|loudness|intensity|energy|tempo|rate|"
        r"speed|pace)\b",
        match[0],
    )
    if named:
        return f" {level} in {named[0]} "
    owner = re.search(r"\b(?:his|her)\b", match[0])
    kept = "" if owner is None else f"{owner[0]} own "
    return f" {level}_placed {kept}" if ranged else f" {level} {kept}"


def _percentile(match: re.Match[str]) -> str:
    return " low " if int(match[1]) <= 33 else " high " if int(match[1]) >= 67 else " normal "


_ABOUT = (
    r"(?:(?:about|around|roughly|approximately|some|near(?:ly)?|"
    r"circa|ca|almost|just|only|over|under|averaging|measured at|"
    r"close to|at|of|a|mean of) )*"
)
_COUNT = r"(?:\d+(?:[.,]\d+)?|one|two|three|four|five|six|seven|eight|nine|ten)"
_SOUNDS = r"(?:syl\w*|words?|phones?|phonemes?|segments?)"

NUMBERS: tuple[tuple[re.Pattern[str], Replacement], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"(?:[~\u2248<>\u00b1]\s*)?[-\u2212+]?\d+(?:[.,]\d+)?\s?(?:k?hz|"
            r"hertz|db\w*|decibels?|%|percent|semitones?|st|ms)\b(?! old)",
            " measured_value ",
        ),
        (
            rf"(?:[~\u2248]\s*)?\b{_COUNT}(?:\s?{_SOUNDS})?(?:\s?/\s?|\s(?:per|"
            rf"a|each|every)\s)(?:s|sec|seconds?|min|minutes?)\b",
            " measured_value ",
        ),
        (r"\b\d+\s?wpm\b", " measured_value "),
        (r"\b(\d+)\s?(?:/|out of)\s?\d+\b|(?<=\d)\.(?=\d)", " "),
        (rf"\b{_ABOUT}measured_value(?: (?:for|through) most of the \w+)?", " "),
        (r"\b(?:the )?(\d+)(?:st|nd|rd|th) percentile", _percentile),
        (
            r"\b(?:(?:\w+|half an?) )?(?:sds?|standard deviations?) (?:above|"
            r"over|higher)(?: (?:than )?(?:the )?(?:\w+ )?(?:mean|average|"
            r"norm|it|that))?",
            " elevated ",
        ),
        (
            r"\b(?:(?:\w+|half an?) )?(?:sds?|standard deviations?) (?:below|"
            r"under|lower)(?: (?:than )?(?:the )?(?:\w+ )?(?:mean|average|"
            r"norm|it|that))?",
            " lowered ",
        ),
        (
            r"\bwithin (?:an?|one|half an?) (?:sd|standard deviation) of "
            r"(?:the )?(?:\w+ )?(?:mean|average|norm)",
            " normal ",
        ),
    )
)

_VERBAL = re.compile(
    r"(?:is|are|was|lies|sits|stays|remains|falls|drops|dips|sinks|"
    r"hovers|goes|rises|climbs|moves|gets|stands|"
    r"does|do|did|fail|never|exceed|surpass|match|correspond|not)"
)


def _being(level: str) -> Callable[[re.Match[str]], str]:
    """Returns the replacement by the level, with a verb where the comparison has one."""
    return lambda match: f" is {level} " if _VERBAL.match(match[0]) else f" {level} "


def as_usual(word: str, before: str = "") -> str:
    """Returns what "as ... as usual" says with the word: a usual pitch, loudness or tempo, or that of the
    attribute that the sentence has named before."""
    if re.search(r"\b(?:volume|loudness|intensity|energy|tempo|rate|speed|pace)\b[^,]*$", before):
        return " normal "
    if word in ("high", "low", "deep"):
        return " normal in pitch "
    return " normally_loud " if word in ("loud", "quiet", "soft") else " normally_fast "


def _as_usual(match: re.Match[str]) -> str:
    return as_usual(match[1], match.string[: match.start()])


COMPARISONS: tuple[tuple[re.Pattern[str], Replacement], ...] = tuple(
    (re.compile(rf"\b{pattern}\b"), replacement)
    for pattern, replacement in (
        (
            r"(?:never|not|hardly|barely|scarcely) (?:rises?|goes|go|gets?|"
            r"strays?|moves?|deviates?|departs?|ventures?)"
            r"(?: far| much)? (?:above|beyond|from)",
            "stays around",
        ),
        (r"not what (?:i|one|you|we) (?:would )?(?:call|consider|describe as|term)", "not"),
        (
            r"(?:contrary to|despite|regardless of|unlike|against) (?:all "
            r"|any )?(?:what|expectations?)[^,.;:]*",
            " ",
        ),
        (
            rf"(?:not|never|nowhere near|hardly|scarcely) (?:quite |nearly "
            rf"|half |exactly )?(?:as|so) (\w+)(?:,? (?:and|or|nor) (?:as "
            rf")?(\w+))? as (?:is )?{_CUSTOM}",
            r"less \1",
        ),
        (
            rf"(?:not|never|nowhere near|hardly|scarcely) (?:quite |nearly "
            rf"|half |exactly )?as much (\w+) as (?:is )?{NORM}",
            r"less \1",
        ),
        (
            rf"no (?:more|less) and no (?:more|less) than (?:is )?{NORM}|"
            rf"neither (?:more|less) nor (?:more|less) (?:\w+ )?than (?:is "
            rf")?{NORM}",
            " normal ",
        ),
        (
            r"(?:no|not any|neither|hardly(?: any)?) (loud|quiet|soft|fast|quick|slow|high|low|deep)er "
            rf"than {NORM}",
            _as_usual,
        ),
        (rf"(?:no (?:more|less|\w+er)|not any \w+er) than {NORM}", " normal "),
        (
            rf"(?<=volume )(?:that )?(?:is )?typical of {_CUSTOM}|typical of (?:an? )?(?:relaxed|ordinary|"
            r"normal|everyday|"
            r"casual|regular) (?:conversation|speech|talk|chat)",
            " normal ",
        ),
        (
            rf"(?:does not|do not|did not|fails? to|never|barely|hardly|"
            rf"scarcely|only just|just about) (?:quite )?(?:reach(?:es)?|"
            rf"attains?|gets? to|comes? up to|rises? to) {NORM}",
            _being("lowered"),
        ),
        (
            rf"(?:{_BEING})?(?:(?:well|far|way|slightly|somewhat|just|clearly|"
            rf"a bit|a little|a touch) )*(?:short of|below|beneath|under|"
            rf"underneath|less than|lower than|south of) {NORM}",
            _being("lowered"),
        ),
        (rf"(?:does not|do not|did not|never) (?:exceeds?|surpass(?:es)?) {NORM}", " stays around "),
        (
            rf"(?<!not )(?<!hardly )(?<!barely )(?<!never )(?<!scarcely "
            rf")(?<!rarely )(?:{_BEING})?(?:(?:well|far|way|slightly|somewhat|"
            rf"just|clearly|a bit|a little|a touch) )*(?:above|beyond|exceed(?:s|"
            rf"ing|ed)?|surpass(?:es|ing)?|in excess of|over|north of|greater "
            rf"than|more than) {NORM}(?: by (?:a|some) \w+ margin)?",
            _being("elevated"),
        ),
        (
            rf"(?:match(?:es|ing)?|correspond(?:s|ing)? to|comparable (?:to|"
            rf"with)|in (?:line|keeping|accordance) with|on (?:an? )?(?:equal "
            rf"footing|par) with|equal to|(?:much |about )?the same as|similar "
            rf"to|close to|not far from|does not (?:depart|differ|deviate|"
            rf"stray)(?: much| far| noticeably)? from|consistent with|not "
            rf"(?:\w+ )?(?:changed|change|different|differing|deviating|"
            rf"budged|moved|far|removed) from) {NORM}(?: limits| bounds)?|"
            rf"(?:well |comfortably |still )?within (?:the |his |her )?(?:(?:normal|"
            rf"usual|typical|average|ordinary|conversational|expected|functional|"
            rf"standard|healthy|adult|male|female|vocal) )+(?:limits|bounds|"
            rf"range)|within the (?:norm|average)",
            _being("normal"),
        ),
        (
            rf"(?:than|(?:when |as )?(?:compared|relative) (?:to|with)|in "
            rf"(?:comparison|relation) (?:to|with)|against|from|re) (?:is "
            rf")?(?:in )?{NORM}",
            " ",
        ),
        (
            r"(?:is )?(?:the \w+|that) of (?:an? )?(?:everyday|ordinary|"
            r"normal|typical|usual|casual|regular|average) (?:conversation|"
            r"speech|talk|person|speaker|life|chat)",
            " is normal ",
        ),
        (
            r"(volume|loudness|pace|speed|tempo|rate|intensity|level) of "
            r"(?:an? )?(?:\w+ )?(?:conversation|chat|talk)",
            r"normal \1",
        ),
        (
            r"(?<!twice )(?<!times )(?:about |just |exactly |roughly )*as "
            r"(loud|quiet|soft|fast|quick|slow|high|low|deep)\w* as (?:(?:is "
            r")?" + NORM + r"|(?:any(?:body|one)|every(?:body|one)) (?:else)?|any other "
            r"\w+|the (?:others|rest))",
            _as_usual,
        ),
        (
            r"(?:as )?(slow|fast|quick|loud|quiet|flat|high|low|deep) as "
            r"(?:an? |the )?(?!usual|normal|ever|if|before|it|he|she|they|"
            r"to|i|you|possible)\w+",
            r"very \1",
        ),
        (r"(?<=[a-z]) (?:does|do) not (?:really |particularly |especially )?stand out", " is normal"),
        (
            r"(?:right |exactly |just |more or less |roughly )?(?:at|on|"
            r"around|about|near) (?:the |his |her |its )(?:own |corpus "
            r"|speaker owner_s )?(?:mean|average|norm|median|baseline)",
            " normal ",
        ),
        (
            r"(?:about |roughly |exactly |just )?where (?:it|he|she|this "
            r"voice|the voice|(?:his|her) (?:voice|pitch)) (?:usually|normally|"
            r"typically|generally|always|ordinarily) (?:is|lies|sits|speaks|"
            r"stays|would be)(?: for (?:him|her))?",
            " normal ",
        ),
        (
            r"(?:what|where|as|how) (?:one|you|we|i) (?:would |might )?(?:expects?|"
            r"expected)[^,.;:]*(?= to (?:lie|be|sit))(?: to (?:lie|be|sit))?",
            _being("normal"),
        ),
        (
            rf"(?:about |exactly |just |pretty much |more or less |roughly "
            rf")*what (?!is\b){_EXPECT.replace('(?:what |where |how |as )?', '', 1)}(?: "
            rf"(?:in|for|of|from) \w+(?: \w+)?)?",
            " normal ",
        ),
    )
)

PLACES: tuple[tuple[re.Pattern[str], Replacement], ...] = tuple(
    (re.compile(rf"{pattern}\b"), replacement)
    for pattern, replacement in (
        (
            rf"{_AT}\b(?:lower|lowest|low|bottom|deep|deeper|deepest|upper|"
            rf"uppermost|high|higher|highest|top) {_PART}(?:{_IN_RANGE}|"
            rf" of things)?",
            _placed,
        ),
        (rf"{_AT}\b(?:bottom|depths|top|heights|ceiling|floor|foot){_IN_RANGE}", _placed),
        (
            rf"{_AT}\b(?:middle|centre|center|midpoint|heart|central part|"
            rf"middle part|mid portion|middle portion|middle third)(?:{_IN_RANGE}|"
            rf" of (?:things|the road))",
            _placed,
        ),
        (rf"{_AT}\bmid(?:dle)? (?:range|point|zone|area|region|territory){_IN_RANGE}?", _placed),
        (
            r"\b(?:down |up )?(?:in|at|near|on|to|through) the (?:very "
            r")?(?:basement|cellar|depths|roof|rafters|ceiling|bottom|top)(?! "
            r"of)",
            _placed,
        ),
        (r"\b(?:on|at|to|towards?) the (\w+?) (?:side|end)(?: of things)?", r" \1 "),
    )
)
