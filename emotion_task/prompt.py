"""The questions that the model is asked: chat messages of every question.

The wording follows EmotionThinker (system prompt: think inside `<think>`, answer inside `<answer>`; user
turn: the audio, then the question and its options) and is short, so that a tiny model can learn on it as
well. Knows no tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

from emotion_task.records import AGE_LEVELS
from rlcore.models.chat_template import Messages

SYSTEM_PROMPT = "Listen. Think inside <think> </think>, then answer inside <answer> </answer>."
ATTRIBUTE_SYSTEM_PROMPT = "Listen and answer with one word."

EMOTION_QUESTION = "What is the emotion of the speaker? Choose one of: {options}."

ATTRIBUTE_QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pitch_level": ("How high is the pitch?", ("low", "normal", "high", "none")),
    "energy_level": ("How loud is the voice?", ("low", "normal", "high")),
    "speed_level": ("How fast is the speech?", ("slow", "normal", "fast")),
    "intonation": (
        "What is the intonation?",
        ("rising", "falling", "rising-falling", "falling-rising", "flat", "expressive"),
    ),
}
"""Questions and options of the perception test by attribute. `none` answers where no pitch is heard."""

SPEAKER_QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "age_level": ("How old is the speaker?", tuple(AGE_LEVELS)),
}
"""Questions and options about who speaks, by attribute: no part of the perception test."""

MELODY_QUESTION = "Write the melody of the voice: one digit from 0 to 9 each fifth of a second."
TRANSCRIPT_QUESTION = "Write what is said."
CAPTION_QUESTION = "Describe the voice in a sentence or two."
PROFILE_QUESTION = "Describe the voice in keywords: pitch, energy, rate, intonation, gender."
PROFILE_KEYWORDS = {
    "pitch_level": "pitch",
    "energy_level": "energy",
    "speed_level": "rate",
    "intonation": "intonation",
    "gender": "gender",
}
"""Keywords by which the profile names the attributes, in the profile's order."""
STRESS_QUESTION = "Which word is stressed? Choose one of: {words}."
ORDER_QUESTION = "Three versions of one utterance follow each other. Order them by {attribute}: {levels}."
ORDER_LEVELS: dict[str, tuple[str, str, str]] = {
    "pitch": ("low", "normal", "high"),
    "energy": ("low", "normal", "high"),
    "rate": ("slow", "normal", "fast"),
}
"""Attributes in which three versions of one utterance may differ, each with its words from low to high."""


def emotion_messages(labels: Sequence[str], *, video: bool = False) -> Messages:
    """Returns the conversation that asks for reasoning and one of `labels`; the audio goes where `audio`
    stands, and a video in front of it where `video` is asked for."""
    system, user = audio_messages(SYSTEM_PROMPT, EMOTION_QUESTION.format(options=", ".join(labels)))
    return [system, {**user, "content": [{"type": "video"}, *user["content"]]} if video else user]


def attribute_messages(attribute: str) -> Messages:
    """Returns the conversation that asks for one attribute of `ATTRIBUTE_QUESTIONS` or
    `SPEAKER_QUESTIONS`."""
    question, options = {**ATTRIBUTE_QUESTIONS, **SPEAKER_QUESTIONS}[attribute]
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, f"{question} Choose one of: {', '.join(options)}.")


def profile_messages() -> Messages:
    """Returns the conversation that asks for all levels at once, as a list of `attribute value` pairs."""
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, PROFILE_QUESTION)


def melody_messages() -> Messages:
    """Returns the conversation that asks for the pitch of each fifth of a second."""
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, MELODY_QUESTION)


def stress_messages(words: Sequence[str]) -> Messages:
    """Returns the conversation that asks which of the utterance's words stands out."""
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, STRESS_QUESTION.format(words=", ".join(words)))


def order_messages(attribute: str) -> Messages:
    """Returns the conversation that asks for the order of three versions by one attribute of
    `ORDER_LEVELS`."""
    question = ORDER_QUESTION.format(attribute=attribute, levels=", ".join(ORDER_LEVELS[attribute]))
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, question)


def transcript_messages() -> Messages:
    """Returns the conversation that asks for the words."""
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, TRANSCRIPT_QUESTION)


def caption_messages() -> Messages:
    """Returns the conversation that asks for a description of the voice."""
    return audio_messages(ATTRIBUTE_SYSTEM_PROMPT, CAPTION_QUESTION)


def audio_messages(system: str, text: str) -> Messages:
    """Returns a system turn with the text `system`, then a user turn of one audio and `text`."""
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": text}]},
    ]
