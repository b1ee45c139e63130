"""Reads the environment for a configuration (`${oc.env:NAME}`) and remembers which strings came from it.

This module knows OmegaConf's references and no schema.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc


class EnvStr(str):
    """A string that came from the environment. An `EnvStr` reads as its value and is saved as its source, so
    that a saved configuration never holds a secret."""

    source: str

    def __new__(cls, value: str, source: str) -> EnvStr:
        text = super().__new__(cls, value)
        text.source = source
        return text

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.source

    def __repr__(self) -> str:
        return repr(self.source)


def required_variables(raw: Mapping[str, object]) -> set[str]:
    """Returns the names of environment variables that an unresolved configuration reads without a default.

    A variable that is not set here passes for empty.
    """
    names = set[str]()

    def env(name: str, *default: object) -> object:
        if not default:
            names.add(name)
        return oc.env(name, *(default or [""]))

    # Without a schema, for what is empty converts to no number. Loading says what cannot be resolved.
    with _env_resolver(env), suppress(OmegaConfBaseException):
        OmegaConf.to_container(OmegaConf.create(dict(raw)), resolve=True)
    return names - {""}


def resolved(config: DictConfig) -> dict[str, object]:
    """Returns the values with references replaced by what they refer to; a string that holds a value of the
    environment is an `EnvStr`.

    Raises:
        OmegaConfBaseException: a reference leads nowhere, or a variable is not set.
    """
    read: dict[str, str] = {}

    def env(name: str, *default: object) -> object:
        if name in os.environ:
            read[name] = os.environ[name]
        return oc.env(name, *default)

    with _env_resolver(env):
        container = OmegaConf.to_container(config, resolve=True)
        assert isinstance(container, dict)
        values: dict[str, object] = {str(key): value for key, value in container.items()}
        if read:
            _mark(config, values, read)
    return values


@contextmanager
def _env_resolver(resolver: Callable[..., object]) -> Iterator[None]:
    """Another function in the place of OmegaConf's `oc.env`, which has many spellings: it is called with the
    name as it was understood."""
    OmegaConf.register_resolver("oc.env", resolver, replace=True, annotation_validation="off")
    try:
        yield
    finally:
        OmegaConf.register_resolver("oc.env", oc.env, replace=True, annotation_validation="off")


def _mark(config: Any, values: Any, read: dict[str, str]) -> None:
    """Replaces the strings in `values`, which `config` was resolved to, by `EnvStr`; `read` gets what is read
    from the environment."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        if isinstance(value, (dict, list)):
            _mark(config[key], value, read)
        elif isinstance(value, str) and OmegaConf.is_interpolation(config, key):
            read.clear()
            config[key]  # resolved once more: what is read now is what this string is made of
            source = _source(value, read)
            values[key] = EnvStr(value, source) if source != value else value


def _source(text: str, read: Mapping[str, str]) -> str:
    """`text` with the values in it replaced by where they came from, the longest first: one may hold
    another."""
    names = {value: name for name, value in read.items() if value}
    if not names:
        return text
    values = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(values, lambda found: f"${{oc.env:{names[found[0]]}}}", text)
