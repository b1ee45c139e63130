"""Reads and writes configurations: YAML files and `key=value` overrides into any frozen dataclass.

OmegaConf merges, converts types and interpolates. It knows neither `Mapping` nor frozen classes, so each
dataclass gets an open twin to be merged into; the result is then built as the class itself, whose
`__post_init__` validates. This module knows the shape of dataclasses and no key of any of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from rlcore.errors import ConfigError

T = TypeVar("T")

Arguments = Mapping[str, Any]
"""Settings by name that another program defines (arguments of a class, of vLLM, of Ray). Layers merge them
entry by entry, as they merge sections; a mapping of any other type is one value: that of the last layer."""

MAY_CHANGE = {"may_change": True}
"""Metadata of a field that a resumed run may change: places, layout, deadlines, how often something is saved
or evaluated. Results depend on every other field."""


class EnvStr(str):
    """A string that came from the environment. It reads as its value and is saved as its source, so that a
    saved configuration never holds a secret."""

    source: str

    def __new__(cls, value: str, source: str) -> EnvStr:
        text = super().__new__(cls, value)
        text.source = source
        return text

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.source

    def __repr__(self) -> str:
        return repr(self.source)


def check(ok: bool, key: str, value: Any, allowed: str) -> None:
    """For `__post_init__`: the loader puts the section's path before the key.

    Raises:
        ConfigError: `ok` is false.
    """
    if not ok:
        raise ConfigError(f"{key}: got {value!r}, must be {allowed}")


def load(files: Sequence[str | Path], overrides: Sequence[str], schema: type[T]) -> T:
    """Merges the files from left to right, then the `key=value` overrides, over the schema's defaults.

    A `null` entry removes a key from a mapping of sections (`rewards.brevity=null`).

    Raises:
        ConfigError: a file cannot be read, a key is unknown, a value has the wrong type or is out of range,
            or a mandatory value is missing. The message names the file or override and the full key.
    """
    merged = _merge(files, overrides, schema)
    resolved = _resolved(merged)
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        where = files[-1] if files else "a config file"
        raise ConfigError(f"{', '.join(missing)}: no value given; set it in {where} or as `{missing[0]}=...`")
    return _build(schema, resolved, "")


def unresolved(files: Sequence[str | Path], overrides: Sequence[str], schema: type) -> dict[str, Any]:
    """The layers merged as by `load`, references left as they are written. Raises as `load`, for what can be
    said without them."""
    return cast("dict[str, Any]", OmegaConf.to_container(_merge(files, overrides, schema), resolve=False))


def required_variables(raw: Mapping[str, Any]) -> set[str]:
    """Names of the environment's variables that a configuration (`unresolved`) reads without a default. One
    that is not set here passes for empty."""
    names = set[str]()

    def env(name: str, *default: Any) -> Any:
        if not default:
            names.add(name)
        return oc.env(name, *(default or [""]))

    # Without a schema, for what is empty converts to no number. `load` says what cannot be resolved.
    with _env_resolver(env), suppress(OmegaConfBaseException):
        OmegaConf.to_container(OmegaConf.create(dict(raw)), resolve=True)
    return names - {""}


def _merge(files: Sequence[str | Path], overrides: Sequence[str], schema: type) -> DictConfig:
    merged: DictConfig = OmegaConf.structured(_open_twin(schema))  # type: ignore[arg-type]
    layers = [(str(file), "", _read(Path(file))) for file in files]
    layers += [(f"override {text!r}", text.partition("=")[0], _parse_override(text)) for text in overrides]
    for origin, key, layer in layers:
        depth = len(re.findall(r"[^.\[\]]+", key))
        try:
            for path in _whole_values(schema, OmegaConf.to_container(layer), (), schema):
                if depth <= len(path):  # else the override sets one entry
                    _clear(merged, path)
            merged = OmegaConf.merge(merged, layer)  # type: ignore[assignment]
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        except (OmegaConfBaseException, TypeError) as error:
            raise ConfigError(f"{origin}: {_reason(error)}") from error
    return merged


def to_yaml(config: Any) -> str:
    """The configuration as YAML that `load` reads back to an equal one. Strings that came from the
    environment are written as `${oc.env:NAME}`."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(value: Any, *, lasting: bool = False) -> Any:
    """Returns a configuration, or a part of it, as the JSON-ready mappings, lists and values of its YAML.

    Args:
        lasting: leaves out what a resumed run may change (`MAY_CHANGE`).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f.name for f in dataclasses.fields(value) if not (lasting and f.metadata.get("may_change"))]
        return {name: plain(getattr(value, name), lasting=lasting) for name in kept}
    if isinstance(value, Mapping):
        return {str(k): plain(v, lasting=lasting) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v, lasting=lasting) for v in value]
    if isinstance(value, EnvStr):
        return str(value.source)
    if isinstance(value, str):
        return str(value).replace("${", "\\${")
    if isinstance(value, Path):
        return str(value)
    return value


def keys(schema: type) -> list[str]:
    """All keys of a schema as dotted paths; `*` stands for the name of an entry of a mapping."""
    found = []
    for key, hint in get_type_hints(schema).items():
        section, is_mapping = _section_of(hint)
        prefix = f"{key}.*" if is_mapping else key
        found += [f"{prefix}.{k}" for k in keys(section)] if section else [key]
    return found


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        config = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: must hold `key: value` lines, got a {type(config).__name__}")
    return config


def _parse_override(text: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {text!r}: must be written key=value, for instance train.num_steps=20")
    try:
        return OmegaConf.from_dotlist([text])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override {text!r}: not readable as YAML: {error}") from error


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts that no schema describes, such as a reader's arguments; values are read as YAML.

    Raises:
        ConfigError: a text is not of that form.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        values |= cast("dict[str, Any]", OmegaConf.to_container(_parse_override(text)))
    return values


def _whole_values(schema: type, layer: Any, path: tuple[str, ...], root: type) -> Iterator[tuple[str, ...]]:
    """Yields the paths of the mappings in `layer` that are one value.

    Raises:
        ConfigError: a key of `layer` is unknown.
    """
    if not isinstance(layer, Mapping):
        return  # the merge reports the wrong type
    hints = get_type_hints(schema)
    for key, value in layer.items():
        if key not in hints:
            raise ConfigError(_unknown_key(str(key), ".".join(path), list(hints), root))
        section, is_mapping = _section_of(hints[key])
        if section and is_mapping and isinstance(value, Mapping):
            for name, entry in value.items():
                yield from _whole_values(section, entry, (*path, key, str(name)), root)
        elif section and not is_mapping:
            yield from _whole_values(section, value, (*path, key), root)
        elif isinstance(value, Mapping) and get_args(_without_none(hints[key]))[-1:] != (Any,):
            yield (*path, key)


def _clear(config: DictConfig, path: tuple[str, ...]) -> None:
    """Empties the mapping at `path`, where there is one."""
    *sections, key = path
    node: Any = config
    for name in sections:
        node = None if OmegaConf.is_interpolation(node, name) else node.get(name)
        if not isinstance(node, DictConfig):
            return
    node[key] = {}


def _unknown_key(key: str, section: str, siblings: list[str], root: type) -> str:
    path = f"{section}." if section else ""
    full_key = f"{path}{key}"
    near = [f"{path}{k}" for k in difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)]
    # A key in the wrong section is as common a mistake as a misspelt one.
    near = near or [k for k in keys(root) if k.rsplit(".", 1)[-1] == key][:1]
    near = near or difflib.get_close_matches(full_key, keys(root), n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(siblings)}"
    return f"{full_key}: unknown key; {hint}"


def _reason(error: Exception) -> str:
    message = str(error).splitlines()[0]
    full_key = getattr(error, "full_key", None)
    return f"{full_key}: {message}" if full_key else message


def _section_of(hint: Any) -> tuple[type | None, bool]:
    """The dataclass that a type hint holds, and whether it holds a mapping of them."""
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint):
        return hint, False  # type: ignore[return-value]
    if _is_mapping(hint) and len(get_args(hint)) == 2:
        entry = _without_none(get_args(hint)[1])
        if dataclasses.is_dataclass(entry):
            return entry, True  # type: ignore[return-value]
    return None, False


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        arms = [arm for arm in get_args(hint) if arm is not type(None)]
        return arms[0] if len(arms) == 1 else hint
    return hint


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


@functools.cache
def _open_twin(schema: type) -> type:
    """The same fields and defaults in types that OmegaConf knows, neither frozen nor validated."""
    hints = get_type_hints(schema)
    twins: list[Any] = []
    for field in dataclasses.fields(schema):
        hint = _open_hint(hints[field.name])
        if field.default_factory is not dataclasses.MISSING:
            factory = functools.partial(_open_default, field.default_factory)
            twins.append((field.name, hint, dataclasses.field(default_factory=factory)))
        elif field.default is not dataclasses.MISSING:
            factory = functools.partial(_open_value, field.default)
            twins.append((field.name, hint, dataclasses.field(default_factory=factory)))
        else:
            twins.append((field.name, hint, dataclasses.field(default="???")))
    return dataclasses.make_dataclass(schema.__name__, twins)


def _open_hint(hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return _open_twin(hint)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_open_hint(arm) for arm in args)]  # noqa: UP007 - built at run time
    if _is_mapping(hint):
        entry = _open_hint(args[1]) if args else Any
        is_section = dataclasses.is_dataclass(entry)
        return dict[str, entry | None] if is_section else dict[str, entry]  # type: ignore[valid-type]
    if origin in (tuple, list):
        return list[_open_hint(args[0])]  # type: ignore[misc]
    return Any if hint is object else hint


def _open_default(factory: Any) -> Any:
    return _open_value(factory())


def _open_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = _open_twin(type(value))
        return twin(**{f.name: _open_value(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {k: _open_value(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_open_value(v) for v in value]
    return value


def _resolved(merged: DictConfig) -> Any:
    """Interpolations replaced by their values; strings that hold a value of the environment as `EnvStr`."""
    read: dict[str, str] = {}

    def env(name: str, *default: Any) -> Any:
        if name in os.environ:
            read[name] = os.environ[name]
        return oc.env(name, *default)

    with _env_resolver(env):
        try:
            resolved = OmegaConf.to_container(merged, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_reason(error)) from error
        if read:
            _mark(merged, resolved, read)
    return resolved


@contextmanager
def _env_resolver(resolver: Callable[..., Any]) -> Iterator[None]:
    """Another function in the place of OmegaConf's `oc.env`, which has many spellings: it is called with the
    name as it was understood."""
    OmegaConf.register_resolver("oc.env", resolver, replace=True, annotation_validation="off")
    try:
        yield
    finally:
        OmegaConf.register_resolver("oc.env", oc.env, replace=True, annotation_validation="off")


def _mark(config: Any, resolved: Any, read: dict[str, str]) -> None:
    """Replaces the strings in `resolved`, which `config` was resolved to, by `EnvStr`; `read` gets what is
    read from the environment."""
    for key, value in list(resolved.items() if isinstance(resolved, dict) else enumerate(resolved)):
        if isinstance(value, (dict, list)):
            _mark(config[key], value, read)
        elif isinstance(value, str) and OmegaConf.is_interpolation(config, key):
            read.clear()
            config[key]  # resolved once more: what is read now is what this string is made of
            source = _source(value, read)
            resolved[key] = EnvStr(value, source) if source != value else value


def _source(text: str, read: Mapping[str, str]) -> str:
    """`text` with the values in it replaced by where they came from, the longest first: one may hold
    another."""
    names = {value: name for name, value in read.items() if value}
    if not names:
        return text
    values = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(values, lambda found: f"${{oc.env:{names[found[0]]}}}", text)


def _build(hint: Any, value: Any, path: str) -> Any:
    hint = _without_none(hint)
    if value is None:
        return None
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        arguments = {k: _build(hints[k], v, f"{path}{k}.") for k, v in value.items()}
        try:
            return hint(**arguments)  # type: ignore[operator]
        except ConfigError as error:
            raise ConfigError(f"{path}{error}") from None
    args = get_args(hint)
    if get_origin(hint) is tuple and args[-1] is not Ellipsis and len(value) != len(args):
        raise ConfigError(f"{path[:-1]}: got {value!r}, must be a list of {len(args)} values")
    if get_origin(hint) is tuple:
        return tuple(_build(args[0], v, path) for v in value)
    if _section_of(hint)[0]:
        return {k: _build(args[1], v, f"{path}{k}.") for k, v in value.items() if v is not None}
    return value
