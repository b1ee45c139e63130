"""Lists expressions of several words that are read as one word, or as plainer words."""

from __future__ import annotations

import re

SMALL = r"(?:very|too|so|all|that|particularly|especially|overly|really|exactly|notably|quite|unusually)"

PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b{pattern}\b"), replacement)
    for pattern, replacement in (
        (r"(?:not (?:only|just|merely)|no (?:doubt|question|wonder)|if anything|not to mention)", " "),
        (
            r"(?:than|from|(?:compared|relative) (?:to|with)) (?:what )?(?:is |the |an? |in |his |her )*"
            r"(?:average|normal|usual|typical|expected|ordinary)(?: (?:conversation|speech|talk"
            r"|talking|speaking))?",
            " ",
        ),
        (
            r"(?:above|beyond) (?:the |what is |what one would |what i would )*"
            r"(?:average|normal|norm|usual|typical|baseline|conversational|expected|expect)"
            r"(?: (?:conversation|speech|talk|talking|speaking))?",
            "elevated",
        ),
        (
            r"(?:below|beneath|under) (?:the |what is |what one would |what i would )*"
            r"(?:average|normal|norm|usual|typical|baseline|conversational|expected|expect)"
            r"(?: (?:conversation|speech|talk|talking|speaking))?",
            "lowered",
        ),
        (
            r"(?:nothing|not) (?:unusual|remarkable|special|out of the "
            r"ordinary|anything special|notable)",
            "nothing_special",
        ),
        (r"(?:barely|hardly|scarcely) audible", "inaudible"),
        (r"(?:hardly|barely|scarcely|almost|next to) (?:any|no)", "little"),
        (
            r"(rate|speed|pace|tempo|volume|loudness|pitch|energy) (?:at|with"
            r"|in) which (?:the )?\w+ (?:speaks?|talks?)",
            r"\1",
        ),
        (r"dynamic (?:variations?|range)", "dynamics"),
        (r"(?:pitch|f0|tonal|melodic) range(?! of)", "variation"),
        (r"(?:is not|not|does not have|has not) (?:very |that |so )?much", "little"),
        (
            r"(?:hardly|barely|scarcely|not|never) (?:ever )?"
            r"(?:moves?|changes?|var(?:y|ies)|fluctuates?)",
            "unvarying",
        ),
        (r"(?:far from|anything but|by no means|nowhere near|not at all|far removed from)", "not"),
        (r"(?:rather than|instead of|as opposed to|in place of|absence of)", "without"),
        (r"(?:lack|devoid|drained|bereft) of|lacking in", "lacks"),
        (r"sound (?:level|pressure|intensity)", "loudness"),
        (r"rules? out", "rule_out"),
        (
            r"(?:pitch|tonal|intonation|melodic|vocal) "
            r"(?:variations?|variability|modulation|excursions?|swings)",
            "variation",
        ),
        (
            r"(?:variations?|variability|modulation|swings|changes?) (?:in|of) (?:the |his "
            r"|her )*(?:pitch|tone)",
            "variation",
        ),
        (
            r"(?:variations?|changes?) (?:in|of) (?:the |his |her )*(?:volume|loudness|energy"
            r"|intensity|tempo|pace|rate|speed)",
            "dynamics",
        ),
        (r"deep down", " "),
        (
            r"(?:up and down|melodic|tonal|intonation(?:al)?|f0|pitch) "
            r"(?:movements?|motion)",
            "pitch_movement",
        ),
        (r"(?:wide|broad|large|great) (?:pitch |vocal |tonal )?range", "wide variation"),
        (r"(?:narrow|limited|small|restricted) (?:pitch |vocal |tonal )?range", "limited variation"),
        (r"(?:a (?:lot|great deal) of|lots of|plenty of|full of)", "lots"),
        (r"(?:moves? )?up and down(?: a great deal)?|ups and downs", "up_down"),
        (
            r"(?:varies|vary|fluctuates|changes|moves|swings) (?:considerably|"
            r"wildly|widely|greatly|a lot|a great deal|a good deal"
            r"|dramatically|freely|noticeably)",
            "is varied",
        ),
        (r"(?:jumps|moves|swings|bounces|dances) (?:all )?(?:around|about)(?: a lot)?", "is varied"),
        (
            r"(?:barely|scarcely|hardly|little|not|just) (?:above|louder than"
            r"|more than) an? (?:whisper|mutter|murmur)",
            "hushed",
        ),
        (r"such (force|power|volume|intensity|strength|loudness)", r"high \1"),
        (r"(?:sort|kind) of|more or less|a tad", "slightly"),
        (r"sing song", "singsong"),
        (
            r"melodic(?= (?:quality|delivery|voice|manner|style|speech))|"
            r"(?<=is )melodic|(?<=very )melodic|(?<=highly )melodic",
            "expressive",
        ),
        (
            r"(?:rise fall|rise and fall|rising falling)(?! (?:melody|contour|"
            r"tune|intonation|pattern|pitch|tone|movement))(?= (?:on|at|"
            r"over|in the|pattern|,|\.|$))",
            "rising falling melody",
        ),
        (
            r"(?:fall rise|falling rising)(?! (?:melody|contour|tune|intonation|"
            r"pattern|pitch|tone|movement|nuclear))(?= (?:on|at|over|in "
            r"the|pattern|,|\.|$))",
            "falling rising melody",
        ),
        (r"(?:dramatic|wide|exaggerated|marked|broad|lively) (?=(?:rising|falling|rise|fall)\b)", " "),
        (r"deep\w* (?:impression|effect|feel)", " "),
        (r"rapid fire", "rapid"),
        (
            r"(?:drawn|drawing|draws|stretched|stretches|drags|drew) (?:it )?out(?: (?:the|each"
            r"|every) vowels)?",
            "drawn_out",
        ),
        (r"laid back", "laid_back"),
        (r"wide ranging", "wide_ranging"),
        (r"in between", "in_between"),
        (r"in a (?:hurry|rush)(?! to)", "hurriedly"),
        (r"(?:take|takes|taking|took) (his|her|their) time", r"speaks slowly \1 own"),
        (r"speeds? up", "speaks quickly"),
        (r"slows? (?:(?:it|things|everything|the \w+) )?down", "speaks slowly"),
        (r"(?:raises|raising|raised) (his|her|their|the) (?:voice|volume)", r"\1 voice raised"),
        (r"(?:lowers|lowering|lowered) (his|her|their|the) (?:voice|volume)", r"\1 voice lowered"),
        (r"at the top of (his|her|their) (?:lungs|voice)", r"loudly \1 own"),
        (r"under (his|her|their) breath", r"quietly \1 own"),
        (r"at the end", "at_the_end"),
        (r"at (?:the|its) (?:very )?(?:start|beginning|outset|onset)", "at_the_start"),
        (r"at (?:its|his|her|their) \w+est", " "),
        (r"(start|begin|end|finish)(s|ing|ed|es)? (?:out|off|up)", r"\1\2"),
        (
            r"a (?:bit|touch|hair|shade|notch|little(?! (?:girl|boy|kid|"
            r"child|old|voice|energy|variation)))",
            "slightly",
        ),
        (r"on average|(?:within )?what is (?:normal|usual|typical|expected)(?: for)?", " "),
        (r"not that of", "not"),
        (r"(?:no|zero|little|without) (?:any |real |much )?(?:melody|inflection)", "no variation"),
        (
            r"(?:keeps?|kept|keeping) (his|her|their|the) (?:voice|volume) "
            r"(?:down|low)",
            r"\1 voice lowered",
        ),
        (r"medium loud", "normally_loud"),
        (r"medium fast", "normally_fast"),
        (r"fundamental frequency", "f0"),
    )
)
"""Expressions and what each is read as: one word, or plainer words. They are replaced in this order."""
