"""Checkpoints of a whole run: the learner's files and the controller's state in one folder.

    RUN/checkpoints/step_000040/
        learner/...        what the learner's ranks saved
        controller.json    step, policy version, schedule, ...: whatever the controller gave
        complete.json      step, settings, versions, digests: written last

`complete.json` has digests of itself and of every other JSON file; the learner's `engine.json` has those of
the large files, made by the ranks that wrote them. So a flipped bit is found, and a part of another
checkpoint.

A checkpoint is written under another name and renamed when it is whole and on the disk: a kill or a power cut
while it is saved leaves nothing that could be taken for one.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from rlcore.config import RunConfig
from rlcore.config import io as config_io
from rlcore.config.resuming import ACCEPTED, NEVER, is_default, rule_of
from rlcore.errors import CheckpointError, StorageError, message_of
from rlcore.records.files import JsonObject, replaced, write_json

log = logging.getLogger(__name__)

_MAX_SHOWN = 5
_ADVICE = {
    NEVER: "These never change: resume with the settings of that run, or start in a new run_dir",
    ACCEPTED: "With --accept-changes beside --resume the run goes on with the new values, and records them; "
    "else resume with the settings of that run, or start in a new run_dir",
}
COMPLETE = "complete.json"
CONTROLLER = "controller.json"
DIGESTS = "digests"


class DamagedCheckpointError(CheckpointError):
    """A part of a checkpoint is missing or cannot be read. An older checkpoint may do."""


def run_settings(config: RunConfig) -> dict[str, Any]:
    """Returns what the run's results depend on, JSON-ready. Left out are the settings that a resumed run may
    change freely (`MAY_CHANGE` in the configuration's classes); they change results by no more than rounding.
    What came from the environment stands as `${oc.env:NAME}`: a key may change. Precisions stand as what they
    are, as the default depends on GPUs."""
    settings: dict[str, Any] = config_io.plain(config, lasting=True)
    settings["model"]["dtype"] = config.rollout_dtype
    settings["learner"]["precision"] = config.learner.own_precision
    return settings


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

    Raises:
        StorageError: a file of the checkpoint, be it the learner's, cannot be written.
    """
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    try:
        with replaced(final, durable=True) as partial:
            partial.mkdir()
            yield partial
            write_json(partial / CONTROLLER, state, durable=True)
            marker = {"step": step, "settings": settings, "versions": dict(versions or {})}
            write_marker(partial / COMPLETE, marker | {"is_rolling": is_rolling})
    except (CheckpointError, StorageError) as error:
        raise StorageError(f"the checkpoint of step {step} is not saved: {message_of(error)}") from error
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
    """Returns the settings that differ from those that a checkpoint was written under. A warning says where
    the checkpoint has no digests.

    Raises:
        DamagedCheckpointError: the checkpoint is missing or incomplete.
    """
    marker = _complete_marker(checkpoint)
    warn_without_digests(checkpoint / COMPLETE, marker)
    return list(_changes(marker["settings"], settings))


def read(
    checkpoint: str | Path, *, settings: Mapping[str, object] | None = None, accept_changes: bool = False
) -> JsonObject:
    """Returns the controller's state of a checkpoint, whose folder `learner` holds the learner's files. All
    JSON files of the checkpoint are those that were saved together.

    Args:
        settings: those of the run that goes on.
        accept_changes: takes changes that make another run of it from here on.

    Raises:
        DamagedCheckpointError: the checkpoint is missing, incomplete, or not as it was saved.
        CheckpointError: the checkpoint was written under other settings, which may not change, or not without
            `accept_changes`; names them.
    """
    checkpoint = Path(checkpoint)
    marker = _complete_marker(checkpoint)
    state = read_json(checkpoint / CONTROLLER)
    if state.get("step") != marker["step"]:
        raise DamagedCheckpointError(
            f"{checkpoint / CONTROLLER}: of step {state.get('step')!r}, and {COMPLETE} of {marker['step']}; "
            "use an older checkpoint"
        )
    found = [] if settings is None else list(_changes(marker["settings"], settings))
    for rule, advice in _ADVICE.items():
        of_rule = [change for change in found if change.rule == rule]
        if of_rule and not (rule == ACCEPTED and accept_changes):
            shown = "; ".join([*map(str, of_rule[:_MAX_SHOWN]), *(["..."] if of_rule[_MAX_SHOWN:] else [])])
            raise CheckpointError(f"{checkpoint}: written under another configuration: {shown}. {advice}")
    return state


def _complete_marker(checkpoint: Path) -> JsonObject:
    """Returns `complete.json` of a checkpoint.

    Raises DamagedCheckpointError where a JSON file is not as it was saved, or the folder has the name of
    another step.
    """
    path = checkpoint / COMPLETE
    marker = read_marker(path)
    for name, kind in (("step", int), ("settings", dict)):
        if type(marker.get(name)) is not kind:
            raise DamagedCheckpointError(f"{path}: {name} is {marker.get(name)!r}; use an older checkpoint")
    if re.fullmatch(r"step_\d+", checkpoint.name) and checkpoint.name != f"step_{marker['step']:06d}":
        raise DamagedCheckpointError(f"{path}: of step {marker['step']}; use an older checkpoint")
    return marker


def file_digest(path: Path) -> str:
    """Computes xxh3 of a file's bytes, hexadecimal: finds what chance has changed, no forgery."""
    digest = xxhash.xxh3_64()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def write_marker(path: Path, marker: Mapping[str, object]) -> None:
    """Writes the JSON file that makes a folder a whole checkpoint, last: `marker`, and digests of itself and
    of the JSON files in the folder and below. It is on the disk then."""
    folder = path.parent
    others = {str(each.relative_to(folder)): file_digest(each) for each in sorted(folder.rglob("*.json"))}
    write_json(path, {**marker, DIGESTS: {**others, path.name: _own_digest(marker, others)}}, durable=True)


def read_marker(path: Path) -> JsonObject:
    """Returns what `write_marker` wrote. That of an earlier version has no `digests`.

    Raises:
        DamagedCheckpointError: the marker, or a JSON file that was saved with it, is missing or another one.
    """
    marker = read_json(path)
    # By the value too: a bit may have been flipped in the name of the digests.
    is_there = any(isinstance(value, dict) and path.name in value for value in marker.values())
    if DIGESTS not in marker and not is_there:
        return marker
    digests = marker[DIGESTS] if isinstance(marker.get(DIGESTS), dict) else {}
    others = {name: digest for name, digest in digests.items() if name != path.name}
    rest = {name: value for name, value in marker.items() if name != DIGESTS}
    if digests.get(path.name) != _own_digest(rest, others):
        raise DamagedCheckpointError(f"{path}: not as it was written; use an older checkpoint")
    for name, digest in others.items():
        check_digest(path.parent / name, digest)
    return marker


def check_digest(path: Path, digest: str) -> None:
    """Raises DamagedCheckpointError where a file is missing, or is not the one that had this digest."""
    if not path.is_file():
        raise DamagedCheckpointError(f"{path}: missing; use an older checkpoint")
    if file_digest(path) != digest:
        raise DamagedCheckpointError(
            f"{path}: damaged, or of another checkpoint: its digest is not the one that was saved; use an "
            "older checkpoint"
        )


def warn_without_digests(path: Path, marker: JsonObject) -> None:
    """Says in the log where a marker, as `read_marker` gave it, has no digests."""
    if DIGESTS not in marker:
        log.warning(
            "%s: an earlier version wrote this checkpoint, without digests: its files are whole, but whether "
            "each bit is as it was saved cannot be told",
            path,
        )


def _own_digest(marker: Mapping[str, object], others: Mapping[str, str]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps([marker, others]).encode())


def _changes(before: object, now: object, path: str = "") -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            key = f"{path}.{name}" if path else name
            # A key that came with a later version, by whose default nothing changes.
            if name in before or not is_default(RunConfig, key, now[name]):
                yield from _changes(before.get(name), now.get(name), key)
    elif before != now:
        yield Change(path, before, now)


def read_json(path: Path) -> JsonObject:
    """Reads one JSON file of a checkpoint.

    Raises:
        DamagedCheckpointError: the file is missing, malformed or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedCheckpointError(
            f"{path}: missing, so {path.parent} is no complete checkpoint; use an older one or start anew"
        ) from error
    except ValueError as error:
        raise DamagedCheckpointError(
            f"{path}: not readable as JSON ({error}); choose an older checkpoint"
        ) from error
    if not isinstance(value, dict):
        raise DamagedCheckpointError(f"{path}: no JSON object, but {value!r:.80}; choose an older checkpoint")
    return value
