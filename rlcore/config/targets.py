"""Classes of the user's, named in the configuration as `package.module:Class`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from rlcore.errors import ConfigError


def load_target(target: str, *, where: str, key: str = "target") -> Any:
    """Imports what `package.module:attribute` names.

    Args:
        where: config path of the section that holds it, for errors (`task`, `rewards.format`).
        key: the section's key that holds it, for errors.

    Raises:
        ConfigError: malformed, the module does not import, or it has no such attribute.
    """
    module_name, separator, attribute = target.partition(":")
    if not (module_name and separator and attribute):
        raise ConfigError(f"{where}.{key}: got {target!r}, must be `package.module:Class`")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{where}.{key}: module {module_name!r} of {target!r} cannot be imported ({error}). Install its "
            "package, or put its folder on PYTHONPATH on every node"
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if name[0].isupper()]
        raise ConfigError(f"{where}.{key}: module {module_name!r} has no {attribute!r}; it has {public}")
    return getattr(module, attribute)


def check_target(target: str, args: Mapping[str, Any], *, where: str) -> Any:
    """What `target` names, which takes `args`; nothing is built. Raises as `build_target`."""
    found = load_target(target, where=where)
    try:
        inspect.signature(found).bind(**args)
    except TypeError as error:
        raise ConfigError(f"{where}.args: {target} was given {sorted(args)}: {error}") from error
    return found


def build_target(target: str, args: Mapping[str, Any], *, where: str) -> Any:
    """Builds the class that `target` names with `args`.

    Raises:
        ConfigError: as `load_target`, or the class does not take these arguments.
    """
    cls = load_target(target, where=where)
    try:
        return cls(**args)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # raised inside the constructor: the arguments fitted
        raise ConfigError(f"{where}.args: {target} was given {sorted(args)}: {error}") from error
