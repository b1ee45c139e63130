"""Imports and builds your own classes, named in the configuration as `package.module:Class`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rlcore.errors import ConfigError

T = TypeVar("T")


def load_target(target: str, *, where: str) -> Any:
    """Imports what `package.module:attribute` names.

    Args:
        where: config path of the section that holds it, for errors (`task`, `rewards.format`).

    Raises:
        ConfigError: malformed, the module does not import, or it has no such attribute.
    """
    return load_named(target, key=f"{where}.target", form="package.module:Class")


def choice(choices: Mapping[str, T], name: str, *, where: str) -> T:
    """Returns what `name` stands for: an entry of `choices`, or a function of your own as `module:name`.

    Args:
        choices: the functions of one kind by their names, for instance `rlcore.algorithms.kl.KL_ESTIMATORS`.
        where: config path of the key that holds the name, for errors (`algorithm.kl_estimator`).

    Raises:
        ConfigError: the name is unknown, its module does not import or has no such function.
    """
    if name in choices:
        return choices[name]
    if ":" not in name:
        allowed = ", ".join(choices)
        raise ConfigError(f"{where}: got {name!r}, must be one of {allowed}, or your own as `module:name`")
    found = load_named(name, key=where, form="module:name")
    is_class = inspect.isclass(next(iter(choices.values())))
    if not callable(found) or (is_class and not inspect.isclass(found)):
        kind = "class" if is_class else "function"
        raise ConfigError(f"{where}: {name} is no {kind}, but of type {type(found).__name__}")
    if not is_class:
        _check_signature(found, next(iter(choices.values())), f"{where}: {name}")
    return found


def _check_signature(found: Callable[..., object], ours: object, where: str) -> None:
    """Checks that a function takes as many arguments as ours of the same kind."""
    assert callable(ours), ours
    expected = inspect.signature(ours).parameters
    try:
        inspect.signature(found).bind(*expected)
    except TypeError as error:
        raise ConfigError(f"{where} must take ({', '.join(expected)}): {error}") from error
    except ValueError:
        return  # one that is written in C tells no signature


def load_named(target: str, *, key: str, form: str = "package.module:Class") -> Any:
    """Imports what `target` names, for a value at the config path `key`. Raises as `load_target`."""
    module_name, separator, attribute = target.partition(":")
    if not (module_name and separator and attribute) or module_name.startswith("."):
        raise ConfigError(f"{key}: got {target!r}, must be `{form}`")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: module {module_name!r} of {target!r} cannot be imported ({error}). Install its "
            "package, or put its folder on PYTHONPATH on every node"
        ) from error
    except (Exception, SystemExit) as error:  # the boundary to foreign code
        raise ConfigError(
            f"{key}: module {module_name!r} of {target!r} fails when it is imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        public = [name for name, value in vars(module).items() if _is_public(name, value, module_name)]
        raise ConfigError(f"{key}: module {module_name!r} has no {attribute!r}; it has {public}")
    return getattr(module, attribute)


def _is_public(name: str, value: object, module_name: str) -> bool:
    """Whether a module defines it: what it imports is not shown."""
    if name[0] == "_" or inspect.ismodule(value) or type(value).__module__ == "__future__":
        return False
    return not callable(value) or getattr(value, "__module__", None) == module_name


def check_target(target: str, args: Mapping[str, Any], *, where: str) -> Any:
    """Imports what `target` names and checks that it takes `args`; nothing is built.

    Raises:
        ConfigError: as `build_target`.
    """
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
