"""Keeps what is written at a key of text: YAML would read `0123` as 83, `on` as true and `1e5` as a number.

This module knows type hints of dataclasses and no key of any of them.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import yaml

_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


def quoted(text: str, schema: object, path: Sequence[str] = ()) -> str:
    """Returns the same YAML with quotes around each value of a key whose type is text; null stays null.

    A mapping of any type may say which of its entries hold text: `Annotated[Arguments, {"env_vars":
    Mapping[str, str]}]`.

    Args:
        schema: type that the YAML is read into.
        path: keys that lead from `schema` to the place of the YAML.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    for key in path:
        schema = _entry(schema, key)
    node = yaml.compose(text, Loader=yaml.SafeLoader) if schema is not None else None
    if node is None:
        return text
    if without_none(schema) is str and not isinstance(node, yaml.ScalarNode):
        node = yaml.ScalarNode(_TEXT, text, style='"')  # `a: b`, `[a]`: text as it stands
    _quote(node, schema)
    return str(yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True, width=sys.maxsize))


def _quote(node: yaml.Node, hint: object) -> None:
    if hint is None:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == _MERGE:
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    _quote(each, hint)
            else:
                _quote(value, _entry(hint, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _quote(value, _entry(hint, ""))
    elif without_none(hint) is str and node.style is None and node.tag != _NULL:
        node.tag, node.style = _TEXT, '"'


def _entry(hint: object, key: str) -> object:
    """Returns the type of an entry, or None where it may be anything."""
    if get_origin(hint) is Annotated:
        known: Mapping[str, object] = get_args(hint)[1]
        return known.get(key)
    hint = without_none(hint)
    if dataclasses.is_dataclass(hint):
        return get_type_hints(hint, include_extras=True).get(key)
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[1]
    return args[0] if origin in (tuple, list) else None


def without_none(hint: object) -> object:
    """Returns a type hint without its None: `str` of `str | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        arms = [arm for arm in get_args(hint) if arm is not type(None)]
        return arms[0] if len(arms) == 1 else hint
    return hint
