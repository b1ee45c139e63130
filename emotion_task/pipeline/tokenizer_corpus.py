"""The texts on which the tiny model's tokenizer is trained.

Lists what every template of this package can write. Knows no tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emotion_task.cot.template import all_phrases
from emotion_task.labels import ALL_LABELS
from emotion_task.prompt import (
    ATTRIBUTE_QUESTIONS,
    ATTRIBUTE_SYSTEM_PROMPT,
    EMOTION_QUESTION,
    MELODY_QUESTION,
    PROFILE_QUESTION,
    SYSTEM_PROMPT,
)
from emotion_task.reward_model.grades import judge_texts


def tokenizer_corpus(labels: Sequence[str] = ()) -> Iterator[str]:
    """Yields every text that this package's templates can produce, to train a small tokenizer on, with
    `labels` beside ours.

    Digits come one by one: the reward model's scores must stay single tokens.
    """
    every_label = tuple(dict.fromkeys((*ALL_LABELS, *labels)))
    yield from (
        SYSTEM_PROMPT,
        ATTRIBUTE_SYSTEM_PROMPT,
        EMOTION_QUESTION.format(options=", ".join(every_label)),
    )
    yield from ("system", "user", "assistant", "Audio 1: ", "\n", *"0123456789")
    for question, options in ATTRIBUTE_QUESTIONS.values():
        yield f"{question} Choose one of: {', '.join(options)}."
        yield from options
    yield from (
        MELODY_QUESTION,
        PROFILE_QUESTION,
        "-",
        "pitch, energy, rate, intonation, gender male, gender female",
    )
    for label in every_label:
        yield from (label, f" {label}", f"<think>.</think><answer>{label}</answer>")
    yield from all_phrases(every_label)
    yield from judge_texts()
