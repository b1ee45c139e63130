"""The words by which English reasoning states prosody. Words only: how they combine is in `grammar.py`.

Multi-word expressions are joined by `_` (see `PHRASES`), hyphens and apostrophes are gone before look-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _forms(text: str) -> frozenset[str]:
    """Adjectives with their comparative, superlative and adverb: quick, quicker, quickest, quickly."""
    forms = set(text.split())
    for word in text.split():
        stem = word[:-1] + "i" if word.endswith("y") else word.removesuffix("e")
        forms |= {f"{stem}er", f"{stem}est", f"{stem if word.endswith('y') else word}ly"}
    return frozenset(forms)


def _table(**values: Iterable[str]) -> dict[str, str]:
    return {word: value.replace("_", "-") for value, words in values.items() for word in words}


# fmt: off
PITCH, ENERGY, SPEED, CONTOUR = "pitch_level", "energy_level", "speed_level", "intonation"
VARIATION, VOICE, SPEECH, BEARER, TOPIC = "variation", "voice", "speech", "bearer", "topic"

NOUNS: dict[str, str] = {
    **dict.fromkeys(_words("pitch f0 register pitched frequency"), PITCH),
    **dict.fromkeys(_words("energy loudness volume intensity amplitude effort power force strength projection"),
                    ENERGY),
    **dict.fromkeys(_words("rate speed pace tempo paced pacing clip velocity cadence"), SPEED),
    **dict.fromkeys(_words("intonation contour melody tune inflection lilt curve intonational melodic "
                           "contours inflections trajectory"), CONTOUR),
    **dict.fromkeys(_words("variation variations variability modulation fluctuation fluctuations pitch_range pitch_movement swings"),
                    VARIATION),
    **dict.fromkeys(_words("voice voices tone voiced baritone timbre"), VOICE),
    **dict.fromkeys(_words(
        "speech speaks speaking talks talking speak talk spoke spoken delivery delivers delivered delivering "
        "utterance utterances sentence sentences words word syllables phrase phrases line lines articulates "
        "articulation articulated says said saying reads asks manner presentation rendition narration vocals "
        "sounding performance statement uttered utters pronounces prosody reading diction enunciation quality "
        "fashion bursts quotation succession style vocalization way"),
        SPEECH),
    **dict.fromkeys(_words(
        "speaker talker she he person man woman lady gentleman girl boy child narrator reader male female "
        "individual guy kid youngster teenager rhythm"),
        BEARER),
    **dict.fromkeys(_words("it they both all this everything"), TOPIC),
}
"""Noun (or verb of speaking) to the attribute that it names, or to what else can carry a level: a voice, an
act of speech, a bearer of free words only (a speaker, a rhythm), or the topic that a pronoun points back to."""

OWN_LEVELS = (PITCH, ENERGY, SPEED, CONTOUR, VARIATION)

SCALES = _words("level levels side end range part band region zone territory spectrum half portion scale "
                "bottom top pattern patterns value values degree amount height")
"""Nouns that a level word may stand before on its way to the attribute: a high level of energy."""

_HIGH = _forms("high great") | _words("raised elevated heightened increased boosted above up upper top stronger")
_LOW = _forms("low") | _words(
    "lowered reduced decreased diminished dampened suppressed depressed below down bottom minimal")
_NORMAL = _words(
    "normal medium moderate average ordinary middle mid typical standard unremarkable usual neutral regular "
    "unexceptional conversational moderately intermediate in_between normally expected middling everyday "
    "nothing_special")
_DEEP = _forms("deep") | _words("rumbling")
_LOUD = _forms("loud") | _words(
    "booming forceful forcefully vigorous vigorously energetic energetically roaring blaring strident deafening "
    "resounding thunderous shout shouts shouting shouted yell yells yelling yelled scream screams screaming "
    "bellows bellowing")
_QUIET = _forms("quiet soft faint") | _words(
    "softness quietness faintness "
    "hushed muted subdued inaudible inaudibly murmur murmurs murmured murmuring mutter mutters muttered muttering "
    "mumble mumbles mumbled mumbling muffled softened")
_FAST = _forms("quick rapid swift brisk speedy hasty") | _words(
    "fast faster fastest hurried hurriedly rushed rushing rushes breakneck accelerated quickened races racing "
    "frantic frenetic snappy galloping")
_SLOW = _forms("slow sluggish unhurried leisurely") | _words(
    "slowness "
    "slowed dragging drags drag drawling drawl drawls drawn_out lingers lingering plodding languid ponderous crawls crawling")
_FLAT = _words("flatness flat flatly monotone monotonous monotonously unvarying unvaried uninflected toneless deadpan")
_VARIED = _words("expressive varied animated dynamic singsong up_down wide_ranging melodious lilting fluctuating "
                 "undulating swooping")

LEVELS: dict[str, dict[str, str]] = {
    PITCH: _table(high=_HIGH | _words("soaring soars shrill"), low=_LOW | _DEEP, normal=_NORMAL),
    ENERGY: _table(
        high=_HIGH | _LOUD | _forms("strong") | _words("powerful considerable intense substantial lots robust"),
        low=_LOW | _QUIET | _forms("weak") | _words(
            "little feeble gentle lacks lacking depleted limited small modest restrained"),
        normal=_NORMAL),
    SPEED: _table(
        fast=_HIGH | _FAST | _words("lively considerable top full"),
        slow=_LOW | _SLOW | _words("deliberate deliberately laid_back lethargic"),
        normal=_NORMAL),
    CONTOUR: _table(
        flat=_FLAT | _words("level even constant steady stable unchanging unchanged static uniform"),
        expressive=_VARIED | _words("lively dramatic exaggerated theatrical vivid variable modulated wide colourful colorful bouncing bouncy rich")),
    VARIATION: _table(
        flat=_LOW | _words("no little limited minimal narrow small slight lacks lacking without restricted any scant"),
        expressive=_HIGH | _words("wide plenty lots large considerable much full dramatic strong rich ample big "
                                  "significant pronounced")),
    VOICE: {
        **dict.fromkeys(_forms("high") | _DEEP | _words("elevated above"), PITCH),
        **dict.fromkeys(_forms("strong weak") | _words(
            "raised lowered powerful feeble small gentle"), ENERGY)},
    SPEECH: dict.fromkeys(_NORMAL - _words("mid typical neutral ordinary"), SPEED),
    BEARER: {},
    TOPIC: {},
}
"""Carrier to the words that, said of it, state a level: the value, or for a voice or an act of speech, which
have no level of their own, the attribute that they then speak of."""

FREE: dict[str, str] = {
    **dict.fromkeys(_LOUD | _QUIET | {"normally_loud"}, ENERGY),
    **dict.fromkeys(_FAST | _SLOW | {"normally_fast"}, SPEED),
    **dict.fromkeys(_DEEP | {"shrill"}, PITCH),
    **dict.fromkeys(_FLAT | _VARIED - _words("dynamic varied"), CONTOUR),
}
"""Words that state a level of one attribute whichever voice, speech or speaker they are said of."""

LEVELS[ENERGY]["normally_loud"] = LEVELS[SPEED]["normally_fast"] = "normal"

LEVEL_WORDS = frozenset(word for words in LEVELS.values() for word in words)

UP = _words("rise rises rising rose climb climbs climbing lift lifts lifting ascend ascends ascending upward "
            "upwards upturn uptick upswing recovers recovering recover peaks peaking")
DOWN = _words("fall falls falling fell drop drops dropping dip dips dipping descend descends descending decline "
              "declines declining sink sinks sinking plunge plunges plunging slides sliding downward downwards downturn")
MOTIONS = _words("go goes going went come comes coming turn turns turning move moves moving slope slopes sloping "
                 "drift drifts drifting sweep sweeps sweeping jump jumps lifts back trails trail swing swings curl curls "
                 "tilt tilts tick ticks shoot shoots bend bends glide glides point points step steps curve curves picks pick")
"""Verbs after which up and down are directions, not levels."""
EVENT_NOUNS = _words("rise fall lift dip drop decline uptick upturn downturn climb upswing")
MOVEMENTS = _words("movement movements pattern slope drift sweep glide ending turn lilt motion tune note trend excursion arc")
"""Nouns that a direction may stand before without naming pitch: an upward drift."""

LINKS = _words("is are was were be been being sounds sound seems seem stays stay remains remain feels feel appears "
               "appear as called considered kept keeps : looks")
"""What stands between a subject and its level."""
STATIVE = _words(
    "sit sits sitting hover hovers lie lies falls hold holds stand stands tends can could may has have having had "
    "does do did described judged come comes coming came move moves go goes out carry carries comes_across set "
    "suggests stands rest rests settle settles range ranges run runs exhibit exhibits display displays show shows "
    "feature features demonstrates maintains retains uses adopts employs leans leaning registers measures")
DETERMINERS = _words("a an the his her their its this that these those one some any my your our such each every "
                     "owner_s own")
PREPOSITIONS = _words("of in at on for with from to toward towards near around about within throughout across by "
                      "into onto over under through during before after between behind than like")
CONJUNCTIONS = _words("and or nor")
CHANGES = _words("grow grows grew growing get gets getting become becomes becoming became turns increasingly gradually "
                 "progressively")
"""Before a level, these make it a change, which is no level of the whole."""
VERBS = _words(
    "shout shouts shouted yell yells yelled scream screams screamed bellows murmur murmurs murmured mutter mutters "
    "muttered mumble mumbles mumbled rushes races drags drag drawls lingers")
"""Level words that modify no noun after them."""
PARTICIPLES = _words("pitched paced voiced spoken")
BREAKS = _words("but while whereas although though yet because since which that who when where if so however "
                "despite if as_if ;")
ADVERBS = _words(
    "very quite rather fairly somewhat really slightly clearly so too relatively also just still only not never "
    "hardly more most less almost even well far a_bit much pretty simply then first likewise again indeed overall "
    "equally already always often practically extremely remarkably both all comparatively throughout at_the_end "
    "now here there perhaps exactly else either bit touch hair shade rather_than nor neither highly essentially "
    "near too notably midway along somewhere how best enough instead alike together alone mostly well")
ADJECTIVES = _words(
    "vocal overall general mean acoustic male female adult young own final basic main spoken "
    "clear thin harsh tense firm bright warm light crisp steady smooth calm hoarse rough even sharp shaky human "
    "rushed fundamental older elderly little old tender timid delicate whole last entire breathy shaky airy raspy husky "
    "gravelly heavy weary angry happy tiny hard cold cool dark thick dry plain sweet bitter mild stern curt terse blunt lovely steely wobbly fragile brittle nasal")
# fmt: on

NEGATIONS = _words("not no never hardly scarcely barely without neither nor nobody nothing none lacks")
HYPOTHETICALS = _words(
    "if would expect expected usually typically generally often unlike people than rule_out"
)
"""After these, a clause speaks of what might be or commonly is, not of this recording."""

SMALL = r"(?:very|too|so|all|that|particularly|especially|overly|really|exactly|notably|quite|unusually)"

PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b{pattern}\b"), replacement)
    for pattern, replacement in (
        (
            r"(?:never|not|hardly|barely|scarcely) (?:rises?|goes|go|gets?|strays?|moves?|deviates?|departs?|ventures?)"
            r"(?: far| much)? (?:above|beyond|from)",
            "stays around",
        ),
        (r"(?:not (?:only|just|merely)|no (?:doubt|question|wonder)|if anything|not to mention)", " "),
        (
            r"(?:than|from|(?:compared|relative) (?:to|with)) (?:what )?(?:is |the |an? |in |his |her )*"
            r"(?:average|normal|usual|typical|expected|ordinary)(?: (?:conversation|speech|talk|talking|speaking))?",
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
            r"(?:nothing|not) (?:unusual|remarkable|special|out of the ordinary|anything special|notable)",
            "nothing_special",
        ),
        (r"(?:barely|hardly|scarcely) audible", "inaudible"),
        (r"(?:hardly|barely|scarcely|almost|next to) (?:any|no)", "little"),
        (
            r"(rate|speed|pace|tempo|volume|loudness|pitch|energy) (?:at|with|in) which (?:the )?\w+ (?:speaks?|talks?)",
            r"\1",
        ),
        (r"dynamic (?:variations?|range)", "dynamics"),
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
            r"(?:variations?|variability|modulation|swings|changes?) (?:in|of) (?:the |his |her )*(?:pitch|tone)",
            "variation",
        ),
        (
            r"(?:variations?|changes?) (?:in|of) (?:the |his |her )*(?:volume|loudness|energy|intensity|tempo|pace|rate|speed)",
            "dynamics",
        ),
        (r"deep down", " "),
        (r"pitch (?:movements?)", "pitch_movement"),
        (r"(?:wide|broad|large|great) (?:pitch |vocal |tonal )?range", "wide variation"),
        (r"(?:narrow|limited|small|restricted) (?:pitch |vocal |tonal )?range", "limited variation"),
        (r"(?:a (?:lot|great deal) of|lots of|plenty of|full of)", "lots"),
        (r"(?:moves? )?up and down(?: a great deal)?|ups and downs", "up_down"),
        (
            r"(?:varies|vary|fluctuates|changes|moves) (?:considerably|widely|greatly|a lot|dramatically|freely|noticeably)",
            "is varied",
        ),
        (r"(?:jumps|moves|swings|bounces|dances) (?:all )?(?:around|about)(?: a lot)?", "is varied"),
        (
            r"(?:barely|scarcely|hardly|little|not|just) (?:above|louder than|more than) an? (?:whisper|mutter|murmur)",
            "hushed",
        ),
        (r"such (force|power|volume|intensity|strength|loudness)", r"high \1"),
        (r"(?:sort|kind) of|more or less|a tad", "slightly"),
        (r"sing song", "singsong"),
        (r"rapid fire", "rapid"),
        (
            r"(?:drawn|drawing|draws|stretched|stretches|drags|drew) (?:it )?out(?: (?:the|each|every) vowels)?",
            "drawn_out",
        ),
        (r"laid back", "laid_back"),
        (r"wide ranging", "wide_ranging"),
        (r"in between", "in_between"),
        (r"in a (?:hurry|rush)(?! to)", "hurriedly"),
        (r"(?:take|takes|taking|took) (his|her|their) time", r"speaks slowly \1 own"),
        (r"speeds? up", "speaks quickly"),
        (r"slows? down", "speaks slowly"),
        (r"(?:raises|raising|raised) (his|her|their|the) (?:voice|volume)", r"\1 voice raised"),
        (r"(?:lowers|lowering|lowered) (his|her|their|the) (?:voice|volume)", r"\1 voice lowered"),
        (r"at the top of (his|her|their) (?:lungs|voice)", r"loudly \1 own"),
        (r"under (his|her|their) breath", r"quietly \1 own"),
        (r"at the end", "at_the_end"),
        (r"at (?:the|its) (?:very )?(?:start|beginning|outset|onset)", "at_the_start"),
        (r"at (?:its|his|her|their) \w+est", " "),
        (r"(start|begin|end|finish)(s|ing|ed|es)? (?:out|off|up)", r"\1\2"),
        (
            r"a (?:bit|touch|hair|shade|notch|little(?! (?:girl|boy|kid|child|old|voice|energy|variation)))",
            "slightly",
        ),
        (r"on average|(?:within )?what is (?:normal|usual|typical|expected)(?: for)?", " "),
        (r"not that of", "not"),
        (r"(?:no|little|without) (?:any |real |much )?(?:melody|inflection)", "no variation"),
        (r"(?:keeps?|kept|keeping) (his|her|their|the) (?:voice|volume) (?:down|low)", r"\1 voice lowered"),
        (r"medium loud", "normally_loud"),
        (r"medium fast", "normally_fast"),
        (r"fundamental frequency", "f0"),
    )
)
"""Expressions that are read as one word, or as plainer ones, in this order."""
