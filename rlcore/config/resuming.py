"""Rules on what a resumed run may change. A key's rule is metadata of its field, else of its section.

Beside `rlcore.config.io.MAY_CHANGE` (results depend on such a key by no more than rounding) there are the
rules below. A key without any never changes: the checkpoint holds what belongs to its old value, such as
weights, the order of prompts or a schedule's state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from rlcore.config.io import keys, plain

FREE, RECORDED, ACCEPTED, NEVER = "free", "recorded", "accepted", "never"

IS_RECORDED = {"resume": RECORDED}
"""Metadata of a field that a resumed run may change: the run goes on with the new value, and records it."""
IF_ACCEPTED = {"resume": ACCEPTED}
"""Metadata of a field that a resumed run may change with `--accept-changes`: results differ from there on,
and all that the checkpoint holds still fits."""
IS_FIXED = {"resume": NEVER}
"""Metadata of a field that never changes, in a section whose other fields may."""


def rule_of(schema: type, key: str) -> str:
    """Returns the rule of a dotted key: `FREE`, `RECORDED`, `ACCEPTED` or `NEVER`."""
    rule = NEVER
    for field in _fields(schema, key):
        rule = FREE if field.metadata.get("may_change") else field.metadata.get("resume", rule)
    return rule


def is_default(schema: type, key: str, value: object) -> bool:
    """Says whether a value, JSON-ready, is the default of a dotted key."""
    fields = list(_fields(schema, key))
    if not fields or fields[-1].name != key.rpartition(".")[2]:  # of a mapping that has any names
        return False
    make = fields[-1].default_factory
    default = fields[-1].default if make is dataclasses.MISSING else make()
    return bool(plain(default, lasting=True) == value)


def _fields(schema: type, key: str) -> Iterator[dataclasses.Field[Any]]:
    """Yields the fields on the way to a dotted key, as far as there are any."""
    section, is_name = schema, False
    for name in key.split("."):
        if is_name:  # an entry of a mapping of sections
            is_name = False
            continue
        field = next((each for each in dataclasses.fields(section) if each.name == name), None)
        if field is None:
            break
        yield field
        hint: Any = get_type_hints(section)[name]
        is_name = not dataclasses.is_dataclass(hint)
        inner = get_args(hint)[-1] if is_name and get_args(hint) else hint
        if not dataclasses.is_dataclass(inner):
            break
        section = inner  # type: ignore[assignment]


def rules(schema: type) -> dict[str, str]:
    """Returns the rule of every key of a schema; `*` stands for the name of an entry of a mapping."""
    return {key: rule_of(schema, key) for key in keys(schema)}
