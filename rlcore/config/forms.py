"""Checks that what a file or an override holds has the form of its keys, before anything is merged.

This module knows the shape of dataclasses and no key of any of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import BooleanNode, FloatNode, IntegerNode, StringNode
from omegaconf.errors import OmegaConfBaseException

from rlcore.config.text_keys import without_none
from rlcore.errors import ConfigError

_SCALARS: dict[object, tuple[type, str]] = {
    bool: (BooleanNode, "true or false"),
    int: (IntegerNode, "a whole number"),
    float: (FloatNode, "a number"),
    str: (StringNode, "text"),
}
"""The types of single values: the node whose conversions hold, and what a user may write."""
_REFERENCE = re.compile(r"(?<!\\)\$\{")
_REPLACED = {"autocast": ("precision", "autocast where it was bfloat16, float32 where it was none")}
"""Keys of earlier versions: the key of the same section that took their place, and its values."""
_SHOWN = 200
"""Characters of a value that an error shows."""


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuses a value in `__post_init__`; the loader puts the section's path before the key.

    Raises:
        ConfigError: `ok` is false.
    """
    if not ok:
        shown = "null" if value is None else repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise ConfigError(f"{key}: got {shown}, must be {allowed}")


def check_forms(schema: type, values: Mapping[Any, object], root: type, path: str = "") -> None:
    """Checks the values of a section, references aside: where they lead is known once all are merged.

    Args:
        root: the schema of the whole configuration.
        path: the section's place, with a dot at its end.

    Raises:
        ConfigError: a key is unknown, or a value has another form than its key.
    """
    hints = get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(_unknown_key(str(key), path, list(hints), root))
        _check_form(hints[key], value, f"{path}{key}", root)


def _check_form(hint: object, value: object, key: str, root: type) -> None:
    form = without_none(hint)
    if value == "???" or (isinstance(value, str) and _REFERENCE.search(value)) or form in (Any, object):
        return
    if value is None:
        check(form is not hint, key, value, must_be(hint))
        return
    section, is_mapping = section_of(form)
    if section and not is_mapping:
        check(isinstance(value, Mapping), key, value, must_be(hint))
        assert isinstance(value, Mapping)
        check_forms(section, value, root, f"{key}.")
    elif is_mapping_hint(form):
        check(isinstance(value, Mapping), key, value, must_be(hint))
        assert isinstance(value, Mapping)
        for name, entry in value.items():
            check(isinstance(name, str), f"{key}: name of an entry", name, "text, if need be in quotes")
            check(bool(name.strip()), f"{key}: name of an entry", name, "text of more than blanks")
            if not (section and entry is None):  # null takes an entry away
                _check_form(get_args(form)[1] if get_args(form) else Any, entry, f"{key}.{name}", root)
    elif get_origin(form) in (tuple, list):
        check(isinstance(value, (tuple, list)), key, value, must_be(hint))
        assert isinstance(value, (tuple, list))
        for index, entry in enumerate(value):
            _check_form(get_args(form)[0], entry, f"{key}[{index}]", root)
    elif form in _SCALARS:
        check(_converts(_SCALARS[form][0], value), key, value, must_be(hint))


def must_be(hint: object) -> str:
    """Returns what a value of a type may be, as a user writes it."""
    form = without_none(hint)
    section, is_mapping = section_of(form)
    if section and not is_mapping:
        names = [field.name for field in dataclasses.fields(section)]
        what = f"a section of keys ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    elif is_mapping_hint(form):
        what = "a mapping of names to " + ("sections" if section else "values")
    elif get_origin(form) in (tuple, list):
        what = "a list"
    else:
        what = _SCALARS[form][1] if form in _SCALARS else "a value of another form"
    return what if form is hint else f"{what}, or null"


def hint_at(schema: type, names: list[str]) -> object:
    """Returns the type of the key that a path leads to, or None where it leads nowhere."""
    hint: object = schema
    for name in names:
        form = without_none(hint)
        if dataclasses.is_dataclass(form):
            hint = get_type_hints(form).get(name)
        else:
            arguments = get_args(form)
            hint = (arguments[1] if is_mapping_hint(form) else arguments[0]) if arguments else None
    return hint


def keys(schema: type) -> list[str]:
    """Returns all keys of a schema as dotted paths; `*` stands for the name of an entry of a mapping."""
    found = []
    for key, hint in get_type_hints(schema).items():
        section, is_mapping = section_of(hint)
        prefix = f"{key}.*" if is_mapping else key
        found += [f"{prefix}.{k}" for k in keys(section)] if section else [key]
    return found


def section_of(hint: object) -> tuple[type | None, bool]:
    """Returns the dataclass that a type hint holds, and whether it holds a mapping of them."""
    hint = without_none(hint)
    if dataclasses.is_dataclass(hint):
        return hint, False  # type: ignore[return-value]
    if is_mapping_hint(hint) and len(get_args(hint)) == 2:
        entry = without_none(get_args(hint)[1])
        if dataclasses.is_dataclass(entry):
            return entry, True  # type: ignore[return-value]
    return None, False


def is_mapping_hint(hint: object) -> bool:
    """Tells whether a type hint is that of a mapping."""
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _converts(node: type, value: object) -> bool:
    try:
        node(value)
    except (OmegaConfBaseException, ArithmeticError, ValueError):
        return False
    return True


def _unknown_key(key: str, path: str, siblings: list[str], root: type) -> str:
    full_key = f"{path}{key if key.strip() else repr(key)}"
    new, values = _REPLACED.get(key, ("", ""))
    if new in siblings:
        return f"{full_key}: this key is now {path}{new}; {values}"
    # A key in the wrong section is as common a mistake as a misspelt one.
    same = (re.match(rf"(.+\.)?{re.escape(key)}(?=\.|$)", known) for known in keys(root))
    near = sorted((found[0] for found in same if found), key=lambda found: found.count("."))[:1]
    near = near or [f"{path}{k}" for k in difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)]
    near = near or difflib.get_close_matches(full_key, keys(root), n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(siblings)}"
    return f"{full_key}: unknown key; {hint}"
