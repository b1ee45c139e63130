"""Checkpoints of a whole run: the learner's files and the controller's state in one folder.

    RUN/checkpoints/step_000040/
        learner/...        what the learner's ranks saved
        controller.json    step, policy version, schedule, ...: whatever the controller gave
        complete.json      step, settings, versions: written last

A checkpoint is written under another name and renamed when it is whole and on the disk: a kill or a power cut
while it is saved leaves nothing that could be taken for one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcore.config import RunConfig
from rlcore.config import io as config_io
from rlcore.config.resuming import ACCEPTED, NEVER, rule_of
from rlcore.errors import CheckpointError
from rlcore.records.files import JsonObject, replaced, write_json

_MAX_SHOWN = 5
_ADVICE = {
    NEVER: "These never change: resume with the settings of that run, or start in a new run_dir",
    ACCEPTED: "With --accept-changes beside --resume the run goes on with the new values, and records them; "
    "else resume with the settings of that run, or start in a new run_dir",
}
COMPLETE = "complete.json"
CONTROLLER = "controller.json"


class DamagedCheckpointError(CheckpointError):
    """A part of a checkpoint is missing or cannot be read. An older checkpoint may do."""


def run_settings(config: RunConfig) -> dict[str, Any]:
    """Returns what the run's results depend on, JSON-ready. Left out are the settings that a resumed run may
    change freely (`MAY_CHANGE` in the configuration's classes); they change results by no more than rounding.
    What came from the environment stands as `${oc.env:NAME}`: a key may change."""
    return config_io.plain(config, lasting=True)


@contextmanager
def writing(
    folder: str | Path,
    *,
    step: int,
    state: Mapping[str, object],
    settings: Mapping[str, object],
    versions: Mapping[str, str] | None = None,
    keep: int = 2,
    is_rolling: bool = False,
) -> Iterator[Path]:
    """Yields a folder to write into, which becomes the checkpoint of `step` when the block ends well.

    An exception in the block leaves the checkpoints as they were.

    Args:
        folder: holds all checkpoints of the run.
        state: the controller's, of JSON values.
        settings: the run's (`run_settings`), which a resumed run is compared with.
        keep: this many checkpoints stay, the newest ones, beside a rolling one that is newer.
        is_rolling: the next checkpoint takes the place of this one.
    """
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    with replaced(final, durable=True) as partial:
        partial.mkdir()
        yield partial
        write_json(partial / CONTROLLER, state, durable=True)
        marker = {"step": step, "settings": settings, "versions": dict(versions or {})}
        marker |= {"is_rolling": is_rolling}
        write_json(partial / COMPLETE, marker, durable=True)
    found = complete(folder)
    lasting = [path for path in found if not _is_rolling(path)]
    for old in found[:-1]:
        if old not in lasting[-keep:]:
            shutil.rmtree(old)


def complete(folder: str | Path) -> list[Path]:
    """Returns the complete checkpoints below `folder`, oldest first."""
    return [path for path in numbered(folder) if (path / COMPLETE).is_file()]


def numbered(folder: str | Path) -> list[Path]:
    """Returns the checkpoints below `folder`, complete or not, oldest first.

    Copies under names of the user's own may lie beside them, and are left out.
    """
    found = [path for path in Path(folder).glob("step_*") if re.fullmatch(r"step_\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def _is_rolling(checkpoint: Path) -> bool:
    with suppress(DamagedCheckpointError):
        return bool(read_json(checkpoint / COMPLETE).get("is_rolling"))
    return False


def clear(folder: str | Path) -> None:
    """Deletes the checkpoints below `folder`, and what a kill has left of one. Copies under names of the
    user's own stay."""
    for path in [*numbered(folder), *Path(folder).glob(".step_*.partial")]:
        shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class Change:
    """A change is a setting that a resumed run has another value of than the run that it goes on from."""

    key: str
    before: object
    """None where there was none."""
    now: object

    @property
    def rule(self) -> str:
        """Says who may make the change (`rlcore.config.resuming`)."""
        return rule_of(RunConfig, self.key)

    def __str__(self) -> str:
        return f"{self.key} was {self.before}, is {self.now}"


def changes(checkpoint: Path, settings: Mapping[str, object]) -> list[Change]:
    """Returns the settings that differ from those that a checkpoint was written under.

    Raises:
        DamagedCheckpointError: the checkpoint is missing or incomplete.
    """
    return list(_changes(read_json(checkpoint / COMPLETE).get("settings", {}), settings))


def read(
    checkpoint: str | Path, *, settings: Mapping[str, object] | None = None, accept_changes: bool = False
) -> JsonObject:
    """Returns the controller's state of a checkpoint, whose folder `learner` holds the learner's files.

    Args:
        settings: those of the run that goes on.
        accept_changes: takes changes that make another run of it from here on.

    Raises:
        DamagedCheckpointError: the checkpoint is missing or incomplete.
        CheckpointError: the checkpoint was written under other settings, which may not change, or not without
            `accept_changes`; names them.
    """
    checkpoint = Path(checkpoint)
    for rule, advice in _ADVICE.items():
        found = [] if settings is None else [c for c in changes(checkpoint, settings) if c.rule == rule]
        if found and not (rule == ACCEPTED and accept_changes):
            shown = "; ".join([*map(str, found[:_MAX_SHOWN]), *(["..."] if found[_MAX_SHOWN:] else [])])
            raise CheckpointError(f"{checkpoint}: written under another configuration: {shown}. {advice}")
    return read_json(checkpoint / CONTROLLER)


def _changes(before: object, now: object, path: str = "") -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            yield from _changes(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield Change(path, before, now)


def read_json(path: Path) -> JsonObject:
    """Reads one JSON file of a checkpoint.

    Raises:
        DamagedCheckpointError: the file is missing or malformed.
    """
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
