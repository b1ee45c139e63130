"""Trees of mappings and lists, as the fuzz tests take them apart."""

from __future__ import annotations

from collections.abc import Iterator


def places(tree: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yields the path of every entry of a tree."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in entries:
        yield (*path, name)
        yield from places(value, (*path, name))
