"""Reads what the columns of a row mean: the question, its media, the right answer and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter, ascii_uppercase
from typing import Any

from rlcore.errors import ConfigError, DataError
from rlcore.records.files import finite, is_nan
from rlcore.rewards.extraction import choice_texts, right_letter
from rlcore.tasks.conversation import (
    KINDS,
    Place,
    Places,
    Turn,
    located,
    places_of,
    question_messages,
    read_messages,
)
from rlcore.tasks.sources import Row

ROLES = ("id", "prompt", "messages", "system", "answer", "choices", *KINDS.values())
"""What a column may be. A column of a role's name has that role, unless `columns` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question is a row as the model is asked it."""

    id: str
    where: str
    messages: Sequence[Turn]
    media: Mapping[str, Sequence[Place]]
    """Recordings (`audio`), images (`image`) and videos (`video`) that there are, in the conversation's
    order."""
    reference: Mapping[str, Any]
    """Right answer as `answer`, the choices, and the columns that have no role."""


class Columns:
    """Reads rows by the roles of their columns.

    Args:
        columns: column by role (`ROLES`), where they differ; null for a role that no column has.
        template: text of the question, with the names of columns in curly brackets.
        system: system turn in front of every conversation that has none.

    Raises:
        ConfigError: a role is unknown, the template is broken or shows the answer.
    """

    def __init__(
        self, columns: Mapping[str, str | None] | None, template: str | None, system: str | None
    ) -> None:
        given = dict(columns or {})
        if unknown := sorted(set(given) - set(ROLES)):
            raise ConfigError(f"task.args.columns: {unknown} are no roles; roles are {', '.join(ROLES)}")
        self._given = given
        self._column = {role: given.get(role, role) for role in ROLES}
        self._template, self._system = template, system
        self._met: set[str] = set()
        if template is not None:
            self._check_template(template)

    def _check_template(self, template: str) -> None:
        try:
            names = list(_columns_of(template))
        except ValueError as error:
            raise ConfigError(
                f"task.args.template: {error}; columns stand in {{curly brackets}}, others are doubled"
            ) from error
        if "" in names or any(name.isdigit() for name in names):
            raise ConfigError("task.args.template: {} names no column; write its name in the brackets")
        told = {
            "answer": "shows the model the right answer",
            "messages": "has messages in it; the template is for rows without them",
            **dict.fromkeys(KINDS.values(), "would write a path; recordings and pictures stand in front"),
        }
        for role, reason in told.items():
            if (column := self._column[role]) in names:
                raise ConfigError(f"task.args.template: {{{column}}} {reason}")

    def check_met(self) -> None:
        """Checks, after the last row, that each column that is named was there.

        Raises:
            ConfigError: one was in no row.
        """
        for role, column in self._given.items():
            if self._met and column is not None and column not in self._met:
                raise ConfigError(
                    f"task.args.columns.{role}: no row has a column {column!r}; there are {sorted(self._met)}"
                )

    def read(self, row: Row, root: Path) -> Question:
        """Returns a row's question.

        Args:
            root: folder that recordings and pictures are in.

        Raises:
            DataError: a column is missing or holds what its role cannot be; says which, what was found and
                the columns that there are.
        """
        if row.mistake is not None:
            raise DataError(row.mistake)
        self._met |= row.values.keys()
        values = {name: value for name, value in row.values.items() if not is_nan(value)}
        choices = self._value("choices", values)
        texts, labels = ([], []) if choices is None else self._choices(choices)
        column: Places = {kind: places_of(self._media(row, values, kind), kind, root) for kind in KINDS}
        messages, media, answer = self._messages(values, texts, column, root)
        id = self._value("id", values)
        if isinstance(id, bool) or not isinstance(id, str | int | None):
            raise DataError(f"column {self._column['id']!r} is {id!r}; an id is a text or a whole number")
        return Question(
            id=row.name if id is None else str(id),
            where=row.where,
            messages=messages,
            media={kind: places for kind, places in media.items() if places},
            reference=self._reference(values, answer, texts, labels),
        )

    def _value(self, role: str, values: Mapping[str, Any]) -> Any:
        """Returns what the column of a role holds; None where it has none.

        A column that is named, and others have, may be missing in a row that needs it: a question without
        its recording is another question."""
        column = self._column[role]
        if column is None or column in values:
            return None if column is None else values[column]
        if self._given.get(role) is not None and role not in ("id", "system"):
            raise _missing(column, values, f"task.args.columns.{role}")
        return None

    def _choices(self, choices: object) -> tuple[list[str], list[str]]:
        try:
            return choice_texts(choices)
        except DataError as error:
            told = f"column {self._column['choices']!r}: {error}; task.args.columns.choices=null reads none"
            raise DataError(told) from error

    def _media(self, row: Row, values: Mapping[str, Any], kind: str) -> Any:
        role = KINDS[kind]
        told = row.media_columns.get(kind)
        if self._column[role] not in values and role not in self._given and told in values:
            self._column[role] = told
        return self._value(role, values)

    def _messages(
        self, values: Mapping[str, Any], choices: Sequence[str], column: Places, root: Path
    ) -> tuple[list[Turn], Places, str | None]:
        answer = None
        messages = None if self._template is not None else self._value("messages", values)
        if messages is not None:
            turns, media, answer = read_messages(
                messages, column, lambda *named: located(named[0], root, named[1])
            )
        else:
            turns, media = question_messages(self._text(values, choices), column), column
        system = self._value("system", values) or self._system
        if system is not None and turns[0]["role"] not in ("system", "developer"):
            turns.insert(0, {"role": "system", "content": str(system)})
        return turns, media, answer

    def _text(self, values: Mapping[str, Any], choices: Sequence[str]) -> str:
        lettered = "\n".join(f"{ascii_uppercase[i]}. {text}" for i, text in enumerate(choices))
        if self._template is None:
            prompt = self._value("prompt", values)
            if prompt is None:
                told = "task.args.columns.prompt names the question's column, or task.args.template makes one"
                raise _missing(self._column["prompt"] or "prompt", values, told)
            if not isinstance(prompt, str):
                raise DataError(
                    f"column {self._column['prompt']!r} is {str(prompt)[:80]!r}; it must be a text"
                )
            return f"{prompt}\n{lettered}" if lettered else prompt
        roles = {"prompt": self._value("prompt", values), "choices": lettered or None}
        shown = {**values, **{role: value for role, value in roles.items() if value is not None}}
        if choices and self._column["choices"]:
            shown[self._column["choices"]] = lettered
        try:
            return Formatter().vformat(self._template, (), shown)
        except KeyError as error:
            raise _missing(str(error.args[0]), values, "task.args.template") from error
        except (LookupError, AttributeError, ValueError, TypeError) as error:
            raise DataError(f"task.args.template cannot be filled: {error}") from error

    def _reference(
        self, values: Mapping[str, Any], said: str | None, texts: Sequence[str], labels: Sequence[str]
    ) -> dict[str, Any]:
        hidden = {self._column[role] for role in ROLES}
        reference = {name: plain(value) for name, value in values.items() if name not in hidden}
        column = self._column["answer"]
        answer = values.get(column) if column is not None else None
        if answer is None and self._given.get("answer") is not None:
            raise _missing(str(column), values, "task.args.columns.answer")
        answer = said if answer is None else answer
        if answer is not None:
            reference["answer"] = plain(answer)
        if texts:
            reference["choices"] = list(texts)
            if answer is not None:
                letter = right_letter(answer, texts, labels)
                reference |= {"answer": letter, "answer_text": texts[ascii_uppercase.index(letter)]}
        return reference


def _columns_of(template: str) -> Iterator[str]:
    """Yields the columns that a template shows: `{answer[0]}` shows `answer`, and so does `{x:{answer}}`."""
    for _, name, form, _ in Formatter().parse(template):
        if name is not None:
            yield re.split(r"[.\[]", name, maxsplit=1)[0]
            yield from _columns_of(form or "")


def _missing(column: str, values: Mapping[str, Any], asked_by: str) -> DataError:
    return DataError(f"no column {column!r} ({asked_by}), or it is empty; the row has {sorted(values)}")


def plain(value: object) -> object:
    """Returns a value as JSON holds it: bytes are left out, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value if not isinstance(each, bytes)]
    return finite(value) if value is None or isinstance(value, str | int | float) else str(value)
