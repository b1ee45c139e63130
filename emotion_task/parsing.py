"""Reading a response: the strict schema, and the label inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from emotion_task.labels import ALL_LABELS

_RESPONSE = re.compile(r"\s*<think>(?P<think>.+?)</think>\s*<answer>(?P<answer>.+?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")

QUOTE = re.compile(
    r"[\"\u201c]([^\"\u201c\u201d]*)[\"\u201d]|(?<![\w'])['\u2018]((?:[^'\u2019\u2018\n]|\n(?!\s*\n)|(?<=\w)['\u2019](?=\w))+)['\u2019](?!\w)"
)
"""A quotation in either kind of marks; an apostrophe inside a word ends none."""

ALIASES: dict[str, tuple[str, ...]] = {
    "neutral": ("neutrality",),
    "happy": ("happiness", "joy", "joyful", "cheerful", "glad"),
    "sad": ("sadness", "sorrow", "sorrowful", "unhappy"),
    "angry": ("anger", "mad", "furious"),
    "disgust": ("disgusted", "contempt", "contemptuous", "contempt or disgust", "disgust or contempt"),
    "confused": ("confusion", "puzzled"),
    "whisper": ("whispering", "whispered", "whispers"),
    "surprise": ("surprised", "astonished", "astonishment"),
    "fear": ("fearful", "afraid", "scared", "frightened"),
    "calm": ("calmness",),
}
"""Other words that are read as a label, by label."""

_LABEL_OF = {word: label for label, words in ALIASES.items() for word in (label, *words)}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed response is one that follows the schema."""

    think: str
    """Reasoning inside `<think>`, stripped."""
    answer: str
    """Text inside `<answer>`, stripped, not yet read as a label."""


def parse_response(text: str) -> Parsed | None:
    """Returns the parts of `<think>...</think><answer>...</answer>`, or None where the text is anything else:
    text before, between or after, an empty or repeated part, a tag inside a part. White space around the
    parts is allowed."""
    match = _RESPONSE.fullmatch(text)
    if match is None:
        return None
    think, answer = match["think"].strip(), match["answer"].strip()
    if not think or not answer or _TAG.search(think) or _TAG.search(answer):
        return None
    return Parsed(think, answer)


def format_response(think: str, answer: str) -> str:
    """Returns the response that `parse_response` reads back as `think` and `answer`."""
    return f"<think>{think}</think><answer>{answer}</answer>"


def normalise_label(text: str, labels: Sequence[str] = ALL_LABELS) -> str | None:
    """Returns the label that `text` names, whatever its case, punctuation or listed alias; None if it names
    none of `labels`. The whole text must be the label: a sentence that mentions one is not an answer."""
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    if words in labels:
        return words
    label = _LABEL_OF.get(words)
    return label if label in labels else None


def named_emotions(text: str, labels: Sequence[str] = ALL_LABELS) -> list[str]:
    """Returns the labels that free text names, in their order of appearance, quoted speech left out. Beside
    `labels` and their aliases it finds those of `ALL_LABELS`: an emotion that is no option is still one."""
    label_of, pattern = _emotion_words(tuple(labels))
    return [label_of[word] for word in pattern.findall(QUOTE.sub(" ", text.lower()))]


def around_emotion(sentence: str, labels: Sequence[str] = ALL_LABELS) -> tuple[str, str] | None:
    """Returns what stands before and after the first emotion that a sentence names; None where it names none,
    or quotes."""
    found = None if QUOTE.search(sentence) else _emotion_words(tuple(labels))[1].search(sentence.lower())
    return None if found is None else (sentence[: found.start()].rstrip(), sentence[found.end() :])


@lru_cache(maxsize=32)
def _emotion_words(labels: tuple[str, ...]) -> tuple[Mapping[str, str], re.Pattern[str]]:
    label_of = _LABEL_OF | {label: label for label in labels}
    words = sorted(map(re.escape, label_of), key=len, reverse=True)
    return label_of, re.compile(rf"\b({'|'.join(words)})\b")
