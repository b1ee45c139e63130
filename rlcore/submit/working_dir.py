"""The files that Ray would copy to the cluster, and their sizes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from rlcore.errors import ConfigError

MB = 1e6


def check_working_dir(
    folder: Path, exclude: Sequence[str], *, max_mb: float, needed: Sequence[str]
) -> dict[PurePosixPath, int]:
    """Returns the files that would travel, and their bytes.

    Raises:
        ConfigError: they are more than `max_mb`, with the largest named, or one of `needed` (paths in the
            folder) is not among them.
    """
    sizes = files_to_copy(folder, exclude)
    there = {*sizes, *(parent for path in sizes for parent in path.parents)}
    missing = [name for name in needed if PurePosixPath(name) not in there]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: would stay here, because .gitignore, .rayignore or cluster.job.exclude "
            f"({', '.join(exclude)}) names it; the job needs it: let it travel, or put it where the nodes "
            "find it and give that place as an absolute path"
        )
    total = sum(sizes.values()) / MB
    if total > max_mb:
        largest = "\n".join(f"  {size / MB:9.1f} MB  {path}" for path, size in heaviest(sizes))
        raise ConfigError(
            f"cluster.job.working_dir: {folder} has {total:.1f} MB to copy, cluster.job.max_mb: {max_mb:g}. "
            f"Name in .rayignore or cluster.job.exclude what the job does not need:\n{largest}"
        )
    return sizes


def files_to_copy(folder: Path, exclude: Sequence[str]) -> dict[PurePosixPath, int]:
    """Returns the bytes of each file that Ray's own walk of `folder` finds: both agree on the patterns."""
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes: dict[PurePosixPath, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            sizes[PurePosixPath(path.relative_to(folder).as_posix())] = os.stat(path).st_size

    quiet = logging.getLogger(f"{__name__}.walk")
    quiet.setLevel(logging.WARNING)
    _dir_travel(folder, [_get_excludes(folder, list(exclude))], add, include_gitignore=True, logger=quiet)
    return sizes


def heaviest(sizes: Mapping[PurePosixPath, int], count: int = 5) -> list[tuple[PurePosixPath, int]]:
    """Returns the largest entries and their bytes, the largest first.

    Each is followed down for as long as one thing in it is more than half of it.
    """
    totals: Counter[PurePosixPath] = Counter()
    children: dict[PurePosixPath, set[PurePosixPath]] = {}
    for path, size in sizes.items():
        totals[path] += size
        below = path
        for parent in path.parents:
            totals[parent] += size
            children.setdefault(parent, set()).add(below)
            below = parent

    def narrow(path: PurePosixPath) -> PurePosixPath:
        largest = max(children.get(path, ()), key=lambda child: totals[child], default=None)
        return narrow(largest) if largest is not None and totals[largest] > totals[path] / 2 else path

    top = sorted(children.get(PurePosixPath("."), ()), key=lambda path: (-totals[path], path))[:count]
    return sorted(((found, totals[found]) for found in map(narrow, top)), key=lambda entry: -entry[1])
