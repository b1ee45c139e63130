"""A list's own columns and labels as the fields of an utterance; what is no field is kept as `extra`."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from emotion_task.labels import ALL_LABELS, check_set
from emotion_task.parsing import normalise_label
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

FIELDS = tuple(f.name for f in fields(Utterance))
_HUB_COLUMNS = {"audio": "file_name", "emotion": "label"}
"""Columns that the hub's data sets have in the place of ours."""
_MISSPELT = ("text", "emotion", "speaker", "gender", "split")
"""Fields that a list's column must not miss by a letter."""
_GENDERS = {"m": "male", "f": "female"}


@dataclass
class Translation:
    """A translation reads a row of any list as fields.

    Raises:
        ConfigError: `columns` names what is no field, it or `labels` is no mapping, or `emotions` is no set
            of labels.
    """

    columns: Mapping[str, str | None]
    """Column by field, where they differ; null for a field that no column gives."""
    labels: Mapping[str, str | None]
    """Our label by the list's; null leaves the row out."""
    emotions: Sequence[str] = ALL_LABELS
    """The set of our labels."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that are left out, by the list's label."""
    _met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, given, form in (
            ("columns", self.columns, "columns={text: sentence}"),
            ("labels", self.labels, "labels={happiness: happy}"),
        ):
            if not isinstance(given, Mapping):
                raise ConfigError(f"{name}: got {given!r}; it is a mapping, such as {form}")
        check_set(self.emotions, "emotions")
        self.labels = {str(label): ours for label, ours in self.labels.items()}  # YAML reads 0 as a number
        if unknown := sorted(set(self.columns) - set(FIELDS)):
            raise ConfigError(f"columns: {unknown} are no fields; fields are {', '.join(FIELDS)}")

    def read(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the row's fields, or None where its label leaves it out."""
        self._met |= row.keys()
        rest = dict(row)
        for ours, column in _HUB_COLUMNS.items():
            if ours not in row and ours not in self.columns and column in rest:
                rest[ours] = rest.pop(column)
        found = {
            ours: rest.pop(column)
            for ours, column in self.columns.items()
            if column is not None and column in rest
        }
        for name in FIELDS:
            if name in rest and name not in self.columns and name not in found:
                found[name] = rest.pop(name)
        label = found.get("emotion")
        if isinstance(label, str | int) and str(label) in self.labels:
            if not self.labels[str(label)]:
                self.left_out[str(label)] += 1
                return None
            found["emotion"] = self.labels[str(label)]
        elif isinstance(label, str):
            found["emotion"] = normalise_label(label, self.emotions) or label
        if isinstance(found.get("gender"), str):
            gender = found["gender"].strip().lower()
            found["gender"] = _GENDERS.get(gender, gender)
        own = found.get("extra")
        if rest and (own is None or isinstance(own, dict)):
            found["extra"] = (own or {}) | {str(name): _plain(value) for name, value in rest.items()}
        return found

    def misspelt(self, found: Mapping[str, Any]) -> Iterator[str]:
        """Yields a mistake for each kept column that looks like a field which the row does not have."""
        missing = [name for name in _MISSPELT if name not in found and name not in self.columns]
        for column in found.get("extra") or ():
            if (near := _nearest(column, tuple(missing))) is not None:
                yield (
                    f"column {column!r} looks like {near!r}: rename it, or set columns={{{near}: {column}}} "
                    f"(columns={{{near}: null}} keeps it as `extra`)"
                )

    def check(self) -> None:
        """Checks, after the last row, that each named column was there.

        Raises:
            ConfigError: one was not.
        """
        named = {column for column in self.columns.values() if column is not None}
        if missing := sorted(named - self._met):
            raise ConfigError(f"columns: no column {missing}; the list has {sorted(self._met)}")


@cache
def _nearest(column: str, names: tuple[str, ...]) -> str | None:
    return next(iter(difflib.get_close_matches(column, names, n=1, cutoff=0.85)), None)


def _plain(value: object) -> object:
    """Returns a value as JSON holds it: bytes are left out, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value if not isinstance(each, bytes)]
    return value if value is None or isinstance(value, str | int | float) else str(value)
