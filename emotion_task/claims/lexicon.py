"""Lists the words by which English reasoning states prosody. `grammar.py` knows how these words combine.

Multi-word expressions are joined by `_` (see `expressions.py`), and hyphens are removed before look-up.
"""

from __future__ import annotations

from collections.abc import Iterable


def words(text: str) -> frozenset[str]:
    """Returns the words of `text` as a set, for tables that stay readable."""
    return frozenset(text.split())


def _forms(text: str) -> frozenset[str]:
    """Returns adjectives with their comparative, superlative and adverb: quick, quicker, quickest,
    quickly."""
    forms = set(text.split())
    for word in text.split():
        stem = word[:-1] + "i" if word.endswith("y") else word.removesuffix("e")
        forms |= {f"{stem}er", f"{stem}est", f"{stem if word.endswith('y') else word}ly"}
    return frozenset(forms)


def _table(**values: Iterable[str]) -> dict[str, str]:
    return {word: value.replace("_", "-") for value, words in values.items() for word in words}


PITCH, ENERGY, SPEED, CONTOUR = "pitch_level", "energy_level", "speed_level", "intonation"
VARIATION, VOICE, SPEECH, BEARER, TOPIC = "variation", "voice", "speech", "bearer", "topic"

NOUNS: dict[str, str] = {
    **dict.fromkeys(words("pitch f0 register pitched frequency tessitura"), PITCH),
    **dict.fromkeys(
        words(
            "energy loudness volume intensity amplitude effort power force "
            "strength projection vigour vigor spl rms oomph"
        ),
        ENERGY,
    ),
    **dict.fromkeys(words("rate speed pace tempo paced pacing clip velocity cadence agogics tempi"), SPEED),
    **dict.fromkeys(
        words(
            "intonation contour melody tune inflection lilt curve intonational melodic contours "
            "inflections trajectory"
        ),
        CONTOUR,
    ),
    **dict.fromkeys(
        words(
            "variation variations variability modulation fluctuation fluctuations pitch_range "
            "pitch_movement swings"
        ),
        VARIATION,
    ),
    **dict.fromkeys(words("voice voices tone tones voiced baritone timbre"), VOICE),
    **dict.fromkeys(
        words(
            "speech speaks speaking talks talking speak talk spoke spoken delivery delivers delivered "
            "delivering utterance utterances sentence sentences words "
            "word syllables phrase phrases line clause clauses "
            "lines articulates articulation articulated says said saying reads asks manner presentation "
            "rendition narration vocals sounding performance statement "
            "uttered utters pronounces prosody "
            "reading diction enunciation quality fashion bursts quotation succession style vocalization "
            "way"
        ),
        SPEECH,
    ),
    **dict.fromkeys(
        words(
            "speaker talker she he person man woman lady gentleman girl boy child narrator reader male "
            "female individual guy kid youngster teenager rhythm effect "
            "reaction response answer reply outburst exclamation "
            "impression feel bloke dude fellow chap lad lass granny grandma "
            "grandpa grandmother grandfather"
        ),
        BEARER,
    ),
    **dict.fromkeys(words("it they both all this everything"), TOPIC),
}
"""Carrier of each noun (or verb of speaking): the attribute that the noun names, or what else can carry a
level. The latter is a voice, an act of speech, a bearer of free words only (a speaker, a rhythm), or a topic
that a pronoun points back to."""

OWN_LEVELS = (PITCH, ENERGY, SPEED, CONTOUR, VARIATION)

SCALES = words(
    "level levels side end range part band region zone territory spectrum half portion scale "
    "bottom top pattern patterns value values degree amount height"
)
"""Nouns that may stand between a level word and the attribute: a high level of energy."""

_HIGH = _forms("high great") | words(
    "raised elevated heightened increased boosted above up upper top stronger greater sky_high"
)
_LOW = _forms("low") | words(
    "lowered reduced decreased diminished dampened suppressed depressed below down bottom minimal "
    "lessened down_low"
)
_NORMAL = words(
    "normal medium moderate average ordinary middle mid typical standard unremarkable usual "
    "neutral regular unexceptional conversational moderately intermediate in_between normally "
    "expected middling everyday nothing_special "
    "middling inconspicuous unobtrusive routine customary habitual "
    "commonplace unmarked intermediate median mainstream"
)
_DEEP = _forms("deep") | words("rumbling rumbly")
_LOUD = _forms("loud") | words(
    "booming forceful forcefully vigorous vigorously energetic energetically roaring blaring "
    "strident deafening resounding thunderous shout shouts shouting shouted yell yells yelling "
    "yelled scream screams screaming bellows bellowing "
    "noisy noisily boisterous bellowed hollering raucous clamorous "
    "blasting vociferous shouty powerfully full_throated energised "
    "energized bellow"
)
_QUIET = _forms("quiet soft faint") | words(
    "softness quietness faintness hushed muted subdued inaudible inaudibly murmur murmurs "
    "murmured murmuring mutter mutters muttered muttering mumble mumbles mumbled mumbling muffled "
    "softened "
    "hush mumbly whispery softly_spoken toned_down tuned_down"
)
_FAST = _forms("quick rapid swift brisk speedy hasty") | words(
    "fast faster fastest hurried hurriedly rushed rushing rushes breakneck accelerated quickened "
    "races racing frantic frenetic snappy galloping "
    "zippy pacy nimble pell_mell presto allegro vivace speedily "
    "fast_paced gabbling rattling hectic pressured"
)
_SLOW = _forms("slow sluggish unhurried leisurely") | words(
    "slowness slowed dragging drags drag drawling drawl drawls drawn_out lingers lingering "
    "plodding languid ponderous crawls crawling "
    "halting haltingly laboured labored glacial lento largo adagio "
    "protracted prolonged elongated sedate lumbering dawdling "
    "trudging creeping leaden slackened decelerated stretched_out "
    "snail"
)
_FLAT = words(
    "flatness flat flatly monotone monotonous monotonously unvarying "
    "unvaried uninflected toneless deadpan "
    "monotonic unmodulated"
)
_VARIED = words(
    "expressive varied animated dynamic singsong up_down wide_ranging melodious lilting "
    "fluctuating undulating swooping "
    "theatrical tuneful musical inflected"
)

_PASSABLE = words("okay ok alright fine whatever meh so_so common")
"""Normal where they are said of an attribute by name."""

LEVELS: dict[str, dict[str, str]] = {
    PITCH: _table(
        high=_HIGH | words("soaring soars shrill squeaky piping falsetto treble screechy"),
        low=_LOW | _DEEP,
        normal=_NORMAL | _PASSABLE,
    ),
    ENERGY: _table(
        high=_HIGH
        | _LOUD
        | _forms("strong")
        | words(
            "powerful considerable intense substantial lots robust big "
            "mighty massive huge tremendous enormous hefty "
            "hearty ample plentiful full noticeable palpable pronounced "
            "fierce explosive overwhelming loads heaps tons more"
        ),
        low=_LOW
        | _QUIET
        | _forms("weak")
        | words(
            "little feeble gentle lacks lacking depleted limited small "
            "modest restrained less slight scant meagre tiny mild meek "
            "flagging waning "
            "poor"
        ),
        normal=_NORMAL | _PASSABLE,
    ),
    SPEED: _table(
        fast=_HIGH
        | _FAST
        | words("lively considerable top full urgent pressing spirited frenzied feverish blistering more"),
        slow=_LOW
        | _SLOW
        | words("relaxed deliberate deliberately laid_back lethargic gentle drowsy sleepy languorous"),
        normal=_NORMAL | _PASSABLE,
    ),
    CONTOUR: _table(
        flat=_FLAT | words("narrow level even constant steady stable unchanging unchanged static uniform"),
        expressive=_VARIED
        | words(
            "lively dramatic exaggerated theatrical vivid variable modulated "
            "wide broad expanded colourful colorful "
            "bouncing bouncy rich"
        ),
    ),
    VARIATION: _table(
        flat=_LOW
        | words(
            "no little limited minimal narrow small slight lacks lacking without restricted any scant less"
        ),
        expressive=_HIGH
        | words(
            "wide plenty lots large considerable much full more expanded "
            "great broad constant continual dramatic strong rich ample "
            "big significant "
            "pronounced"
        ),
    ),
    VOICE: {
        **dict.fromkeys(_forms("high") | _DEEP | words("elevated above"), PITCH),
        **dict.fromkeys(
            _forms("strong weak") | words("raised lowered powerful feeble small gentle big mighty"),
            ENERGY,
        ),
    },
    SPEECH: dict.fromkeys(_NORMAL - words("mid typical neutral ordinary"), SPEED),
    BEARER: {},
    TOPIC: {},
}
"""Words that state a level, by carrier. Each word gives the value; for a voice or an act of speech, which
have no level of their own, each word gives the attribute that it then speaks of."""

FREE: dict[str, str] = {
    **dict.fromkeys(_LOUD | _QUIET | {"normally_loud"}, ENERGY),
    **dict.fromkeys(_FAST | _SLOW | {"normally_fast"}, SPEED),
    **dict.fromkeys(_DEEP | words("shrill squeaky piping falsetto screechy"), PITCH),
    **dict.fromkeys(_FLAT | _VARIED - words("dynamic varied"), CONTOUR),
}
"""Words that state a level of one attribute whichever voice, speech or speaker they are said of."""

for _levels, _low, _high in (
    (LEVELS[PITCH], "low", "high"),
    (LEVELS[ENERGY], "low", "high"),
    (LEVELS[SPEED], "slow", "fast"),
):
    _levels |= {"low_placed": _low, "normal_placed": "normal", "high_placed": _high}
FREE |= dict.fromkeys(("low_placed", "normal_placed", "high_placed"), PITCH)
LEVELS[ENERGY]["normally_loud"] = LEVELS[SPEED]["normally_fast"] = "normal"

LEVEL_WORDS = frozenset(word for words in LEVELS.values() for word in words)

UP = words(
    "rise rises rising rose climb climbs climbing lift lifts lifting ascend ascends ascending "
    "upward upwards upturn uptick upswing recovers recovering recover peaks peaking "
    "mount mounts mounting soar ascent"
)
DOWN = words(
    "fall falls falling fell drop drops dropping dip dips dipping descend descends descending "
    "decline declines declining sink sinks sinking plunge plunges plunging slides sliding "
    "downward downwards downturn "
    "descent tumble tumbles tumbling sag sags sagging slump slumps"
)
MOTIONS = words(
    "go goes going went come comes coming turn turns turning move moves moving slope slopes "
    "sloping drift drifts drifting sweep sweeps sweeping jump jumps lifts back trails trail swing "
    "swings curl curls tilt tilts tick ticks shoot shoots bend bends glide glides point points "
    "step steps curve curves picks pick "
    "settle settles settling leap leaps leaping shoots flick flicks kicks kick shooting climbing"
)
"""Verbs after which up and down are directions, not levels."""
EVENT_NOUNS = words(
    "rise fall lift dip drop decline uptick upturn downturn climb upswing ascent descent slump"
)
MOVEMENTS = words(
    "movement movements pattern slope drift sweep glide ending "
    "turn lilt motion tune note trend excursion arc path line "
    "course direction"
)
"""Nouns that a direction may stand before without naming pitch: an upward drift."""

LINKS = words(
    "is are was were be been being sounds sound seems seem stays stay remains remain feels feel "
    "appears appear as called considered kept keeps : looks"
)
"""Words that stand between a subject and its level."""
STATIVE = words(
    "sit sits sitting hover hovers lie lies falls hold holds stand stands tends can could may has "
    "have having had does do did described judged come comes coming came move moves go goes out "
    "carry carries comes_across set suggests stands rest rests settle settles range ranges run "
    "runs exhibit exhibits display displays show shows feature features demonstrates maintains "
    "retains uses adopts employs leans leaning registers measures"
)
DETERMINERS = words(
    "a an the his her their its this that these those one some any my your our such each every owner_s own"
)
PREPOSITIONS = words(
    "of in at on for with from to toward towards near around about within throughout across by "
    "into onto over under through during before after between behind than like"
)
CONJUNCTIONS = words("and or nor")
CHANGES = words(
    "grow grows grew growing get gets getting become becomes becoming became turns increasingly "
    "gradually progressively"
)
"""Words before a level that make it a change, which is no level of the whole."""
VERBS = words(
    "shout shouts shouted yell yells yelled scream screams screamed bellows murmur murmurs "
    "murmured mutter mutters muttered mumble mumbles mumbled rushes races drags drag drawls "
    "lingers"
)
"""Level words that modify no noun after them."""
PARTICIPLES = words("pitched paced voiced spoken")
BREAKS = words(
    "but while whereas although though yet because since which that who when where if so however "
    "despite if as_if ;"
)
ADVERBS = words(
    "very quite rather fairly somewhat really slightly clearly so too relatively also just still "
    "only not never hardly more most less almost even well far a_bit much pretty simply then "
    "first likewise again indeed overall equally already always often practically extremely "
    "remarkably both all comparatively throughout at_the_end now here there perhaps exactly else "
    "either bit touch hair shade rather_than nor neither highly essentially near too notably "
    "midway along somewhere how best enough instead alike together alone mostly well "
    "kinda sorta super real proper dead bloody awfully mega totally "
    "way possibly probably maybe distinctly markedly decidedly "
    "fully lot deal good otherwise elsewhere anyway altogether"
)
ADJECTIVES = words(
    "vocal overall general mean acoustic male female adult young own final basic main spoken "
    "clear thin harsh tense firm bright warm light crisp steady smooth calm hoarse rough even "
    "sharp shaky human rushed fundamental older elderly little old tender timid delicate whole "
    "last entire breathy shaky airy raspy husky gravelly heavy weary angry happy tiny hard cold "
    "cool dark thick dry plain sweet bitter mild stern curt terse blunt lovely steely wobbly "
    "fragile brittle nasal stable unstable"
)

NEGATIONS = words(
    "not no never hardly scarcely barely without neither nor nobody nothing none lacks lacking rarely seldom"
)
HYPOTHETICALS = words(
    "if would expect expected normally ordinarily usually typically "
    "generally often unlike people than rule_out"
)
"""Words after which a clause speaks of what might be or commonly is, not of this recording."""
PERSONS = words("man woman men women male female males females adult adults him her")
"""Persons: a level "typical of" one of these is normal; "typical of" others (an angry speaker, sadness)
states no level."""
STARTS = words("start starts starting started begins begin beginning began opens opening initially")
ENDS = words("end ends ending finishes closes finish ended closing concludes finishing finally")
