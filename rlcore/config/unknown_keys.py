"""Tells what is wrong with the keys of one file or override, beyond a single key that is misspelt."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from rlcore.config.text_keys import without_none
from rlcore.errors import ConfigError


def check_sections(layer: Mapping[str, object], schema: type) -> None:
    """Refuses a file of another command: several of its sections are unknown to `schema`.

    Raises:
        ConfigError: the message says what is read here, and by its docstring which command reads the file.
    """
    hints = get_type_hints(schema)
    unknown = [str(key) if str(key).strip() else repr(key) for key in layer if key not in hints]
    sections = {name: without_none(hint) for name, hint in hints.items()}
    sections = {name: hint for name, hint in sections.items() if dataclasses.is_dataclass(hint)}
    if len(unknown) > 1:
        for name, section in sections.items():
            if set(unknown) <= set(get_type_hints(section)):
                raise ConfigError(
                    f"{', '.join(unknown)}: unknown keys; they are keys of {name} ({_says(section)}). Put "
                    f"them below {name}, or give the file to the command that reads it"
                )
    inner = {key for section in sections.values() for key in get_type_hints(section)}
    if len(unknown) > 1 or any(
        _is_strange(str(key), layer[key], inner | set(hints)) for key in layer if key not in hints
    ):
        raise ConfigError(
            f"{', '.join(unknown)}: unknown keys of {_says(schema)}; known here: {', '.join(hints)}. A file "
            "with other sections is read by a command of its own package, as `emotion quickstart` "
            "reads those of emotion_task"
        )


def _is_strange(key: str, value: object, known: set[str]) -> bool:
    """Whether a key is a section that nobody would have meant for another."""
    return isinstance(value, Mapping) and not difflib.get_close_matches(key, known, n=1, cutoff=0.6)


def check_removed(layer: Mapping[str, object], before: Mapping[str, Any], schema: type) -> None:
    """Refuses a `null` that takes nothing out of a mapping of sections.

    Args:
        layer: a file or override.
        before: what the layers before it gave.

    Raises:
        ConfigError: there is no entry of this name.
    """
    hints = get_type_hints(schema)
    for key, value in layer.items():
        entries, hint = before.get(key) or {}, without_none(hints[key])
        if not isinstance(value, Mapping):
            continue
        if dataclasses.is_dataclass(hint):
            try:
                check_removed(value, entries, hint)  # type: ignore[arg-type]
            except ConfigError as error:
                raise ConfigError(f"{key}.{error}") from None
        elif _holds_sections(hint):
            for name in (name for name, entry in value.items() if entry is None and name not in entries):
                raise ConfigError(
                    f"{key}.{name}: null takes an entry out, and there is none of this name; there are "
                    f"{', '.join(map(str, entries)) or 'none'}"
                )


def _holds_sections(hint: object) -> bool:
    arguments = get_args(hint)
    return len(arguments) == 2 and dataclasses.is_dataclass(without_none(arguments[1]))


def _says(schema: object) -> str:
    """The first half sentence of its docstring, as part of another sentence."""
    text = (schema.__doc__ or "").strip().partition(";")[0].splitlines()[0].rstrip(".")
    return text[:1].lower() + text[1:]
