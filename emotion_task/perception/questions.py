"""Makes the questions about a recording, and says which of the offered answers is right.

There are two forms. `single` asks for one attribute at a time, as the paper's test does: pitch, energy, rate,
intonation, stress. `profile` asks once for all that can be named (the first four, and gender) and chooses
each value after those that the model chose before. This form is for models that learnt the profile alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emotion_task.facts import stated_facts
from emotion_task.prompt import (
    ATTRIBUTE_QUESTIONS,
    PROFILE_KEYWORDS,
    Messages,
    attribute_messages,
    profile_messages,
    stress_messages,
)
from emotion_task.records import Utterance
from emotion_task.sft.stressed_word import stress_words

FORMS = ("single", "profile")
STRESS = "stress"
_GENDERS = ("male", "female")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Holds one attribute of one recording, to be chosen from options."""

    attribute: str
    """One of `pitch`, `energy`, `rate`, `intonation`, `stress` and `gender`."""
    options: tuple[str, ...]
    answer: str
    """The right option: the value that was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Holds one question and the choices that its answer consists of, in their order."""

    messages: Messages
    choices: tuple[Choice, ...]
    is_profile: bool
    """True where the answer is `pitch low, energy high, ...`, False where it is the bare option."""


def turns_of(utterance: Utterance, form: str) -> list[Turn]:
    """Returns the questions that this utterance's annotation can grade.

    Args:
        form: one of `FORMS`.
    """
    facts = stated_facts(utterance)
    if form == "profile":
        choices = tuple(
            Choice(attribute=keyword, options=_options(name), answer=facts[name])
            for name, keyword in PROFILE_KEYWORDS.items()
            if name in facts
        )
        return [Turn(messages=profile_messages(), choices=choices, is_profile=True)] if choices else []
    turns = [
        Turn(
            messages=attribute_messages(name),
            choices=(Choice(attribute=PROFILE_KEYWORDS[name], options=_options(name), answer=facts[name]),),
            is_profile=False,
        )
        for name in ATTRIBUTE_QUESTIONS
        if name in facts
    ]
    words = stress_words(utterance)
    if words is not None:
        options, answer = words
        choice = Choice(attribute=STRESS, options=options, answer=answer)
        turns.append(Turn(messages=stress_messages(options), choices=(choice,), is_profile=False))
    return turns


def is_graded(choice: Choice) -> bool:
    """Returns whether a choice counts.

    A whisper has no pitch level to be right about. That choice is asked, so that a profile goes on as it was
    learnt, but does not count."""
    return choice.answer != "none"


def attributes_of(turns: Sequence[Sequence[Turn]]) -> list[str]:
    """Returns the graded attributes that occur, in the order in which they are asked."""
    order = [*PROFILE_KEYWORDS.values(), STRESS]
    found = {c.attribute for of_one in turns for turn in of_one for c in turn.choices if is_graded(c)}
    return [attribute for attribute in order if attribute in found]


def _options(name: str) -> tuple[str, ...]:
    return _GENDERS if name == "gender" else ATTRIBUTE_QUESTIONS[name][1]
