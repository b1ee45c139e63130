"""The files that Ray would copy to the cluster, and their sizes."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rlcore.errors import ConfigError

MB = 1e6
IGNORE_FILES = (".gitignore", ".rayignore")


def check_working_dir(
    folder: Path, exclude: Sequence[str], *, max_mb: float, needed: Mapping[str, Sequence[str]]
) -> dict[PurePosixPath, int]:
    """Returns the files that would travel, and their bytes.

    Args:
        needed: files and folders below `folder` that the job needs, by the key that names them.

    Raises:
        ConfigError: they are more than `max_mb`, with the largest named, or something needed is not among
            them, with the line that keeps it here.
    """
    sizes = files_to_copy(folder, exclude)
    left = [
        f"{key}: {path} would stay here, because {_reason(folder, path, exclude)}"
        for key, paths in needed.items()
        for path in _left_behind(folder, paths, sizes)
    ]
    if left:
        raise ConfigError(
            "\n".join(left) + "\nThe job runs in a copy of cluster.job.working_dir and would not find it: "
            "un-ignore it (take the line out, or narrow it), or put it on storage that all nodes share and "
            "give that place as an absolute path"
        )
    total = sum(sizes.values()) / MB
    if total > max_mb:
        largest = "\n".join(f"  {size / MB:9.1f} MB  {path}" for path, size in heaviest(sizes))
        raise ConfigError(
            f"cluster.job.working_dir: {folder} has {total:.1f} MB to copy, cluster.job.max_mb: {max_mb:g}. "
            f"Name in .rayignore or cluster.job.exclude what the job does not need:\n{largest}"
        )
    return sizes


def _left_behind(
    folder: Path, paths: Sequence[str], sizes: Mapping[PurePosixPath, int]
) -> Iterator[PurePosixPath]:
    """Yields the first file of each path that does not travel, or the path itself where nothing of it does.

    Python's caches and hidden files in a folder are not missed.
    """
    there = {*sizes, *(parent for path in sizes for parent in path.parents)}
    for path in map(PurePosixPath, paths):
        if path not in there:
            yield path
            continue
        files = (each for each in sorted((folder / path).rglob("*")) if each.is_file())
        inside = (PurePosixPath(each.relative_to(folder).as_posix()) for each in files)
        missed = (each for each in inside if each not in sizes and not _is_by_the_way(each.relative_to(path)))
        yield from itertools.islice(missed, 1)


def _is_by_the_way(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _reason(folder: Path, path: PurePosixPath, exclude: Sequence[str]) -> str:
    """Names the line that keeps a path here: the last that matches the path or a folder above it."""
    from ray._private.thirdparty.pathspec import PathSpec  # the one that Ray's own walk asks

    if path.parts[0] == "..":
        return f"it lies outside of {folder}"
    places: list[tuple[str, PurePosixPath, Sequence[str]]] = []
    for parent in [*reversed(path.parents)]:
        for name in IGNORE_FILES:
            file = folder / parent / name
            if file.is_file():
                places.append((f"line %d of {parent / name}", parent, file.read_text("utf-8").splitlines()))
    places.append(("entry %d of cluster.job.exclude", PurePosixPath(), exclude))
    for place, root, lines in places:
        # A folder that is left out is not looked into: its own line counts.
        for part in [*reversed(path.relative_to(root).parents), path.relative_to(root)][1:]:
            hits = [
                (number, line)
                for number, line in enumerate(lines, 1)
                if line.strip() and PathSpec.from_lines("gitwildmatch", [line]).match_file(str(part))
            ]
            if hits and PathSpec.from_lines("gitwildmatch", lines).match_file(str(part)):
                number, line = hits[-1]
                return f"{place % number} names it ({line.strip()})"
    return f"it is no file or folder below {folder}"


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
