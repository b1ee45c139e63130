"""Questions as every benchmark's reader lists them; and the walk of a reader: keep, or leave out and count.

Nothing of the owner's is renamed or moved. A row that cannot be asked or graded is left out, by reason; a
file of another form is an error that says what was expected.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlcore.errors import DataError
from rlcore.records.files import numbered_rows, open_text
from rlcore.rewards.choices import read_choice

PLAIN_CHOICE = (
    "{question}\nChoose one of:\n{choices}\nAnswer with the letter of the right choice and nothing else."
)
"""Turn of a benchmark whose owner publishes no prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question is about one recording, and has choices."""

    id: str
    """Name of the question, unique in its benchmark."""
    audio: str
    """Absolute path of the recording."""
    text: str = ""
    """The question in the owner's words; empty for the emotion of a speaker, which the prompt asks."""
    choices: tuple[str, ...]
    """The choices in the owner's order, without letters; the classes where the emotion is asked."""
    answer: str | None
    """The right one of `choices`; None where the owner keeps the answers."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Kinds of the question that get figures of their own: `{"task": "sound", "difficulty": "easy"}`."""
    words: str | None = None
    """The emotion that the sentence's words alone say, where the corpus tells; never neutral."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The owner's row, where the owner's own script reads predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The questions of a benchmark, and what was left out of it."""

    questions: tuple[Question, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of rows left out, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark is a function that reads its owner's files, and the way in which its owner asks."""

    load: Callable[[Path, str], Questions]
    """Lists the questions of a folder (or file) and a split, `eval` or `all`. Benchmarks that are there for
    measuring alone have no other split, and give all questions."""
    asks_emotion: bool = False
    """Says that all questions ask the speaker's emotion: then unweighted accuracy, F1 and recall count."""
    prompt: str = PLAIN_CHOICE
    """The user's turn, with `{question}` and `{choices}`, as the owner writes it for models that answer at
    once."""
    prediction_key: str | None = None
    """Key under which the owner's own script wants a model's text in the owner's rows; None: no such
    script."""


class Reading:
    """A reading collects a benchmark's questions, and counts what is left out."""

    def __init__(self, name: str, path: Path, layout: str):
        self.name, self.path, self.layout = name, path, layout
        self.questions: dict[str, Question] = {}
        self.left_out: Counter[str] = Counter()

    def add(
        self,
        id: str,
        audio: Path,
        *,
        text: str,
        choices: Sequence[str],
        answer: str | None,
        groups: Mapping[str, object],
        row: Mapping[str, Any] | None = None,
    ) -> None:
        """Keeps a question of multiple choice, unless its recording is missing, it has no two different
        choices, its answer is none of them, or another one has its id."""
        right = None if answer is None else _same_choice(answer, choices)
        if id in self.questions:
            self.left_out["listed twice"] += 1
        elif not audio.is_file():
            self.left_out["no recording"] += 1
        elif len(set(choices)) < 2:
            self.left_out["fewer than two choices"] += 1
        elif answer is not None and right is None:
            self.left_out["the answer is none of the choices"] += 1
        else:
            self.questions[id] = Question(
                id=id,
                audio=str(audio.resolve()),
                text=text,
                choices=tuple(choices),
                answer=right,
                groups={kind: str(value) for kind, value in groups.items() if value not in (None, "")},
                row=row or {},
            )

    def done(self) -> Questions:
        """Returns the questions.

        Raises:
            DataError: there are none; says what was left out, and the layout that was expected.
        """
        return checked(
            Questions(questions=tuple(self.questions.values()), left_out=dict(self.left_out)),
            self.name,
            self.path,
            self.layout,
        )


def checked(found: Questions, name: str, path: Path, layout: str) -> Questions:
    """Returns the questions, unless there are none.

    Raises:
        DataError: there are none; says what was left out, and the layout that was expected.
    """
    if not found.questions:
        left_out = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items()) or "nothing"
        raise DataError(f"{path}: no question of {name} can be asked (left out: {left_out}). {layout}")
    return found


def _same_choice(answer: str, choices: Sequence[str]) -> str | None:
    """Returns the choice that the owner's answer is, letter or text, however it is written."""
    if answer in choices:
        return answer
    index = read_choice(answer, choices)
    return None if index is None else choices[index]


def find_list(path: Path, names: Sequence[str], layout: str) -> Path:
    """Returns the owner's list: `path` itself where it is a file, else the first of `names` below it.

    Raises:
        DataError: there is none; says what was expected.
    """
    if path.is_file():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        what = f"no {' or '.join(names)} here" if path.is_dir() else "no such file or folder"
        raise DataError(f"{path}: {what}. {layout}")
    return found


def listed_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and content of each row of a JSON list, or of JSON lines (`.jsonl`).

    Raises:
        DataError: no JSON, or no list of objects; names the file and the row.
    """
    if path.suffix == ".jsonl":
        yield from ((f"{path}:{number}", row) for number, row in numbered_rows(path, "a question"))
        return
    with open_text(path) as file:
        try:
            rows = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list of questions is expected, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: question {index}: an object is expected, got {str(row)[:80]!r}")
        yield f"{path}: question {index}", row


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """Returns the text of a key; numbers become text.

    Raises:
        DataError: the row has no such key, or no text there; names what the row has.
    """
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise DataError(f"{where}: {key!r} must be text, got {value!r}; the row has {sorted(row)}")
    return str(value)


def texts_of(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """Returns the texts of a list.

    Raises:
        DataError: the row has no list of texts there; names what the row has.
    """
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str | int | float) for each in value):
        raise DataError(f"{where}: {key!r} must be a list of texts, got {value!r}; the row has {sorted(row)}")
    return [str(each) for each in value]
