"""Reads descriptions that name no attribute: words that tumble over each other are fast, a voice that one has
to strain to hear is quiet, peaks and valleys are an expressive melody.

Each is replaced by a word of `STATED`, which states its level whatever it is said of, unless it is denied.
"""

from __future__ import annotations

import re
from functools import partial

STATED: dict[str, tuple[str, str]] = {
    "stated_fast": ("speed_level", "fast"),
    "stated_slow": ("speed_level", "slow"),
    "stated_loud": ("energy_level", "high"),
    "stated_quiet": ("energy_level", "low"),
    "stated_flat": ("intonation", "flat"),
    "stated_varied": ("intonation", "expressive"),
    "stated_arched": ("intonation", "rising-falling"),
    "stated_bowed": ("intonation", "falling-rising"),
}
"""The claim that each such word makes."""

_HIS = r"(?:his|her|the|its|their|each|every|all|almost every|nearly every|some|most|these)"
_SOUNDS = (
    r"(?:words?|syllables?|phrases?|sounds|vowels|speech|utterance|"
    r"sentences?|delivery|line|they|clauses)"
)
_MANNER = (
    r"(?: (?:are|is|come|comes|coming|seem|seems|to|just|all|almost|"
    r"nearly|practically|\w+ly|that))*"
)
_HASTE = (
    r"(?:rush(?:es|ing|ed)?|tumbl\w+|spill\w*|gush\w*|rattl\w+|"
    r"hurtl\w+|cascad\w+|stream(?:s|ing)? (?:out|by|past)|"
    r"rac(?:e|es|ing)|fl(?:y|ies|ying|ew)|zip\w*|whizz\w*|chas(?:e|"
    r"es|ing) each other|jostl\w+|crowd\w*|pour\w* (?:out|forth)|"
    r"pil(?:e|ed|ing) (?:on|up)|r[au]n(?:ning|s)? (?:together|into)|"
    r"burst\w* (?:out|forth)|shoot\w* out|blend\w* into|"
    r"tripp\w*|com(?:e|es|ing) thick|come out (?:in an? (?:rush|flood|torrent|burst|stream)|one on top))"
)
_LAG = (
    r"(?:trickl\w+|drip\w*|ooz\w+|plod\w*|crawl\w*|creep\w*|drag\w*|"
    r"inch(?:es|ing)?|trudg\w+|limp(?:s|ing)|ambl\w+|saunter\w*|"
    r"roll\w* out slow\w*)"
)
_GAP = (
    r"(?:rooms?|spaces?|gaps?|pauses?|silences?|time|breaks?|breath|"
    r"hesitations?|breathing space|pausing|stopping)"
)
_NONE = (
    r"(?:hardly|barely|scarcely|almost no|no|little|without|hardly "
    r"any|next to no|not|never|few|minimal)"
)

_FIGURES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{pattern})\b"), word)
    for pattern, word in (
        # speed
        (
            rf"{_NONE}(?: \w+)?(?: \w+ing)?(?: any| an?| much| the)?(?: "
            rf"\w+)? {_GAP}(?: \w+)?(?: (?:for|to) (?:breath|breathe))?(?: "
            rf"\w+)? (?:between|among)(?: {_HIS})? {_SOUNDS}",
            "stated_fast",
        ),
        (
            r"(?:hardly|barely|scarcely|without|never|no) (?:ever )?(?:stop\w*|"
            r"paus\w*|tak\w+|draw\w*|com\w+ up)(?: to| for| an?)* (?:breath\w*|"
            r"air|pause)",
            "stated_fast",
        ),
        (
            rf"(?:{_HIS} )?{_SOUNDS}{_MANNER} {_HASTE}(?: (?:out|by|over|"
            rf"past|on|off|into|forth|up|together|after|upon|ahead|along))*(?: "
            rf"(?:one|each) (?:another|other))?(?: (?:at|of) (?:an? |great "
            rf"|full |one another)*\w*)?",
            "stated_fast",
        ),
        (
            r"(?:torrent|flood|rush|stream|barrage|volley|flurry|avalanche|"
            r"cascade|hail|deluge|burst|spate) of (?:words|speech|syllables|"
            r"sounds?)",
            "stated_fast",
        ),
        (
            r"(?:talks?|talking|speaks?|speaking|speech|rattl\w+|words?|"
            r"delivered|going|goes)(?: \w+)? (?:on|off|nineteen to the "
            r"dozen|an? mile an? minute|at (?:a rate of knots|full tilt|"
            r"lightning speed|warp speed|double speed|speed)|like (?:an? "
            r")?(?:machine gun|there is no tomorrow|an auctioneer)|as if "
            r"(?:he|she|they) had a train to catch)(?<! on)(?<! off)",
            "stated_fast",
        ),
        (
            r"an? mile an? minute|nineteen to the dozen|at a rate of knots|"
            r"at full tilt|at a (?:gallop|canter|sprint)|in no time(?: at all)?|in a flash|in the blink "
            r"of an eye|like (?:lightning|a shot|a waterfall)|at (?:lightning|"
            r"warp|breakneck) speed|rattl(?:es|ed|ing) (?:(?:it|them|this|everything|the \w+|"
            r"quotation) )?(?:on|off|away|through)|"
            r"gabbl\w+|jabber\w*|babbl(?:es|ing)|(?:rush|rac|hurr|zip|whip|"
            r"breez|tear|speed|gallop|charg|barrel|hurtl|sprint|scurr|fl)(?:y|"
            r"es|ies|ing|e|s|ying)? (?:along|through|over) (?:the |his "
            r"|her |its )?(?:words?|sentence|line|text|phrase)",
            "stated_fast",
        ),
        (
            rf"(?:{_HIS} )?{_SOUNDS}{_MANNER} {_LAG}(?: (?:out|along|by|"
            rf"past|forth))*(?: one (?:by|at|after) (?:one|another|the other|"
            rf"a time))?",
            "stated_slow",
        ),
        (
            rf"{_SOUNDS} (?:follow|succeed|chase|come after) (?:one another|each other) (?:very |so |quite )?"
            r"(?:rapidly|quickly|swiftly|closely|fast|in (?:quick|rapid|close) succession)",
            "stated_fast",
        ),
        (
            rf"{_SOUNDS} (?:come|comes|follow|arrive|fall|drop|are (?:spoken|"
            rf"uttered|delivered|placed|set|released|let out)|emerge)(?: "
            rf"out)? (?:one by one|one (?:word )?at a time|(?:at|with) (?:long|"
            rf"large|great) intervals)|word by word|one word at a time",
            "stated_slow",
        ),
        (
            rf"(?:long|big|wide|large|lengthy|extended|generous|plenty of|"
            rf"ample|a lot of|much|leav\w+(?: enough| some| ample| plenty "
            rf"of)?|with|frequent|many)(?: \w+)? {_GAP} (?:left |comes? "
            rf"|falls? )?(?:between|after|before)(?: {_HIS})? (?:{_SOUNDS}|"
            rf"one)",
            "stated_slow",
        ),
        (
            rf"(?:paus(?:es|ing)|hesitat(?:es|ing)|stops|stopping|halts|"
            rf"waits) (?:\w+ )?(?:between|after|before) {_HIS} {_SOUNDS}",
            "stated_slow",
        ),
        (rf"between {_HIS} {_SOUNDS} there (?:is|are) (?:an? )?(?:\w+ )?{_GAP}", "stated_slow"),
        (
            rf"(?:draw|stretch|drag|lengthen|prolong|elongat|extend)(?:s|"
            rf"es|e|ing)? (?:out )?{_HIS}(?: \w+)? {_SOUNDS}(?: out)?",
            "stated_slow",
        ),
        (
            r"(?:takes?|taking|took|given|gives?|giving)(?: (?:his|her|"
            r"their|its|more|plenty of|a lot of|all the|ample|enough))? "
            r"time(?! to (?:get|think))",
            "stated_slow",
        ),
        (
            r"(?:in no|without|no|in no particular|not in any|no sign of|"
            r"with no)(?: \w+)? (?:hurry|haste|rush)(?! to)",
            "stated_slow",
        ),
        (
            r"takes? (?:it|things) easy|at (?:a |an? \w+ )?(?:crawl|snail owner_s pace|snail pace|"
            r"walking pace|funereal \w+)|to a crawl|on forever|takes? (?:him "
            r"|her |it |them )?(?:forever|ages|an age)",
            "stated_slow",
        ),
        (
            rf"(?:each|every|the) words? (?:is |are )?(?:clearly |well |"
            rf"carefully )?(?:separated|set apart|isolated|detached|spaced)|"
            rf"{_SOUNDS}(?: are)? (?:spaced|set|placed|stand|lie) (?:far "
            rf"|well |wide )?apart",
            "stated_slow",
        ),
        # energy
        (
            r"(?:at|with|in) (?:the top of (?:his|her|their|the) (?:lungs|"
            r"voice)|full (?:volume|blast|throat|voice|cry))|top volume|"
            r"at the top of (?:his|her|their) (?:lungs|voice)|(?:fills?|"
            r"filling|echo\w*|ring\w*) (?:through )?the (?:whole )?(?:room|"
            r"hall|space)|speaks? up|carr(?:y|ies) across|bellow\w*|holler\w*|"
            r"blast(?:s|ing)|bark(?:s|ed|ing)(?! up)|roar(?:s|ed|ing)|thunder(?:s|"
            r"ed|ing)|belt(?:s|ed|ing) (?:it |them )?out|(?:across|over) "
            r"a (?:large|crowded|big|wide) (?:room|hall|square|field)|(?:hard "
            r"on|hurts?) the ears",
            "stated_loud",
        ),
        (
            r"(?:have to|has to|need to|needs to|must|necessary to|had "
            r"to|makes? (?:one|me|you|us)|one)(?: almost)? (?:strain|lean "
            r"(?:in|closer|forward)|listen (?:hard|closely))(?: to (?:hear|"
            r"catch|make out)\b)?",
            "stated_quiet",
        ),
        (
            r"(?:hard|difficult|struggle|struggling|impossible|can (?:barely|"
            r"hardly|scarcely|only just)|could (?:barely|hardly|scarcely)|"
            r"barely|hardly|almost can not)(?: to)? (?:hear|make out|catch)(?: "
            r"(?:him|her|his words|her words|the words|the voice|his voice|"
            r"her voice|the speaker|it|them|what (?:he|she) says)|(?= ?[,.]|"
            r"$))",
            "stated_quiet",
        ),
        (
            r"(?:barely|hardly|scarcely|only just|just|little|not much) "
            r"(?:ris(?:es|ing) |louder |more )?(?:above|over|more than|"
            r"than) (?:an? |the )?(?:whisper|mutter|murmur|noise|background|"
            r"breath|silence|hiss)(?: of the (?:room|recording))?|(?:close "
            r"to|almost|nearly|like|next to|near) (?:an? )?(?:whisper|murmur)|"
            r"whisper (?:like )?(?=level|volume)|(?:have|has|had|need|needs) "
            r"to turn (?:the volume up|it up|up the volume)|(?:no|little|"
            r"not much) (?:real |great )?(?:force|power|strength|energy|"
            r"push|punch|weight) behind|(?:lost|losing|lacks?|lacking) "
            r"(?:some|much|most|a lot) of (?:its|his|her) (?:strength|force|"
            r"power|volume|energy)|(?:had|have|has|need|needs) to (?:crank|"
            r"turn up|boost|raise)(?: up)?(?: my| the)? (?:headphones|volume|"
            r"speakers|sound|it)|(?:hardly|barely|scarcely|not even|little "
            r"more than) an? (?:whisper|murmur)|half voice|sotto voce|(?:in "
            r"an? )?undertone|"
            r"under (?:his|her|their) breath|in a small voice|(?:does|do) "
            r"not (?:really )?carry|(?<!to )(?:almost|nearly|barely|hardly) "
            r"audible|(?:almost|nearly|practically|all but) whisper(?:s|ed|ing)|an? (?:mere )?(?:murmur|"
            r"breath|whisper),? (?:hardly|"
            r"barely|no|little) more",
            "stated_quiet",
        ),
        # intonation
        (
            r"(?:on|at|to|around|along) (?:pretty much |almost |basically |"
            r"virtually |more or less |just about )?(?:one|a single|the same|one "
            r"single|one and the same|one constant)(?: (?:single|steady|"
            r"constant|unchanging))? (?:note|level|tone|plateau|line|height|"
            r"pitch)(?! of| that| which| above| below)(?: (?:almost )?without "
            r"(?:change|variation|interruption))?",
            "stated_flat",
        ),
        (
            r"same (?:note|tone|pitch) (?:the whole (?:way|time)|all (?:the way|along)|throughout|from|over "
            r"and over)"
            r"(?: through)?|(?:stays?|staying|remains?|runs?|is|moves? along) on a plateau|"
            r"like an? (?:flat|level) line|in an? (?:flat|level|horizontal) "
            r"line|(?:next to|almost|practically|virtually) no (?:melod\w+|"
            r"intonation\w*|pitch) (?:variation|movement|change)|(?:hardly|"
            r"barely|scarcely) (?:any|a) (?:melody|inflection|modulation|"
            r"rise or fall)|with the melody of a (?:\w+ )?(?:machine|robot)|"
            r"like a (?:robot|machine|metronome)|robotic(?:ally)?",
            "stated_flat",
        ),
        (
            r"(?:peaks and (?:valleys|troughs|dips)|highs and lows|rises "
            r"and falls(?= (?:throughout|constantly|continually|a lot|freely|"
            r"all))|swoops and (?:dips|dives|soars)|roller coaster|all "
            r"over the (?:place|map|scale)|sing song|(?:wide|large|big|"
            r"sudden|sharp|frequent|many|great|dramatic|bold)(?: \w+)? "
            r"(?:leaps|swings|excursions|jumps|sweeps|swoops)(?: (?:in|"
            r"of|between) (?:the |his |her |its )?(?:pitch|melody|intonation|"
            r"tune|registers?)))",
            "stated_varied",
        ),
        (
            r"from (?:very |extremely |quite )?(?:high to (?:very |extremely "
            r"|quite )?low|low to (?:very |extremely |quite )?high) and "
            r"back(?: again)?|between (?:very )?high and (?:very )?low",
            "stated_varied",
        ),
        (
            r"(?:hardly|barely|scarcely) (?:any|much) movement|(?:little|"
            r"no|not much|minimal|scant|without(?: any| much)?(?: \w+)?) "
            r"movement(?= in (?:it|them|the (?:pitch|melody|voice|tune))|"
            r" ?[,.]|$)",
            "stated_flat",
        ),
        (
            r"(?:plenty of|lots of|a lot of|full of|much|constant|a great "
            r"deal of) movement(?! of)",
            "stated_varied",
        ),
        (
            r"(?:swoops|leaps|jumps|swings)(?: and \w+)? (?:in|of) (?:the "
            r"|his |her )?(?:melody|pitch|tune|intonation)",
            "stated_varied",
        ),
        (
            r"(?:lots of|plenty of|a lot of|many|frequent|big|large|wide|sudden|constant|continual|full of) "
            r"(?:pitch|tonal|melodic|tone) (?:changes|shifts|jumps|movements|turns)",
            "stated_varied",
        ),
        (
            r"modulates (?:his|her|their|the) (?:voice|pitch)(?: (?:a lot|"
            r"widely|strongly|considerably|freely|richly|a great deal))?",
            "stated_varied",
        ),
        (r"not (?:very |too |really )*much (?:melod\w+|inflection|intonation|modulation)", "stated_flat"),
        (
            r"(?:full of|plenty of|lots of|much|a lot of|a great deal of|"
            r"considerable|abundant|rich)(?: \w+)? (?:melodic |pitch |tonal "
            r")?(?:inflections?|modulation|melody)",
            "stated_varied",
        ),
    )
)
"""Figures of speech and the word of `STATED` that each is read as."""
_OWNER = re.compile(r"\b(?:he|his|she|her|their)\b")


def read_figures(text: str) -> str:
    """Returns the text with its figures of speech read as words of `STATED`, and whose words they were."""
    for pattern, word in _FIGURES:
        text = pattern.sub(partial(_stated, word), text)
    return text


def _stated(word: str, figure: re.Match[str]) -> str:
    owner = _OWNER.search(figure[0])
    return f" {word} " if owner is None else f" {word} {owner[0]} own "
