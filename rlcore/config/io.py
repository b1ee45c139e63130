"""Reads and writes configurations: YAML files and `key=value` overrides into any frozen dataclass.

OmegaConf merges, converts types and interpolates. It knows neither `Mapping` nor frozen classes, so each
dataclass gets an open twin to be merged into; the result is then built as the class itself, whose
`__post_init__` validates. This module knows the shape of dataclasses and no key of any of them.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    KeyValidationError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
    ValidationError,
)

from rlcore.config.env_values import EnvStr, resolved
from rlcore.config.forms import check as check
from rlcore.config.forms import check_forms, hint_at, is_mapping_hint, must_be, section_of
from rlcore.config.forms import keys as keys
from rlcore.config.text_keys import quoted, without_none
from rlcore.config.unknown_keys import check_removed, check_sections
from rlcore.errors import ConfigError

T = TypeVar("T")

Arguments = Mapping[str, Any]
"""Settings by name that another program defines (arguments of a class, of vLLM, of Ray). Layers merge them
entry by entry, as they merge sections; a mapping of any other type is one value: that of the last layer."""

_NAMELESS = re.compile(r"(^|\.)\s*(\.|$)|\.\s*\[|\[\s*\]")
"""A place of a dotted key where a name is due and none stands."""
_RESOLVING = re.compile(r"^\w+ raised while resolving interpolation: ")

MAY_CHANGE = {"may_change": True}
"""Metadata of a field that a resumed run may change: places, layout, deadlines, how often something is saved
or evaluated. Results depend on every other field."""


def load(files: Sequence[str | Path], overrides: Sequence[str], schema: type[T]) -> T:
    """Merges the files from left to right, then the `key=value` overrides, over the schema's defaults.

    A `null` entry removes a key from a mapping of sections (`rewards.brevity=null`).

    Raises:
        ConfigError: a file cannot be read, a key is unknown, a value has the wrong type or is out of range,
            or a mandatory value is missing. The message names the file or override and the full key.
    """
    merged = _merge(files, overrides, schema)
    try:
        values = resolved(merged)
    except OmegaConfBaseException as error:
        if not _leads_to(error, schema) and (places := ", ".join(_references(merged, schema, ""))):
            # OmegaConf does not say where a reference leads to something of another form.
            raise ConfigError(f"{places}: a reference must lead to a section of the same form") from error
        raise ConfigError(_reason(error, schema)) from error
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        where = files[-1] if files else "a config file"
        raise ConfigError(f"{', '.join(missing)}: no value given; set it in {where} or as `{missing[0]}=...`")
    return _build(schema, values, "")


def unresolved(files: Sequence[str | Path], overrides: Sequence[str], schema: type) -> dict[str, Any]:
    """Merges the layers as `load` does and leaves references as they are written.

    Raises:
        ConfigError: what `load` refuses, as far as it can be told without the references.
    """
    return _container(_merge(files, overrides, schema))


def layers(
    files: Sequence[str | Path], overrides: Sequence[str], schema: type
) -> list[tuple[str, dict[str, Any]]]:
    """Returns what each file and each override sets, in the order in which `load` merges them, with its
    origin: the file's path or the override itself. Raises ConfigError as `load`."""
    read = [(str(file), _container(_read(Path(file), schema))) for file in files]
    return read + [(text, _container(_parse_override(text, schema))) for text in overrides]


def _merge(files: Sequence[str | Path], overrides: Sequence[str], schema: type) -> DictConfig:
    layers = [(str(file), "", _read(Path(file), schema)) for file in files]
    layers += [
        (f"override {text!r}", text.partition("=")[0], _parse_override(text, schema)) for text in overrides
    ]
    for origin, _, layer in layers:
        try:
            check_sections(_container(layer), schema)
            check_forms(schema, _container(layer), schema)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
    merged: DictConfig = OmegaConf.structured(_open_twin(schema))  # type: ignore[arg-type]
    for origin, key, layer in layers:
        depth = len(_names(key))
        try:
            for path in _whole_values(schema, _container(layer), ()):
                if depth <= len(path):  # else the override sets one entry
                    _clear(merged, path)
            check_removed(_container(layer), _container(merged), schema)
            merged = OmegaConf.merge(merged, layer)  # type: ignore[assignment]
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        except OmegaConfBaseException as error:
            raise ConfigError(f"{origin}: {_reason(error)}") from error
    return merged


def to_yaml(config: object) -> str:
    """Returns the configuration as YAML that `load` reads back to an equal one. Strings that came from the
    environment are written as `${oc.env:NAME}`."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(value: object, *, lasting: bool = False) -> Any:
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


def _read(path: Path, schema: type) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        config = OmegaConf.load(io.StringIO(text))  # first as it stands: errors name its lines
        if isinstance(config, DictConfig):
            config = OmegaConf.load(io.StringIO(quoted(text, schema)))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 ({error.reason}, byte {error.start}); save it as UTF-8"
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_reason(error)}") from error
    except Exception as error:  # the boundary to YAML, whose constructors raise whatever they meet
        raise ConfigError(f"{path}: not readable as YAML: {_yaml_reason(error)}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: must hold `key: value` lines, got a {type(config).__name__}")
    return config


def _parse_override(text: str, schema: object = None) -> DictConfig:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {text!r}: must be written key=value, for instance train.num_steps=20")
    if _NAMELESS.search(key):
        raise ConfigError(
            f"override {text!r}: the key {key!r} lacks a name beside a dot or in brackets; keys are written "
            "as in train.num_steps=20"
        )
    try:
        return OmegaConf.from_dotlist([f"{key}={quoted(value, schema, _names(key))}"])
    except OmegaConfBaseException as error:
        raise ConfigError(f"override {text!r}: {_reason(error)}") from error
    except Exception as error:  # the boundary to YAML, whose constructors raise whatever they meet
        raise ConfigError(f"override {text!r}: not readable as YAML: {_yaml_reason(error)}") from error


def _names(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def parse_overrides(overrides: Sequence[str]) -> dict[str, object]:
    """Reads `key=value` texts that no schema describes, such as a reader's arguments; values are YAML.

    Raises:
        ConfigError: a text is not of that form.
    """
    values: dict[str, object] = {}
    for text in overrides:
        values |= _container(_parse_override(text))
    return values


def _container(config: DictConfig) -> dict[str, Any]:
    """Its values, references as they are written."""
    container = OmegaConf.to_container(config)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _whole_values(schema: type, layer: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the paths of the mappings in `layer` that are one value."""
    hints = get_type_hints(schema)
    for key, value in layer.items():
        section, is_mapping = section_of(hints[key])
        if not isinstance(value, Mapping):
            continue
        if section and is_mapping:
            for name, entry in value.items():
                if isinstance(entry, Mapping):
                    yield from _whole_values(section, entry, (*path, key, name))
        elif section:
            yield from _whole_values(section, value, (*path, key))
        elif get_args(without_none(hints[key]))[-1:] != (Any,):
            yield (*path, key)


def _references(config: DictConfig, schema: type, path: str) -> Iterator[str]:
    """Yields the keys at which a reference stands in the place of a section, a mapping or a list."""
    for key, hint in get_type_hints(schema).items():
        section, is_mapping = section_of(hint)
        if OmegaConf.is_interpolation(config, key):
            if section or get_origin(without_none(hint)):
                yield f"{path}{key}"
        elif section and is_mapping and config[key] is not None:
            for name in config[key]:
                if OmegaConf.is_interpolation(config[key], name):
                    yield f"{path}{key}.{name}"
                elif config[key][name] is not None:
                    yield from _references(config[key][name], section, f"{path}{key}.{name}.")
        elif section and config[key] is not None:
            yield from _references(config[key], section, f"{path}{key}.")


def _clear(config: DictConfig, path: tuple[str, ...]) -> None:
    """Empties the mapping at `path`, where there is one."""
    *sections, key = path
    for name in sections:
        section = None if OmegaConf.is_interpolation(config, name) else config.get(name)
        if not isinstance(section, DictConfig):
            return
        config = section
    config[key] = {}


def _yaml_reason(error: Exception) -> str:
    """Returns what is wrong in a line: YAML's own message has five, with the text once more."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        context = f" {error.context}" if error.context else ""
        line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
        return f"{error.problem}{context} (line {line}, column {column})"
    return " ".join(str(error).split())


def _reason(error: Exception, schema: type | None = None) -> str:
    """Returns what OmegaConf refuses, in a user's words where OmegaConf's are about its own classes."""
    message, full_key = str(error).splitlines()[0], getattr(error, "full_key", None)
    if isinstance(error, KeyValidationError):
        message = f"got the key {error.key!r}; a key is text, if need be in quotes"
    elif isinstance(error, GrammarParseError):
        message += "; a reference is written ${key}, text that begins like one \\${"
    elif isinstance(error, UnsupportedInterpolationType):
        message += "; a reference is ${key} or ${oc.env:NAME}"
    elif isinstance(error, ValidationError) and full_key and schema is not None:
        message = f"what it refers to must be {must_be(hint_at(schema, _names(full_key)))}"
    elif isinstance(error, InterpolationResolutionError):
        message = _RESOLVING.sub("a reference leads nowhere: ", message)
    return f"{full_key}: {message}" if full_key else message


def _leads_to(error: Exception, schema: type) -> bool:
    """Whether an error says at which key of the schema it is."""
    full_key = getattr(error, "full_key", None)
    return bool(full_key) and hint_at(schema, _names(str(full_key))) is not None


@functools.cache
def _open_twin(schema: type) -> type:
    """The same fields and defaults in types that OmegaConf knows, neither frozen nor validated."""
    hints = get_type_hints(schema)
    twins: list[tuple[str, object, object]] = []
    for field in dataclasses.fields(schema):
        hint = _open_hint(hints[field.name])
        if field.default_factory is not dataclasses.MISSING:
            default = functools.partial(_open_default, field.default_factory)
        else:
            is_mandatory = field.default is dataclasses.MISSING
            default = functools.partial(_open_value, "???" if is_mandatory else field.default)
        twins.append((field.name, hint, dataclasses.field(default_factory=default)))
    return dataclasses.make_dataclass(schema.__name__, twins)


def _open_hint(hint: object) -> object:
    if dataclasses.is_dataclass(hint):
        return _open_twin(hint)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_open_hint(arm) for arm in args)]  # noqa: UP007 - built at run time
    if is_mapping_hint(hint):
        entry = _open_hint(args[1]) if args else Any
        is_section = dataclasses.is_dataclass(entry)
        return dict[str, entry | None] if is_section else dict[str, entry]  # type: ignore[valid-type]
    if origin in (tuple, list):
        return list[_open_hint(args[0])]  # type: ignore[misc]
    return Any if hint is object else hint


def _open_default(factory: Callable[[], object]) -> object:
    return _open_value(factory())


def _open_value(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = _open_twin(type(value))
        return twin(**{f.name: _open_value(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {k: _open_value(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_open_value(v) for v in value]
    return value


def _build(schema: type[T], values: Mapping[str, object], path: str) -> T:
    """The section itself, from the values of its twin."""
    hints = get_type_hints(schema)
    arguments = {key: _built(hints[key], value, f"{path}{key}.") for key, value in values.items()}
    try:
        return schema(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{path}{error}") from None


def _built(hint: object, value: object, path: str) -> object:
    section, is_mapping = section_of(hint)
    if section and isinstance(value, dict):
        if not is_mapping:
            return _build(section, value, path)
        return {k: _build(section, v, f"{path}{k}.") for k, v in value.items() if v is not None}
    hint = without_none(hint)
    if is_mapping_hint(hint) and get_args(hint)[1:] == (str,) and isinstance(value, dict):
        for name, entry in value.items():
            check(isinstance(entry, str), f"{path}{name}", entry, "text")
    if get_origin(hint) is tuple and isinstance(value, list):
        args = get_args(hint)
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ConfigError(f"{path[:-1]}: got {value!r}, must be a list of {len(args)} values")
        return tuple(_built(args[0], each, path) for each in value)
    return value
