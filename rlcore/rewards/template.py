"""Fills the texts in which a user names entries of a prompt's reference (`{text}`).

A null or NaN entry is refused as a missing one is: written out, it would be the word "None" or "nan", which
nobody said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

from rlcore.errors import DataError
from rlcore.records.files import is_nan
from rlcore.types import Prompt


def is_null(value: object) -> bool:
    """Tells whether a value stands for nothing: None, or NaN, which tables write for it."""
    return value is None or is_nan(value)


def fill(template: str, of: Prompt, /, **more: str) -> str:
    """Returns the template with each `{name}` replaced by that entry of `more` or of the prompt's reference.

    Raises:
        DataError: an entry that the template names is missing, null or NaN; the message says which there are.
    """
    try:
        return _Filler().vformat(template, (), {**of.reference, **more})
    except LookupError as error:
        there = sorted(name for name, value in of.reference.items() if not is_null(value))
        raise DataError(f"it names {error}, prompt {of.id!r} has {there}") from error


class _Filler(Formatter):
    def get_field(
        self, field_name: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> tuple[object, str]:
        value, name = super().get_field(field_name, args, kwargs)
        if is_null(value):
            raise KeyError(field_name)
        return value, str(name)
