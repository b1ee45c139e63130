"""Words by which English reasoning states prosody: nouns of attributes, and levels that go with them."""

from __future__ import annotations

NOUNS: dict[str, str] = {
    **dict.fromkeys(("pitch", "f0", "register"), "pitch_level"),
    **dict.fromkeys(("energy", "loudness", "volume", "intensity"), "energy_level"),
    **dict.fromkeys(("rate", "speed", "pace", "tempo"), "speed_level"),
    **dict.fromkeys(("speech", "speaks", "speaking", "talks", "talking", "speak", "delivery"), "speed_level"),
    **dict.fromkeys(("intonation", "contour", "melody", "tone", "inflection"), "intonation"),
    **dict.fromkeys(("voice", "voices"), "voice"),
}
"""Noun to its attribute. `voice` belongs to none, but carries some adjectives (a deep voice, a loud
voice)."""

SPEECH_NOUNS = frozenset({"speech", "speaks", "speaking", "talks", "talking", "speak", "delivery"})
"""Nouns of rate that no high or low describes (low speech is quiet, not slow)."""

_HIGH = ("high", "higher", "raised", "elevated")
_LOW = ("low", "lower", "lowered")
_NORMAL = ("normal", "medium", "moderate", "average", "ordinary", "middle")

LEVELS: dict[str, dict[str, str]] = {
    "pitch_level": {
        **dict.fromkeys(_HIGH, "high"),
        **dict.fromkeys((*_LOW, "deep", "deeper"), "low"),
        **dict.fromkeys(_NORMAL, "normal"),
    },
    "energy_level": {
        **dict.fromkeys((*_HIGH, "strong", "great", "loud"), "high"),
        **dict.fromkeys((*_LOW, "weak", "little", "soft", "quiet", "faint"), "low"),
        **dict.fromkeys(_NORMAL, "normal"),
    },
    "speed_level": {
        **dict.fromkeys((*_HIGH, "fast", "quick", "rapid", "brisk", "hurried"), "fast"),
        **dict.fromkeys((*_LOW, "slow", "unhurried"), "slow"),
        **dict.fromkeys(_NORMAL, "normal"),
    },
    "intonation": {
        **dict.fromkeys(("rising", "rises", "rise", "upward"), "rising"),
        **dict.fromkeys(("falling", "falls", "fall", "downward"), "falling"),
        **dict.fromkeys(("flat", "monotone", "monotonous", "level"), "flat"),
        **dict.fromkeys(("expressive", "varied"), "expressive"),
        "rising-falling": "rising-falling",
        "falling-rising": "falling-rising",
    },
    "voice": {},
}
"""Attribute to the words that, said of it, state a level."""

ALONE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("loud", "loudly", "louder"), ("energy_level", "high")),
    **dict.fromkeys(
        ("quiet", "quietly", "quieter", "soft", "softly", "softer", "faint"), ("energy_level", "low")
    ),
    "normally-loud": ("energy_level", "normal"),
    **dict.fromkeys(("fast", "faster", "quick", "quickly", "rapid", "rapidly"), ("speed_level", "fast")),
    **dict.fromkeys(("slow", "slowly", "slower"), ("speed_level", "slow")),
    "normally-fast": ("speed_level", "normal"),
    **dict.fromkeys(("deep", "deeper"), ("pitch_level", "low")),
    **{
        w: ("intonation", v)
        for w, v in LEVELS["intonation"].items()
        if w not in ("expressive", "varied", "level")
    },
}
"""Words that state a level whether or not the attribute is named."""

GENDERS: dict[str, str] = {
    **dict.fromkeys(("man", "male", "he", "his", "him", "boy", "gentleman"), "male"),
    **dict.fromkeys(("woman", "female", "she", "her", "hers", "girl", "lady"), "female"),
}

# fmt: off
COPULAS = frozenset((
    "is", "are", "was", "were", "sounds", "seems", "stays", "remains", "feels", "appears", "be",
))
ADVERBS = frozenset((
    "very", "quite", "rather", "fairly", "somewhat", "really", "slightly", "clearly", "so", "too",
    "relatively", "a", "an", "the",
))
NEGATIONS = frozenset((
    "not", "no", "never", "hardly", "without", "neither", "nor", "cannot", "isn't", "doesn't", "don't",
    "aren't", "wasn't", "can't",
))
# fmt: on

OPPOSITES: dict[frozenset[str], str] = {
    frozenset(("high", "low")): "normal",
    frozenset(("high", "deep")): "normal",
    frozenset(("strong", "weak")): "normal",
    frozenset(("loud", "quiet")): "normally-loud",
    frozenset(("loud", "soft")): "normally-loud",
    frozenset(("fast", "slow")): "normally-fast",
    frozenset(("quick", "slow")): "normally-fast",
}
"""What "neither A nor B" amounts to."""
