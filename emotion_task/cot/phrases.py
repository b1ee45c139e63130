"""Lists the wording of template traces: how each fact may be said, as a clause or as a noun phrase.

`emotion_task.claims.finder` must find exactly the fact that a phrase states; a property test writes and reads
all of them. The vocabulary is small on purpose; the order and the choice of phrases vary.
"""

from __future__ import annotations

_Words = dict[str, tuple[str, ...]]

_PITCH: _Words = {"low": ("low", "deep"), "normal": ("normal", "medium"), "high": ("high", "raised")}
_ENERGY: _Words = {"low": ("low", "weak"), "normal": ("normal", "medium"), "high": ("high", "strong")}
_LOUDNESS: _Words = {"low": ("quiet", "soft"), "high": ("loud",)}
_SPEED: _Words = {"slow": ("slow",), "normal": ("normal", "medium"), "fast": ("fast", "quick")}
_CONTOUR: dict[str, tuple[str, str]] = {
    "rising": ("rising", "rises"),
    "falling": ("falling", "falls"),
    "rising-falling": ("rising and then falling", "rises and then falls"),
    "falling-rising": ("falling and then rising", "falls and then rises"),
    "flat": ("flat", "stays flat"),
    "expressive": ("expressive", "is expressive"),
}


def _clauses() -> dict[tuple[str, str], tuple[str, ...]]:
    table: dict[tuple[str, str], tuple[str, ...]] = {("pitch_level", "none"): ("no pitch is heard",)}
    for value, words in _PITCH.items():
        table["pitch_level", value] = tuple(
            f"the pitch {verb} {w}" for w in words for verb in ("is", "sounds")
        )
    for value, words in _ENERGY.items():
        loudness = tuple(f"the voice is {w}" for w in _LOUDNESS.get(value, ()))
        table["energy_level", value] = tuple(f"the energy is {w}" for w in words) + loudness
    for value, words in _SPEED.items():
        table["speed_level", value] = tuple(
            f"the {noun} is {w}" for w in words for noun in ("speech", "rate")
        )
    for value, (adjective, verb) in _CONTOUR.items():
        table["intonation", value] = (f"the intonation is {adjective}", f"the melody {verb}")
    return table


def _noun_phrases() -> dict[tuple[str, str], tuple[str, ...]]:
    table: dict[tuple[str, str], tuple[str, ...]] = {("pitch_level", "none"): ("no pitch",)}
    for value, words in _PITCH.items():
        table["pitch_level", value] = tuple(f"a {w} pitch" for w in words)
    for value, words in _ENERGY.items():
        loudness = tuple(f"a {w} voice" for w in _LOUDNESS.get(value, ()))
        table["energy_level", value] = tuple(f"{w} energy" for w in words) + loudness
    for value, words in _SPEED.items():
        table["speed_level", value] = tuple(f"{w} speech" for w in words) + tuple(
            f"a {w} rate" for w in words
        )
    for value, (adjective, _) in _CONTOUR.items():
        article = "an" if adjective[0] in "aeiou" else "a"
        table["intonation", value] = (f"{adjective} intonation", f"{article} {adjective} melody")
    return table


CLAUSES = _clauses()
"""Clauses that state each (attribute, value), in lower case, without a full stop."""

NOUN_PHRASES = _noun_phrases()
"""Noun phrases that state each (attribute, value)."""

GENDER = {
    "male": ("A man speaks.", "The speaker is a man.", "This is a male voice."),
    "female": ("A woman speaks.", "The speaker is a woman.", "This is a female voice."),
}

AGE = {
    "child": ("The speaker is a child.", "This is the voice of a child."),
    "young": ("The speaker sounds young.", "This is a young voice."),
    "middle-aged": ("The speaker sounds middle-aged.", "This is a middle-aged voice."),
    "elderly": ("The speaker sounds elderly.", "This is an elderly voice."),
}

QUOTES = ('The words are "{words}".', 'The speaker says "{words}".', 'I hear the words "{words}".')

CONCLUSIONS: _Words = {
    "short": ("So the emotion is {label}.", "This points to {label}.", "All of this fits {label}."),
    "long": (
        "Taken together, {first} and {second} point to {label}.",
        "Heard with such delivery, {first} and {second} make {label} the most likely emotion.",
        "Of the possible emotions, {label} explains {first} and {second} best.",
    ),
}
"""Sentences that name the emotion, by style; `first` and `second` are noun phrases of stated facts."""

FRAMES: dict[str, dict[int, tuple[str, ...]]] = {
    "short": {
        1: ("{c0}.", "There is {n0}."),
        2: ("{c0} and {c1}.", "{c0} with {n1}.", "I hear {n0} and {n1}."),
    },
    "long": {
        1: (
            "Listening to the delivery, {c0}.",
            "One notices {n0} from the start.",
            "What stands out is {n0}.",
        ),
        2: (
            "Throughout the utterance {c0}, while {c1}.",
            "The delivery combines {n0} with {n1}.",
            "Beside {n0}, one hears {n1}.",
        ),
    },
}
"""Sentences that hold one or two facts, by style and number of facts: `c` is a clause, `n` a noun phrase."""
