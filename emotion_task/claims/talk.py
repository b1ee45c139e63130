"""Reads how reasoning talks: opinions ("I would call the voice loud"), double denials ("no lack of volume"),
the order of words in talk ("pitch-wise, she ...") and everyday spelling become plainer words."""

from __future__ import annotations

import re
from collections.abc import Callable

from emotion_task.claims.norms import as_usual

_OWN = (
    r"(?:pitch|f0|volume|loudness|energy|intensity|speed|rate|tempo|"
    r"pace|pacing|contour|intonation|melody|tune)"
)
LEVEL_NAMES = (
    r"high\w*|low\w*|deep|loud|quiet|soft|weak|strong|fast|quick|"
    r"rapid|brisk|slow|flat|monoton\w+|lively|expressive|"
    r"normal\w*|average|typical|moderate|medium|ordinary|elevated|"
    r"raised|reduced|lowered|unremarkable|hurried|unhurried|"
    r"leisurely|powerful|subdued|hushed|mid\w*"
)


def _at_level(match: re.Match[str]) -> str:
    """Returns "at a normal loudness" for "at a normal level", unless the level is of another attribute."""
    other = re.search(
        r"\b(?:pitch|f0|melody|contour|intonation|tempo|rate|speed|"
        r"pace|they)\b[^,.]*$",
        match.string[: match.start()],
    )
    return match[0] if other else f"at a {match[1]} loudness"


def _of_whom(match: re.Match[str]) -> str:
    """Returns "pitch of her own" for "as for pitch, she"."""
    whose = {"she": "of her own ", "he": "of his own "}
    return f"{match[1]} {whose.get((match[2] or '').strip(), '')}"


def _for_a_person(match: re.Match[str]) -> str:
    """Returns "low in pitch for a woman" where nothing else was said to be low."""
    clause = re.split(r"[.!?]", match.string[: match.start()])[-1]
    if re.search(rf"\b(?:{_OWN}|voice|tone|register|it|f0)\b", clause):
        return match[0]
    return f"{match[1]} in pitch for {match[2] or ''}{match[4]}"


def _turned(match: re.Match[str]) -> str:
    level = "elevated" if match[1] == "up" else "lowered"
    second = f" and {level} {match[3]}" if match[3] else ""
    return f"has {level} {match[2]}{second}"


TALK: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(rf"\b{pattern}\b"), replacement)
    for pattern, replacement in (
        (
            rf"(?:has |have |had )?(?:turned|turns|turning|cranked|cranks|"
            rf"dial+ed) (up|down) (?:the |his |her )({_OWN})(?: and (?:the "
            rf"|his |her )?({_OWN}))?",
            _turned,
        ),
        # who thinks so
        (
            r"(?:i|one|we|you) (?:would )?(?:call|consider|rate) (?:that|"
            r"this|it) (?=\w+ ?(?:[,.]|$))",
            " , it is ",
        ),
        (
            r"(?:unless|if) i am (?:not )?(?:much )?(?:mistaken|wrong)|"
            r"if you ask me|i mean|to my (?:ear|ears|mind)|i (?:guess|suppose|"
            r"reckon|think|(?:would )?say)(?= ?[,.]|$)"
            r"|for what it is worth|as far as i can (?:tell|hear|judge)|"
            r"no (?:doubt|question) about it|(?:strictly|technically|frankly|"
            r"honestly) speaking",
            " ",
        ),
        (
            r"(?:i|one|we|you|listeners|(?:most |many )?people|most|many) "
            r"(?:would |might |could |can |may |d |am inclined to |am tempted "
            r"to |want to )*(?:\w+ly )?"
            r"(?:locate|situate|call|describe|judge|rate|classify|label|"
            r"characteri[sz]e|estimate|rank|hear|perceive|find)(?: (?:it|"
            r"that|this))?"
            r"(?: (?:as|to be|is))?(?= (?:an? |the )?(?:\w+ly |very |quite "
            r"|rather |somewhat |a bit |slightly |pretty |more |less )*"
            rf"(?:{LEVEL_NAMES})\b)",
            ": ",
        ),
        (
            r"(?:i|one|we|you) (?:would |might |could )?(?:locate|situate|"
            r"place|put|find|hear) (?:it )?(?=(?:low|high|normal)_placed|"
            r"(?:low|high|normal)\b)",
            ": ",
        ),
        (
            rf"(?:as for|as to|in terms of|when it comes to|regarding|concerning|"
            rf"with (?:regard|respect) to|as far as|speaking of) (?:the "
            rf"|his |her |its |their )?({_OWN})"
            r"(?: goes| is concerned)? ?, ?((?:he|she|it|they|the (?:speaker|"
            r"voice|man|woman|delivery)|everything|i (?:hear|find|notice|"
            r"detect|perceive|note))\b)?",
            _of_whom,
        ),
        (
            rf"(?:in terms of|with (?:regard|respect) to|as regards|when "
            rf"it comes to|as for) (?=(?:the |his |her |its )?{_OWN})",
            "in ",
        ),
        (rf"({LEVEL_NAMES})(?: one)? ?,? ({_OWN}) wise(?= ?[,.]| for| and| ?$)", r"\1 in \2"),
        (
            rf"({_OWN}) wise ?,? ?((?:he|she|it|they|the (?:speaker|voice|"
            rf"man|woman|delivery)) )?",
            _of_whom,
        ),
        (rf"so ({LEVEL_NAMES}) (?:that )?(?=(?:i|you|one|we|it) )", r"\1 , "),
        (r"let us (?:call|say|put|rate|consider)(?: (?:it|that|this))?(?: as)?", ": "),
        (
            r"(?:can|could|may|might) be (?:best )?(?:characteri[sz]ed|"
            r"described|summed up|summari[sz]ed)(?: best)? (?:as|by|in)(?: "
            r"follows)?|as follows",
            "is",
        ),
        (r"(?:since|as|because|and|for) that is", "since it is"),
        (
            r"(?:has|have|had) (?:gone|crept|moved|climbed|risen|shot|been|"
            r"come) ?(?:up|upwards?|raised|increased)(?! at_the_end| at "
            r"the end| toward| by the end| on quotation)",
            "is elevated",
        ),
        (
            r"(?:has|have|had) (?:gone|crept|moved|come|dropped|fallen|"
            r"sunk|slid|been) ?(?:down|downwards?|lowered|reduced)(?! at_the_end|"
            r" at the end| toward| by the end| on quotation)",
            "is lowered",
        ),
        (
            r"(?:is |are |was |has been )?(?:dial+ed|turned|toned|kept|"
            r"scaled|reined|held|pared) (?:back|down|in check|in)",
            "is reduced",
        ),
        (
            r"(?:keeps?|keeping) (his|her|their|the) (volume|voice|loudness) "
            r"(?:in check|down|low)",
            r"\1 \2 lowered",
        ),
        (
            r"(?:is |are |was |has been )?(?:cranked|dial+ed|turned|jacked|"
            r"pumped)(?: (?:right |way |all the way )?up)",
            "is elevated",
        ),
        (r"(?<=volume )(?:is |owner_s )?cranked", "is elevated"),
        (
            r"\b(high|higher|low|lower|deep|deeper) for (an? )?(adult |"
            r"grown )?(man|woman|male|female|men|women)",
            _for_a_person,
        ),
        (
            r"(?:phrase |sentence |utterance |very )?(?:final|last) (?:syllables?|"
            r"words?|beat) (falls?|rises?|drops?|climbs?|descends?|ascends?|"
            r"goes up|goes down)(?: off)?",
            r"melody \1",
        ),
        (
            r"\b(rise|fall|drop|lift|dip|descent|upturn|climb) (?:on|at|"
            r"over|in) (?:the |its )?(?:very )?(?:last|final) (?:words?|"
            r"syllables?)(?: of (?:quotation|the \w+))?",
            r"\1 at_the_end",
        ),
        (
            r"\w+er than (?:all )?(?:the )?(?:rest|others|other (?:words|syllables)|neighbou?rs|"
            r"neighbou?ring words|"
            r"surrounding words|words around it)",
            " ",
        ),
        (r"(\w+er) than (?:an?|my|the) \w+(?= ?[,.!]| ?$)", r"\1"),
        (
            r"(not|never|hardly) (?:(?:think|say) (?:he|she|it) is )?(?:\w+ly |that |too |so |very |all "
            r"that )*(loud|quiet|soft|fast|quick|slow|high|low) ?,? "
            r"(?:but |just |only )*(?:rather |more (?:like )?|it is |sort of |about )*"
            r"(?:medium|average|normal|moderate|middling|ordinary|in between|mid)",
            lambda m: f"{m[1]} {m[2]} , {as_usual(m[2])}",
        ),
        (
            r"(?:not|neither|never) (?:rush|hurr|rac)\w*[^.]*? (?:nor|not|or|but not)(?: (?:does|do|is|"
            r"did))?(?: (?:he|she|they))?"
            r"(?: not)? (?:drag|linger|dawdl|draw|crawl|plod|stated_slow)\w*",
            "normally_fast",
        ),
        (
            r"(?:can not be|could not be|no|not|hardly|not much)(?: much)? "
            r"(?:more|older) than (?=\w+(?: ?[,.]|$| years))",
            "about ",
        ),
        (r"(?:comes?|coming) to rest", "ends"),
        (r"as a whole|on the whole", " "),
        (r"(?:close|next|near) to (?=(?:level|flat|static|monotone)\b)", " "),
        (
            r"(rise fall|fall rise) nuclear (?:tone|accent|contour)",
            lambda m: "rising falling melody" if m[1] == "rise fall" else "falling rising melody",
        ),
        (r"(\w+er) than (?:before|earlier|previously)", " "),
        (
            r"(?<=\. )level(?= (?:is |well |far |slightly |somewhat )*(?:above|"
            r"below|elevated|lowered|high|low|raised|reduced)\b)",
            "loudness",
        ),
        (
            r"(?:(?<=the )(?:overall|general|average) level|(?<=\. )level|^level)(?= (?:is |was |stays |"
            rf"remains |lies )?(?:\w+ly |quite |rather |very )?(?!tone|tune|pitch|line)(?:{LEVEL_NAMES})\b)",
            "loudness",
        ),
        (
            r"\b(?:okay|ok|fine|alright|meh) ?, (?=(?:(?:slightly|maybe|perhaps|if anything|a (?:bit|touch|"
            rf"little)|(?:kind|sort) of) ?,? ?)*(?:{LEVEL_NAMES})\b)",
            " ",
        ),
        (
            r"(?:falls?|falling|comes?|is|remains?) (?:well |far |just |slightly |somewhat )?short(?: of "
            r"(?:it|that))?(?= ?[,.]|$)",
            "is lowered",
        ),
        # polarity
        (
            r"(?:could|might) (?:have been|be) (?:a bit |slightly |a little "
            r"|even |much )*(?=(?:louder|quieter|softer|faster|quicker|"
            r"slower|higher|lower|livelier)\b)",
            "is not ",
        ),
        (rf"no (?:lack|shortage|absence|want|dearth) of ({_OWN}|power|force|strength)", r"high \1"),
        (
            r"(?:it (?:is|would be|was|seems|is simply|is just)|that is) "
            r"(?:equally |also |quite |just )?(?:not true|untrue|not the "
            r"case|wrong|false|incorrect|a mistake"
            r"|an exaggeration|an overstatement|inaccurate|misleading|not "
            r"(?:accurate|right|correct|fair))(?: (?:that|to (?:call|say|"
            r"describe|claim|speak of)))?"
            r"|(?:equally|also|just as) (?:wrong|untrue|false) to (?:call|say|describe)",
            "not",
        ),
        (
            r"(?:fails?|failed|failing|refus(?:es|ed|ing)|neglects?) to|"
            r"(?:avoids|avoiding|refrains? from|refraining from|stops? "
            r"short of|is free (?:of|from)|free (?:of|from))",
            "not",
        ),
        (
            r"(?:could|can|would) (?:hardly|scarcely|barely) be (?:called|"
            r"described as|said to be|considered|termed)",
            "is not",
        ),
        (r"no way(?: (?:is|was|does|did|that|would))?(?: (?:that|this|it)(?: is| was)?)?", "not"),
        (
            r"(?:no|lacks?|lacking|without|devoid of|zero)(?: (?:any|much|"
            r"real|great))* (energy|force|power|strength|volume|loudness|"
            r"vigou?r|intensity)"
            r"(?! (?:change|changes|variation|level|increase|contrast|peaks?|difference|or|swings))",
            r"reduced \1",
        ),
        (r"(?:lacks?|lacking)(?: any| much)? (speed|pace|tempo)", r"reduced \1"),
        (
            r"(?:quite some|quite a bit of|a fair (?:amount|bit) of|a good "
            r"(?:deal|amount) of|a great (?:amount|deal) of|a considerable "
            r"(?:amount|degree) of)",
            "considerable",
        ),
        (r"comfortable (volume|loudness|level|pace|tempo|rate|speed|pitch)", r"normal \1"),
        (r"(?:bass|baritone)(?= voice)", "deep"),
        # spelling of everyday talk
        (r"avg", "average"),
        (r"fem", "female"),
        (r"int(?= ?[:\w])", "intensity"),
        (r"med(?= ?[:\w])", "medium"),
        (r"vol\.?(?= ?[:\w])", "volume"),
        (r"(?:way|right|far) up(?! there)", "very elevated"),
        (r"(?:way|right|far) down(?! there)", "very lowered"),
        (r"(?:high rise terminal|high rising terminal|up ?talk(?:ing)?|upspeak)", "rising melody"),
        (r"so{2,}", "so"),
        (
            r"so so|neither here nor there|run of the mill|nothing to (?:write|"
            r"call) home about|par for the course|middle of the road|matter "
            r"of fact",
            "middling",
        ),
        (
            r"(?:in|at) an? (high(?:er)?|low(?:er)?|deep(?:er)?) (?:key|"
            r"note)|(?:on|at) an? (high|low) note|(high|low) notes|(high) "
            r"treble|treble (high)",
            lambda m: f"at a {next(filter(None, m.groups()))} pitch",
        ),
        (
            r"(?:dynamic|recorded|sound|signal|output|audio|playback|volume|"
            r"loudness|energy) level|(?<=, )level(?= ?:)|(?<=\. )level(?= "
            r"?:)|^level(?= ?:)|dynamics?(?= (?:level )?(?:piano|pianissimo|"
            r"pp|ppp|p|mp|forte|fortissimo|ff|f|mf|mezzo\w*)\b)",
            "loudness",
        ),
        (
            r"(?:pianissimo|piano|ppp?)(?= (?:dynamics?|loudness|volume))|"
            r"(?<=loudness )(?:is )?(?:pianissimo|piano|ppp?)|pianissimo",
            "quiet",
        ),
        (
            r"(?:fortissimo|forte|fff?)(?= (?:dynamics?|loudness|volume))|"
            r"(?<=loudness )(?:is )?(?:fortissimo|forte|fff?)|fortissimo",
            "loud",
        ),
        (r"(?<=quiet )dynamics|(?<=loud )dynamics|(?<=low )dynamics|(?<=high )dynamics", "loudness"),
        (r"mezzo ?forte|mezzo ?piano", "medium"),
        (r"(rising|falling|final|terminal|descending|ascending|closing) cadence", r"\1 melody"),
        (r"cadence(?= (?:is |: )?(?:rising|falling|rises|falls|descends|ascends))", "melody"),
        (r"(?:up|high|way up|far up) there", "high"),
        (r"(?:(?:way|right|far) )?(?:down|low) there", "low"),
        (
            r"(?:comes to rest|settles|lands|arrives|winds up|ends|finishes) "
            r"(?:on|at) an? (?:much )?lower (?:note|pitch|level|tone)",
            "falls at_the_end",
        ),
        (
            r"(?:comes to rest|settles|lands|arrives|winds up|ends|finishes) "
            r"(?:on|at) an? (?:much )?higher (?:note|pitch|level|tone)",
            "rises at_the_end",
        ),
        (r"(?:sky|rooftop) high|high as a kite|through the (?:roof|ceiling)", "very high"),
        (
            r"(?:at|with) (?:an?|this|that|such an?|his|her) (?:very |perfectly "
            r"|quite |fairly )?(\w+) level(?! of| in)",
            _at_level,
        ),
        (r"(?:(\w+er) and \2|more and more \w+)".replace("2", "1"), " "),
        (r"ending ?:|the ending is", "melody at_the_end :"),
        (
            r"all (?:three|four|two)(?: of (?:them|these|those))?|each "
            r"of (?:them|these)|all of (?:them|these)|(?:the )?two of them",
            "they",
        ),
        (r"(?:on top|at the same time|to boot)", " "),
    )
)
"""Ways to talk and what each is read as. They are replaced in this order."""

PAIRS = (
    (
        re.compile(
            rf"\b({_OWN}) and (?:the |her |his )?({_OWN})\b([^.]*(?:\. ?)?[^.]*?)\bthe "
            rf"former\b([^.]*?)\bthe latter\b"
        ),
        r"\1 and \2\3the \1\4, the \2",
    ),
)
"""The former and the latter of two attributes, which may stand in another sentence."""
