"""Reads and writes the file between data and job: a supervised example per line, its prompt formatted for one
model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rlcore.errors import DataError
from rlcore.models.chat_template import Messages, format_prompt
from rlcore.models.tokens import left_to_write
from rlcore.records.files import numbered_rows, write_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Holds one recording, what is asked about the recording, and what the model shall say."""

    id: str
    audio: str | None
    """Absolute path of the recording; None for text alone."""
    prompt: str
    """Chat-formatted prompt, with one audio placeholder where there is audio."""
    target: str
    complete: bool = True
    """True where the end-of-turn token follows the target."""
    emphasis: str | None = None
    """A word of the target whose tokens weigh `weight` in the loss; all other tokens weigh 1."""
    weight: float = 1.0


class Question(Protocol):
    """Declares what `SFTExample` and `GradedExample` have in common."""

    @property
    def id(self) -> str: ...
    @property
    def audio(self) -> str | None: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def target(self) -> str: ...


def format_examples(processor: Any, questions: Iterable[Question], weight: float = 1.0) -> list[Example]:
    """Renders questions with a processor's chat template. A target begins after the tag that the template has
    opened (`<think>`), as an answer does in the rollout.

    Args:
        weight: weight in the loss of the tokens of each question's `emphasis`.
    """
    examples = []
    for question in questions:
        prompt = format_prompt(processor, question.messages)
        examples.append(
            Example(
                id=question.id,
                audio=question.audio,
                prompt=prompt,
                target=left_to_write(prompt, question.target),
                complete=getattr(question, "complete", True),
                emphasis=getattr(question, "emphasis", None),
                weight=weight,
            )
        )
    return examples


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    write_rows(path, map(asdict, examples))


def read_examples(path: str | Path) -> list[Example]:
    """Reads the examples that `write_examples` wrote.

    Raises:
        DataError: A line is not an example; the message names file and line.
    """
    examples = []
    for number, row in numbered_rows(path, "a supervised example"):
        try:
            examples.append(Example(**row))
        except TypeError as error:
            raise DataError(f"{path}:{number}: not a supervised example: {error}") from error
    return examples
