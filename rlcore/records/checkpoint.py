"""Checkpoints of a whole run: the learner's files and the controller's state in one folder.

    RUN/checkpoints/step_000040/
        learner/...        what the learner's ranks saved
        controller.json    step, policy version, gate, ...: whatever the controller gave
        complete.json      step, settings, versions: written last

A checkpoint is written under another name and renamed when it is whole and on the disk: a kill or a power cut
while it is saved leaves nothing that could be taken for one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlcore.config import RunConfig
from rlcore.config import io as config_io
from rlcore.errors import CheckpointError

_MAX_SHOWN = 5
COMPLETE = "complete.json"
CONTROLLER = "controller.json"


class DamagedCheckpointError(CheckpointError):
    """A part of it is missing or cannot be read. An older one may do."""


def run_settings(config: RunConfig) -> dict[str, Any]:
    """Returns what the run's results depend on, JSON-ready. Left out are the settings that a resumed run may
    change (`MAY_CHANGE` in the configuration's classes); they change results by no more than rounding. What
    came from the environment stands as `${oc.env:NAME}`: a key may change."""
    return config_io.plain(config, lasting=True)


@contextmanager
def writing(
    folder: str | Path,
    *,
    step: int,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Iterator[Path]:
    """Gives a folder to write into; when the block ends well it becomes the checkpoint of `step`.

    `folder` holds all checkpoints of the run, of which the `keep` newest stay. `state` is the controller's,
    `settings` are the run's (`run_settings`); JSON values only. An exception in the block leaves the
    checkpoints as they were.
    """
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_json(partial / CONTROLLER, state)
        write_json(partial / COMPLETE, {"step": step, "settings": settings, "versions": dict(versions or {})})
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in complete(folder)[:-keep]:
        shutil.rmtree(old)


def complete(folder: str | Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first."""
    found = [path for path in Path(folder).glob("step_*") if (path / COMPLETE).is_file()]
    # Beside them may lie copies under names of the user's own.
    numbered = [path for path in found if re.fullmatch(r"step_\d+", path.name)]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step_")))


def latest(folder: str | Path) -> Path | None:
    """The newest complete checkpoint below `folder`, if there is one."""
    found = complete(folder)
    return found[-1] if found else None


def read(checkpoint: str | Path, *, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The controller's state of a checkpoint; the learner's files lie in its `learner` folder.

    Raises DamagedCheckpointError where it is missing or incomplete, and CheckpointError where it was written
    under other settings than `settings` (names them).
    """
    checkpoint = Path(checkpoint)
    marker = read_json(checkpoint / COMPLETE)
    if settings is not None and (changed := list(_changes(marker.get("settings", {}), settings))):
        shown = "; ".join([*changed[:_MAX_SHOWN], *(["..."] if changed[_MAX_SHOWN:] else [])])
        raise CheckpointError(
            f"{checkpoint}: written under another configuration: {shown}. Resume with the settings of that "
            "run, or start in a new run_dir"
        )
    return read_json(checkpoint / CONTROLLER)


def _changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Settings that differ, as `learner.lr was 1e-06, is 2e-06`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            yield from _changes(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield f"{path} was {before}, is {now}"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes and syncs, then renames: a reader sees the whole file or none. At the end it is on the disk, and
    so are the names beside it."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """Raises DamagedCheckpointError where the file is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedCheckpointError(
            f"{path}: missing, so {path.parent} is no complete checkpoint; use an older one or start anew"
        ) from error
    except ValueError as error:
        raise DamagedCheckpointError(
            f"{path}: not readable as JSON ({error}); choose an older checkpoint"
        ) from error
