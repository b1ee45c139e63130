"""Tells where each value of a configuration comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from rlcore.config import io

DEFAULT = "default"
"""Origin of a value that no layer sets."""


def annotated_yaml(
    config: object, files: Sequence[str | Path], overrides: Sequence[str], *, only_set: bool = False
) -> str:
    """Returns a configuration as YAML, each value with its origin as a comment: a file, `key=value` of the
    command line, or the default. `load_config` reads it back to an equal configuration.

    Args:
        config: what `load_config` made of `files` and `overrides`.
        only_set: leaves out defaults.
    """
    origins: dict[str, str] = {}
    for origin, values in io.layers(files, overrides, type(config)):
        for key in _keys(values):
            # What a layer says of a whole value counts for all that lies in it.
            origins = {k: old for k, old in origins.items() if not k.startswith(f"{key}.")}
            origins[key] = origin
    return "\n".join(_lines(io.plain(config), "", origins, only_set)) + "\n"


def _keys(values: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of all values that are no sections."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _lines(
    values: Mapping[str, object], prefix: str, origins: Mapping[str, str], only_set: bool
) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            inner = list(_lines(value, f"{key}.", origins, only_set))
            yield from [f"{indent}{_flow(name)}:", *inner] if inner else ()
        elif not (only_set and _origin(key, origins) == DEFAULT):
            origin = " ".join(_origin(key, origins).split())  # a setting may hold line breaks
            yield f"{indent}{_flow(name)}: {_flow(value)}  # {origin}"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Returns the origin of a key, or of the section that a reference stands for."""
    while key not in origins and "." in key:
        key = key.rpartition(".")[0]
    return origins.get(key, DEFAULT)


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
