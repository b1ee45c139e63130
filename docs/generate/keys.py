"""The page of all configuration keys: type, default, meaning, and what a resumed run may change."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import yaml
from generate.table import table

from emotion_task.config import PipelineConfig
from rlcore.config import RunConfig
from rlcore.config.io import plain
from rlcore.config.offline import PreferConfig
from rlcore.config.resuming import ACCEPTED, FREE, NEVER, RECORDED, rule_of

RESUMED = {FREE: "yes", RECORDED: "recorded", ACCEPTED: "accepted", NEVER: "no"}
"""What the page says of each rule."""


def page() -> str:
    """Returns the page."""
    seen: dict[type, tuple[str, Any]] = {}
    lines = [
        "# Configuration keys",
        "",
        "Written by `make pages` from the dataclasses; do not edit. "
        "[Configuration](configuration.md) says how files and settings are merged.",
        "",
        "## Of a run",
        "",
        "`rlcore train`, `rlcore evaluate`, `rlcore plan` and `rlcore submit` read these. With "
        "`emotion quickstart` each key starts with `rl.`. The last column says whether a resumed run may "
        "change the key: `yes`; `recorded`, which also writes the change down; `accepted`, with "
        "`--accept-changes`; or `no` ([resuming](../guides/runs.md#stopping-and-resuming)).",
        "",
        *_sections("", RunConfig(), seen, RunConfig),
        "## Of preferences",
        "",
        "`rlcore prefer` reads these ([preferences](../guides/preferences.md)).",
        "",
        *_sections("", PreferConfig(), seen, None),
        "## Of the emotion task's line",
        "",
        "`emotion quickstart` and `emotion ablation` read these, and those of a run below `rl`.",
        "",
        *_sections("", PipelineConfig(), seen, None),
    ]
    return "\n".join(lines)


def _sections(
    prefix: str, section: Any, seen: dict[type, tuple[str, Any]], schema: type | None
) -> Iterator[str]:
    """Yields the lines of a section, given with its defaults, and of those in it. A class is shown where it
    is met first; later sections refer to that one."""
    kind = type(section)
    seen[kind] = prefix.rstrip("."), section
    meanings, hints = field_docs(kind), get_type_hints(kind)
    rows, inner = [], []
    for field in dataclasses.fields(section):
        key, value, hint = prefix + field.name, getattr(section, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            inner.append((key, value))
        elif get_args(hint) and dataclasses.is_dataclass(of_entries := get_args(hint)[-1]):
            inner.append((f"{key}.NAME", of_entries()))
        else:
            row = [f"`{key}`", f"`{type_name(hint)}`", shown(value), meanings[field.name]]
            rows.append([*row, RESUMED[rule_of(schema, key)]] if schema else row)
    if prefix:
        yield from (f"### {prefix.rstrip('.')}", "", _sentence(kind.__doc__ or ""), "")
    if rows:
        yield from table(["key", "type", "default", "meaning", *(["resumed"] if schema else [])], rows)
    for key, value in inner:
        if type(value) not in seen:
            yield from _sections(f"{key}.", value, seen, schema)
            continue
        first, usual = seen[type(value)]
        own = [f"`{name}`: {shown(at)}" for name, at in _other_defaults(value, usual)]
        but = f", with other defaults: {'; '.join(own)}" if own else ""
        yield from (f"### {key}", "", f"The keys of {f'`{first}`' if first else 'a run, above'}{but}.", "")


def _other_defaults(section: Any, usual: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the keys of a section whose values are not the usual ones, and the values."""
    for field in dataclasses.fields(section):
        value, other = getattr(section, field.name), getattr(usual, field.name)
        if dataclasses.is_dataclass(value):
            yield from _other_defaults(value, other, f"{prefix}{field.name}.")
        elif value != other:
            yield prefix + field.name, value


def field_docs(section: type) -> dict[str, str]:
    """Returns what the source says below each field of a dataclass, on one line and fit for a table."""
    above = [base for base in section.__bases__ if dataclasses.is_dataclass(base)]
    docs = {name: meaning for base in above for name, meaning in field_docs(base).items()}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant)
            docs[field.target.id] = _sentence(below.value.value)
    return docs


def type_name(hint: Any) -> str:
    """Returns a type as the page shows it: without modules, and fit for a table."""
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)
    for long, short in (("NoneType", "null"), ("None", "null"), (", ...]", ", …]")):
        text = text.replace(long, short)
    return text.replace(" | ", " or ")


def shown(value: Any) -> str:
    """Returns a default as YAML would show it."""
    if value == "???":
        return "must be given"
    value = plain(value, lasting=True)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"`{text}`"


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
