"""Reads descriptions that name no attribute: words that tumble over each other are fast, a voice that one strains
to hear is quiet, peaks and valleys are an expressive melody.

Each is replaced by a word of `STATED`, which states its level whatever it is said of, unless it is denied.
"""

from __future__ import annotations

import re

STATED: dict[str, tuple[str, str]] = {
    "stated_fast": ("speed_level", "fast"),
    "stated_slow": ("speed_level", "slow"),
    "stated_loud": ("energy_level", "high"),
    "stated_quiet": ("energy_level", "low"),
    "stated_flat": ("intonation", "flat"),
    "stated_varied": ("intonation", "expressive"),
}
"""The claim that each such word makes."""

_HIS = r"(?:his|her|the|its|their|each|every|all|almost every|nearly every|some|most|these)"
_SOUNDS = r"(?:words?|syllables?|phrases?|sounds|vowels|speech|utterance|sentences?|delivery|line|they|clauses)"
_MANNER = r"(?: (?:are|is|come|comes|coming|seem|seems|to|just|all|almost|nearly|practically|\w+ly|that))*"
_HASTE = (
    r"(?:rush(?:es|ing|ed)?|tumbl\w+|spill\w*|gush\w*|rattl\w+|hurtl\w+|cascad\w+|stream(?:s|ing)? (?:out|by|past)|"
    r"rac(?:e|es|ing)|fl(?:y|ies|ying|ew)|zip\w*|whizz\w*|chas(?:e|es|ing) each other|jostl\w+|crowd\w*|pour\w* (?:out|forth)|"
    r"pil(?:e|ed|ing) (?:on|up)|r[au]n(?:ning|s)? (?:together|into)|burst\w* (?:out|forth)|shoot\w* out|blend\w* into|"
    r"tripp\w*|com(?:e|es|ing) thick|come out (?:in an? (?:rush|flood|torrent|burst|stream)|one on top))"
)
_LAG = r"(?:trickl\w+|drip\w*|ooz\w+|plod\w*|crawl\w*|creep\w*|drag\w*|inch(?:es|ing)?|trudg\w+|limp(?:s|ing)|ambl\w+|saunter\w*|roll\w* out slow\w*)"
_GAP = r"(?:rooms?|spaces?|gaps?|pauses?|silences?|time|breaks?|breath|hesitations?|breathing space|pausing|stopping)"
_NONE = r"(?:hardly|barely|scarcely|almost no|no|little|without|hardly any|next to no|not|never|few|minimal)"

_FIGURES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{pattern})\b"), word)
    for pattern, word in (
        # speed
        (rf"{_NONE}(?: \w+)?(?: \w+ing)?(?: any| an?| much| the)?(?: \w+)? {_GAP}(?: \w+)?(?: (?:for|to) (?:breath|breathe))?(?: \w+)? (?:between|among)(?: {_HIS})? {_SOUNDS}", "stated_fast"),
        (r"(?:hardly|barely|scarcely|without|never|no) (?:ever )?(?:stop\w*|paus\w*|tak\w+|draw\w*|com\w+ up)(?: to| for| an?)* (?:breath\w*|air|pause)", "stated_fast"),
        (rf"(?:{_HIS} )?{_SOUNDS}{_MANNER} {_HASTE}(?: (?:out|by|over|past|on|off|into|forth|up|together|after|upon|ahead|along))*(?: (?:one|each) (?:another|other))?(?: (?:at|of) (?:an? |great |full |one another)*\w*)?", "stated_fast"),
        (r"(?:torrent|flood|rush|stream|barrage|volley|flurry|avalanche|cascade|hail|deluge|burst|spate) of (?:words|speech|syllables|sounds?)", "stated_fast"),
        (r"(?:talks?|talking|speaks?|speaking|speech|rattl\w+|words?|delivered|going|goes)(?: \w+)? (?:on|off|nineteen to the dozen|an? mile an? minute|at (?:a rate of knots|full tilt|lightning speed|warp speed|double speed|speed)|like (?:an? )?(?:machine gun|there is no tomorrow|an auctioneer)|as if (?:he|she|they) had a train to catch)(?<! on)(?<! off)", "stated_fast"),
        (r"an? mile an? minute|nineteen to the dozen|at a rate of knots|at full tilt|in no time(?: at all)?|in a flash|in the blink of an eye|like (?:lightning|a shot|a waterfall)|at (?:lightning|warp|breakneck) speed|rattl(?:es|ed|ing) (?:on|off|away|through)|gabbl\w+|jabber\w*|babbl(?:es|ing)|(?:rush|rac|hurr|zip|whip|breez|tear|speed|gallop|charg|barrel|hurtl|sprint|scurr|fl)(?:y|es|ies|ing|e|s|ying)? (?:along|through|over) (?:the |his |her |its )?(?:words?|sentence|line|text|phrase)", "stated_fast"),
        (rf"(?:{_HIS} )?{_SOUNDS}{_MANNER} {_LAG}(?: (?:out|along|by|past|forth))*(?: one (?:by|at|after) (?:one|another|the other|a time))?", "stated_slow"),
        (rf"{_SOUNDS} (?:come|comes|follow|arrive|fall|drop|are (?:spoken|uttered|delivered|placed|set|released|let out)|emerge)(?: out)? (?:one by one|one (?:word )?at a time|(?:at|with) (?:long|large|great) intervals)|word by word|one word at a time", "stated_slow"),
        (rf"(?:long|big|wide|large|lengthy|extended|generous|plenty of|ample|a lot of|much|leav\w+(?: enough| some| ample| plenty of)?|with|frequent|many)(?: \w+)? {_GAP} (?:left |comes? |falls? )?(?:between|after|before)(?: {_HIS})? (?:{_SOUNDS}|one)", "stated_slow"),
        (rf"(?:paus(?:es|ing)|hesitat(?:es|ing)|stops|stopping|halts|waits) (?:\w+ )?(?:between|after|before) {_HIS} {_SOUNDS}", "stated_slow"),
        (rf"between {_HIS} {_SOUNDS} there (?:is|are) (?:an? )?(?:\w+ )?{_GAP}", "stated_slow"),
        (rf"(?:draw|stretch|drag|lengthen|prolong|elongat|extend)(?:s|es|e|ing)? (?:out )?{_HIS}(?: \w+)? {_SOUNDS}(?: out)?", "stated_slow"),
        (r"(?:takes?|taking|took|given|gives?|giving)(?: (?:his|her|their|its|more|plenty of|a lot of|all the|ample|enough))? time(?! to (?:get|think))", "stated_slow"),
        (r"(?:in no|without|no|in no particular|not in any|no sign of|with no)(?: \w+)? (?:hurry|haste|rush)(?! to)", "stated_slow"),
        (r"at (?:a |an? \w+ )?(?:crawl|snail owner_s pace|snail pace|walking pace|funereal \w+)|to a crawl|on forever|takes? (?:him |her |it |them )?(?:forever|ages|an age)", "stated_slow"),
        (rf"(?:each|every|the) words? (?:is |are )?(?:clearly |well |carefully )?(?:separated|set apart|isolated|detached|spaced)|{_SOUNDS}(?: are)? (?:spaced|set|placed|stand|lie) (?:far |well |wide )?apart", "stated_slow"),
        # energy
        (r"(?:at|with|in) (?:the top of (?:his|her|their|the) (?:lungs|voice)|full (?:volume|blast|throat|voice|cry))|top volume|at the top of (?:his|her|their) (?:lungs|voice)|(?:fills?|filling|echo\w*|ring\w*) (?:through )?the (?:whole )?(?:room|hall|space)|speaks? up|carr(?:y|ies) across|bellow\w*|holler\w*|blast(?:s|ing)|bark(?:s|ed|ing)(?! up)|roar(?:s|ed|ing)|thunder(?:s|ed|ing)|belt(?:s|ed|ing) (?:it |them )?out|(?:across|over) a (?:large|crowded|big|wide) (?:room|hall|square|field)|(?:hard on|hurts?) the ears", "stated_loud"),
        (r"(?:have to|has to|need to|needs to|must|necessary to|had to|makes? (?:one|me|you|us)|one)(?: almost)? (?:strain|lean (?:in|closer|forward)|listen (?:hard|closely))(?: to (?:hear|catch|make out)\b)?", "stated_quiet"),
        (r"(?:hard|difficult|struggle|struggling|impossible|can (?:barely|hardly|scarcely|only just)|could (?:barely|hardly|scarcely)|barely|hardly|almost can not)(?: to)? (?:hear|make out|catch)(?: (?:him|her|his words|her words|the words|the voice|his voice|her voice|the speaker|it|them|what (?:he|she) says)|(?= ?[,.]|$))", "stated_quiet"),
        (r"(?:barely|hardly|scarcely|only just|just|little|not much) (?:ris(?:es|ing) |louder |more )?(?:above|over|more than|than) (?:an? |the )?(?:whisper|mutter|murmur|noise|background|breath|silence|hiss)(?: of the (?:room|recording))?|(?:close to|almost|nearly|like|next to|near) (?:an? )?(?:whisper|murmur)|whisper (?:like )?(?=level|volume)|(?:have|has|had|need|needs) to turn (?:the volume up|it up|up the volume)|(?:no|little|not much) (?:real |great )?(?:force|power|strength|energy|push|punch|weight) behind|(?:lost|losing|lacks?|lacking) (?:some|much|most|a lot) of (?:its|his|her) (?:strength|force|power|volume|energy)|(?:had|have|has|need|needs) to (?:crank|turn up|boost|raise)(?: up)?(?: my| the)? (?:headphones|volume|speakers|sound|it)|half voice|sotto voce|(?:in an? )?undertone|under (?:his|her|their) breath|in a small voice|(?:does|do) not (?:really )?carry|(?<!to )(?:almost|nearly|barely|hardly) audible|an? (?:mere )?(?:murmur|breath|whisper),? (?:hardly|barely|no|little) more", "stated_quiet"),
        # intonation
        (r"(?:on|at|to|around|along) (?:one|an?|a single|the same|one single|one and the same|one constant)(?: (?:single|steady|constant|unchanging))? (?:note|level|tone|plateau|line|height|pitch)(?! of| that| which| above| below)(?: (?:almost )?without (?:change|variation|interruption))?", "stated_flat"),
        (r"(?:stays?|staying|remains?|runs?|is|moves? along) on a plateau|like an? (?:flat|level) line|in an? (?:flat|level|horizontal) line|(?:next to|almost|practically|virtually) no (?:melod\w+|intonation\w*|pitch) (?:variation|movement|change)|(?:hardly|barely|scarcely) (?:any|a) (?:melody|inflection|modulation|rise or fall)|with the melody of a (?:\w+ )?(?:machine|robot)|like a (?:robot|machine|metronome)|robotic(?:ally)?", "stated_flat"),
        (r"(?:peaks and (?:valleys|troughs|dips)|highs and lows|rises and falls(?= (?:throughout|constantly|continually|a lot|freely|all))|swoops and (?:dips|dives|soars)|roller coaster|all over the (?:place|map|scale)|sing song|(?:wide|large|big|sudden|sharp|frequent|many|great|dramatic|bold)(?: \w+)? (?:leaps|swings|excursions|jumps|sweeps|swoops)(?: (?:in|of|between) (?:the |his |her |its )?(?:pitch|melody|intonation|tune|registers?)))", "stated_varied"),
        (r"from (?:very |extremely |quite )?(?:high to (?:very |extremely |quite )?low|low to (?:very |extremely |quite )?high) and back(?: again)?|between (?:very )?high and (?:very )?low", "stated_varied"),
        (r"(?:hardly|barely|scarcely) (?:any|much) movement|(?:little|no|not much|minimal|scant|without(?: any| much)?(?: \w+)?) movement(?= in (?:it|them|the (?:pitch|melody|voice|tune))| ?[,.]|$)", "stated_flat"),
        (r"(?:plenty of|lots of|a lot of|full of|much|constant|a great deal of) movement(?! of)", "stated_varied"),
        (r"modulates (?:his|her|their|the) (?:voice|pitch)(?: (?:a lot|widely|strongly|considerably|freely|richly|a great deal))?", "stated_varied"),
        (r"(?:full of|plenty of|lots of|much|a lot of|a great deal of|considerable|abundant|rich)(?: \w+)? (?:melodic |pitch |tonal )?(?:inflections?|modulation)", "stated_varied"),
    )
)  # fmt: skip
"""Figures of speech and the word of `STATED` that each is read as."""
_OWNER = re.compile(r"\b(?:he|his|she|her|their)\b")


def read_figures(text: str) -> str:
    """Returns the text with its figures of speech read as words of `STATED`. Whose words they were is kept."""
    for pattern, word in _FIGURES:
        text = pattern.sub(lambda match, word=word: _stated(match[0], word), text)
    return text


def _stated(figure: str, word: str) -> str:
    owner = _OWNER.search(figure)
    return f" {word} " if owner is None else f" {word} {owner[0]} own "
