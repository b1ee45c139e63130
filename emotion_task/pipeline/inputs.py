"""Names, by key, what the stages read that no stage made: files, models and recordings of the user's.

A finished stage is run again where one of them has changed. Small files are known by their content, large
ones and folders by sizes and times of change. What lies below `run_dir` is made by the stages themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from emotion_task.config import CorpusConfig, PipelineConfig
from emotion_task.corpora import find_corpus
from emotion_task.corpora.manifest import find_lists
from emotion_task.corpora.reading.listing import CONTAINERS, READABLE
from emotion_task.pipeline.stages import Reads
from emotion_task.records import read_manifest
from rlcore.errors import DataError

_LARGE = 1 << 26
"""Bytes from which on a file is known by its size and time of change."""
_MODEL_FILES = ("config.json", "adapter_config.json")


def stage_inputs(config: PipelineConfig, run_dir: Path, listed: Path) -> Mapping[str, Callable[[], Reads]]:
    """Returns, by the stage's name, a function that looks at what the stage reads now.

    Args:
        run_dir: the run's folder, absolute and without links.
        listed: the corpus' manifest, as the first stage leaves it there.
    """

    def named(**sections: object) -> Callable[[], Reads]:
        return lambda: dict(_named(sections, "", run_dir))

    sft = config.sft
    return {
        "corpus": lambda: _corpus(config.corpus, run_dir),
        "annotate": lambda: _recordings(config.corpus, listed),
        "base_model": named(base_model=config.base_model),
        "alignment": named(
            alignment=config.alignment, sft={"text_data": sft.text_data if config.alignment.weights else None}
        ),
        "sft": named(sft=sft),
        "cold_start": named(cold_start=config.cold_start),
        "reward_model": named(reward_model=config.reward_model),
        "rl": named(rl=config.rl),
    }


def named_inputs(value: object, key: str) -> Reads:
    """Returns the files and models that a section of a configuration names, wherever they lie.

    Args:
        key: the section's own key.
    """
    return dict(_named(value, key, None))


def _named(value: object, key: str, run_dir: Path | None) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields key, path and stamp of each text that names a file or a model's folder outside `run_dir`."""
    items: Mapping[object, object] = {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f.name for f in dataclasses.fields(value) if not f.metadata.get("may_change"))
        items = {name: getattr(value, name) for name in kept}
    elif isinstance(value, Mapping):
        items = value
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value))
    elif isinstance(value, str) and value:
        path = os.path.realpath(os.path.expanduser(value))
        is_made = run_dir is not None and Path(path).is_relative_to(run_dir)
        # os.path: a text that is no path at all (a long prompt) is no error there.
        is_model = any(os.path.isfile(os.path.join(path, name)) for name in _MODEL_FILES)
        if not is_made and (is_model or os.path.isfile(path)):
            yield key, (path, _stamp(Path(path)))
    for name, each in items.items():
        yield from _named(each, f"{key}.{name}" if key else str(name), run_dir)


def _corpus(config: CorpusConfig, run_dir: Path) -> Reads:
    reads = dict(_named(config.args, "corpus.args", run_dir))
    if config.root is None or not (root := Path(config.root).expanduser()).exists():
        return reads
    if config.name == "manifest":
        file = config.args.get("file")
        try:
            lists = find_lists(root, file if isinstance(file, str) else None)
        except DataError:  # the stage itself says it, where it has to be run
            return reads
        return {**reads, "corpus.root": (str(lists[0]), _digest([_stamp(path) for path in lists]))}
    # What the reader itself writes (turns that are cut out) is no input.
    own = {os.path.realpath(os.path.expanduser(v)) for v in config.args.values() if isinstance(v, str)}
    without = {str(run_dir), *own} - {os.path.realpath(root)}
    return {**reads, "corpus.root": (str(root), _stamp(root, without, is_corpus=True))}


def _recordings(config: CorpusConfig, listed: Path) -> Reads:
    """The recordings that the manifest lists, unless the run has made them."""
    if not listed.is_file() or find_corpus(config.name).make is not None:
        return {}
    found = [(path, _seen(path)) for path in sorted({u.audio for u in read_manifest(listed)})]
    if not any(seen for _, seen in found):  # a disk that is not mounted
        return {}
    return {"recordings": (f"a recording of {listed}", _digest(found))}


def _stamp(path: Path, without: set[str] | None = None, *, is_corpus: bool = False) -> str:
    """Returns what tells a file or folder from a changed one.

    Args:
        without: folders, by their real paths, that are passed over.
        is_corpus: of recordings in the folder only the names count: who measures them looks at them.
    """
    if path.is_file():
        if path.stat().st_size >= _LARGE:
            return _digest(_seen(path))
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    without = set(without or ())
    seen: list[object] = []
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in without else sorted(f for f in folders if not f.startswith("."))
        if real in without:
            continue
        without.add(real)  # links may lead round in a circle
        for name in sorted(n for n in names if not n.startswith(".")):
            is_sound = is_corpus and Path(name).suffix.lower() in READABLE | CONTAINERS
            at = os.path.join(folder, name)
            seen.append((os.path.relpath(at, path), None if is_sound else _seen(at)))
    return _digest(seen)


def _seen(path: str | Path) -> tuple[int, int] | None:
    """Returns a file's size in bytes and its time of change in nanoseconds; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()[:16]
