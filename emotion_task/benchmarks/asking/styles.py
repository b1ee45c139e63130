"""Styles of asking: the prompt that a model was trained for, and the reading of its answer.

A style is one entry of `STYLES`; one of your own is named as `package.module:NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from emotion_task.benchmarks.reading.questions import Benchmark, Question
from emotion_task.labels import EMOTIONS
from emotion_task.parsing import named_emotions, normalise_label
from emotion_task.prompt import EMOTION_QUESTION, SYSTEM_PROMPT, Messages
from rlcore.config.targets import load_named
from rlcore.errors import ConfigError
from rlcore.rewards.choices import read_choice
from rlcore.rewards.extraction import final_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style says in which words models of one kind are asked."""

    system: str | None
    """The system turn; None leaves it out."""
    emotion: str
    """The user's turn that asks the emotion, with `{options}`."""
    choice: str | None
    """The user's turn of multiple choice, with `{question}` and `{choices}`; None: the benchmark owner's."""
    options: Mapping[str, str] | None = None
    """Our label by the option that the model knows, in the order of the prompt; None: the classes of the
    benchmark itself."""
    trims_silence: bool = False
    """Cuts silence off emotional speech, as this project's training does, unless the model's preprocessor
    says otherwise. Other recordings are heard whole."""
    max_tokens: int
    """Longest answer, in tokens."""


_REASONED_CHOICE = "{question}\nChoose one of:\n{choices}"

STYLES: Mapping[str, Style] = {
    "think": Style(
        system=SYSTEM_PROMPT,
        emotion=EMOTION_QUESTION,
        choice=_REASONED_CHOICE,
        trims_silence=True,
        max_tokens=512,
    ),
    "plain": Style(
        system=None, emotion=f"{EMOTION_QUESTION} Answer with one word.", choice=None, max_tokens=64
    ),
    # The published checkpoint ddwang2000/EmotionThinker, asked as in its authors' emotionthinker_infer.py
    # (github.com/dingdongwang/EmotionThinker, scripts/): `<audio>` is text, and stands behind the recording.
    "emotionthinker": Style(
        system="A conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it. The assistant first thinks about the reasoning process in the mind and then provides "
        "the user with the answer. The reasoning process and answer are enclosed within <think> </think> and "
        "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think><answer> answer "
        "here </answer>.",
        emotion="<audio>What is the emotion expressed in this audio clip? Please choose one from the "
        "following options: {options}.",
        choice="<audio>" + _REASONED_CHOICE,
        options={"contempt or disgust" if label == "disgust" else label: label for label in EMOTIONS},
        max_tokens=2048,
    ),
}
"""Styles by name: `think` is the prompt of this project's training, `plain` the benchmark owner's own without
a system turn, `emotionthinker` that of the published EmotionThinker."""


def find_style(name: str) -> Style:
    """Returns the style of one of `STYLES`, or of `package.module:NAME`.

    Raises:
        ConfigError: the name is not known, or names something else.
    """
    if ":" in name:
        style = load_named(name, key="style", form="package.module:NAME")
    elif name in STYLES:
        style = STYLES[name]
    else:
        raise ConfigError(
            f"style {name!r}: not known; allowed are {', '.join(STYLES)}, and your own as package.module:NAME"
        )
    if not isinstance(style, Style):
        raise ConfigError(f"style {name!r}: is no emotion_task.benchmarks.asking.styles.Style")
    return style


def question_messages(style: Style, benchmark: Benchmark, question: Question) -> Messages:
    """Returns the conversation that asks a question; the recording goes where `audio` stands."""
    if benchmark.asks_emotion:
        text = style.emotion.format(options=", ".join(style.options or question.choices))
    else:
        choices = "\n".join(
            f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, question.choices, strict=False)
        )
        text = (style.choice or benchmark.prompt).format(question=question.text, choices=choices)
    system: Messages = []
    if style.system is not None:
        system = [{"role": "system", "content": [{"type": "text", "text": style.system}]}]
    return [*system, {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": text}]}]


def can_be_right(style: Style, benchmark: Benchmark, question: Question) -> bool:
    """Tells whether the prompt offers the right answer: a style with options of its own may not."""
    offered = style.options.values() if benchmark.asks_emotion and style.options else question.choices
    return question.answer is None or question.answer in offered


def read_answer(style: Style, benchmark: Benchmark, question: Question, text: str) -> str | None:
    """Returns the choice that a completion answers with; None where it cannot be read.

    An emotion is the label itself, in any form (`Angry.`, `anger`), or the only one that the answer names.
    It may be one that the prompt offers and the benchmark does not have.
    """
    if not benchmark.asks_emotion:
        index = read_choice(text, question.choices)
        return None if index is None else question.choices[index]
    part = final_part(text)
    labels = tuple(dict.fromkeys([*question.choices, *(style.options or {}).values()]))
    if (label := normalise_label(part, labels)) is not None:
        return label
    if named := set(named_emotions(part, labels)):
        return named.pop() if len(named) == 1 and named <= set(labels) else None
    index = read_choice(part, labels)
    return None if index is None else labels[index]
