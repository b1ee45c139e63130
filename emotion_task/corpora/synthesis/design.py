"""Designs: the sound that each utterance of the synthetic corpus shall have, drawn from a seed. No audio
here.

An emotion is a Gaussian over six prosodic dimensions and a distribution over pitch contours. The
Gaussians overlap, and the more so the larger `spread`: a classifier on measured prosody shall be
right often, never always. The words sometimes agree with the voice, sometimes contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_task.corpora.synthesis import spoken_texts
from emotion_task.labels import EMOTIONS

CONTOURS = ("flat", "falling", "rising", "rising-falling", "falling-rising")


@dataclass(frozen=True, slots=True)
class EmotionProfile:
    """A profile is the centre of an emotion, relative to the speaker's habit."""

    level_st: float
    """Semitones from the speaker's own pitch."""
    range_st: float
    """Extent of the contour in semitones."""
    energy_db: float
    log_rate: float
    """Natural logarithm of the tempo factor."""
    tilt: float
    """First-difference coefficient: positive is bright (pressed voice), negative dull (slack voice)."""
    tremor_st: float
    """Amplitude of a 6 Hz pitch tremor."""
    contours: tuple[float, ...]
    """Probabilities over CONTOURS."""


PROFILES: dict[str, EmotionProfile] = {
    "neutral": EmotionProfile(0.0, 3.5, 0, 0.00, 0.00, 0.15, (0.25, 0.60, 0.05, 0.07, 0.03)),
    "happy": EmotionProfile(3.5, 7.5, 3, 0.10, 0.15, 0.15, (0.03, 0.12, 0.10, 0.65, 0.10)),
    "sad": EmotionProfile(-2.5, 2.2, -6, -0.24, -0.35, 0.30, (0.35, 0.58, 0.02, 0.03, 0.02)),
    "angry": EmotionProfile(2.0, 6.5, 7, 0.14, 0.45, 0.15, (0.05, 0.78, 0.04, 0.10, 0.03)),
    "disgust": EmotionProfile(-2.2, 6.0, 1, -0.20, 0.10, 0.20, (0.05, 0.45, 0.03, 0.42, 0.05)),
    "confused": EmotionProfile(1.2, 5.5, -2, -0.14, -0.05, 0.15, (0.03, 0.03, 0.50, 0.04, 0.40)),
    "whisper": EmotionProfile(0.0, 3.5, -13, -0.08, 0.00, 0.15, (0.25, 0.45, 0.10, 0.10, 0.10)),
    "surprise": EmotionProfile(6.5, 11.0, 4, 0.04, 0.15, 0.15, (0.02, 0.06, 0.52, 0.32, 0.08)),
    "fear": EmotionProfile(5.0, 3.0, -1, 0.24, -0.05, 0.75, (0.35, 0.20, 0.25, 0.08, 0.12)),
}

# Standard deviations at spread 1: level (st), log2 range, energy (dB), log rate, tilt, tremor (st).
_DEVIATIONS = np.array([1.6, 0.40, 2.6, 0.10, 0.20, 0.15])

_WHISPERED_SHARE = 0.93
"""Share of the whisper class that is whispered; the rest is soft voice."""
_WHISPERED_OTHERS = {"sad": 0.05, "fear": 0.05}
"""Shares of other emotions that are whispered too."""

_NEUTRAL_WORDS, _CONGRUENT_WORDS = 0.70, 0.15
"""Shares of the text kinds; the remaining 0.15 conflicts with the voice."""

_FUNCTION_WORDS = (
    "a an and are at about by for from i in into is it its of on or so such that the there this to us "
    "was we what which who you your he her him his me my she they with will am do did had has have be"
)
"""Never stressed: the synthesiser runs them into their neighbours."""

_VOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "male": ("m1", "m2", "m3", "m5", "m6", "Diogo", "Andy", "Gene", "Michael"),
        "female": ("f1", "Annie", "shelby", "steph", "aunty", "belinda", "Jacky", "Alex", "Nguyen"),
    },
    "eval": {"male": ("m4", "m7", "Denis", "Lee"), "female": ("f4", "linda", "grandma", "max")},
}
"""espeak-ng variants. Those with `breath` (f2, f3, f5, Alicia, ...) read uninitialised memory and never
sound the same twice; m8, anika and Andrea crackle or ring. All of these are left out."""
_BASE_F0 = {"male": 115.0, "female": 200.0}


@dataclass(frozen=True, slots=True)
class Speaker:
    """A synthetic voice and its habits."""

    id: str
    voice: str
    """espeak-ng voice with variant."""
    gender: str
    f0_hz: float
    vocal_tract: float
    """Factor on formant frequencies."""
    gain_db: float
    log_rate: float


@dataclass(frozen=True, slots=True)
class Design:
    """One utterance as it is asked of the synthesiser."""

    id: str
    split: str
    speaker: Speaker
    emotion: str
    text: str
    text_emotion: str
    """Emotion that the words alone suggest."""
    level_st: float
    range_st: float
    energy_db: float
    log_rate: float
    tilt: float
    tremor_st: float
    contour: str
    whispered: bool
    stressed_word: int
    """Index into the words of `text`."""
    seed: int
    """Seed of the renderer's own noise."""


def draw_corpus(
    num_train: int, num_eval: int, seed: int, spread: float, emotions: Sequence[str] = EMOTIONS
) -> list[Design]:
    """Draws every utterance of both splits. Emotions, which `PROFILES` has, are balanced to within one
    utterance a split."""
    speakers = draw_speakers(seed)
    designs = []
    for split_index, (split, count) in enumerate((("train", num_train), ("eval", num_eval))):
        order = np.random.default_rng([seed, split_index])
        labels = order.permutation(np.arange(count) % len(emotions))
        for index in range(count):
            rng = np.random.default_rng([seed, split_index, index])
            emotion = emotions[labels[index]]
            designs.append(_draw_one(rng, f"{split}-{index:05d}", split, speakers[split], emotion, spread))
    return designs


def draw_speakers(seed: int) -> dict[str, list[Speaker]]:
    """Draws the speakers of each split: the voices are fixed and disjoint, their habits come from the
    seed."""
    rng = np.random.default_rng([seed, 1000])
    speakers: dict[str, list[Speaker]] = {}
    for split, by_gender in _VOICES.items():
        speakers[split] = [
            Speaker(
                id=voice,
                voice=f"en-us+{voice}",
                gender=gender,
                f0_hz=_BASE_F0[gender] * 2 ** (rng.uniform(-2.5, 2.5) / 12),
                vocal_tract=rng.uniform(0.95, 1.05),
                gain_db=rng.normal(0, 1.0),
                log_rate=rng.normal(0, 0.06),
            )
            for gender, voices in by_gender.items()
            for voice in voices
        ]
    return speakers


def _draw_one(
    rng: np.random.Generator, id: str, split: str, speakers: list[Speaker], emotion: str, spread: float
) -> Design:
    profile = PROFILES[emotion]
    centre = np.array(
        [
            profile.level_st,
            math.log2(profile.range_st),
            profile.energy_db,
            profile.log_rate,
            profile.tilt,
            profile.tremor_st,
        ]
    )
    drawn = centre + rng.normal(size=6) * _DEVIATIONS * spread
    contours = np.array(profile.contours) + 0.02 * spread
    text, text_emotion = _draw_text(rng, split, emotion)
    whispered_share = _WHISPERED_SHARE if emotion == "whisper" else _WHISPERED_OTHERS.get(emotion, 0.0)
    return Design(
        id=id,
        split=split,
        speaker=speakers[int(rng.integers(len(speakers)))],
        emotion=emotion,
        text=text,
        text_emotion=text_emotion,
        level_st=float(drawn[0]),
        range_st=float(2 ** drawn[1]),
        energy_db=float(drawn[2]),
        log_rate=float(drawn[3]),
        tilt=float(drawn[4]),
        tremor_st=float(abs(drawn[5])),
        contour=CONTOURS[int(rng.choice(len(CONTOURS), p=contours / contours.sum()))],
        whispered=bool(rng.random() < whispered_share),
        stressed_word=_draw_stress(rng, text),
        seed=int(rng.integers(2**31)),
    )


def _draw_stress(rng: np.random.Generator, text: str) -> int:
    """Index of a content word."""
    function_words = _FUNCTION_WORDS.split()
    content = [index for index, word in enumerate(text.split()) if word.lower() not in function_words]
    return content[int(rng.integers(len(content)))]


def _draw_text(rng: np.random.Generator, split: str, emotion: str) -> tuple[str, str]:
    texts = spoken_texts.TRAIN if split == "train" else spoken_texts.EVAL
    kind = rng.random()
    if kind < _NEUTRAL_WORDS or (emotion == "neutral" and kind < _NEUTRAL_WORDS + _CONGRUENT_WORDS):
        text_emotion = "neutral"
    elif kind < _NEUTRAL_WORDS + _CONGRUENT_WORDS:
        text_emotion = emotion
    else:
        others = [label for label in EMOTIONS if label not in (emotion, "neutral")]
        text_emotion = others[int(rng.integers(len(others)))]
    options = texts[text_emotion]
    return options[int(rng.integers(len(options)))], text_emotion
