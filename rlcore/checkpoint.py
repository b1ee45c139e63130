"""Checkpoints of a whole run: the learner's files and the controller's state in one folder.

    RUN/checkpoints/step_000040/
        learner/...        what the learner's ranks saved
        controller.json    step, policy version, gate, ...: whatever the controller gave
        complete.json      step, config digest, versions: written last

A checkpoint is written under another name and renamed when it is whole, so a run that is killed while saving
leaves nothing that could be taken for one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlcore.config import RunConfig
from rlcore.errors import CheckpointError

LEARNER_LAYOUT = (
    "num_ranks",
    "num_cpus",
    "num_gpus",
    "resources",
    "ranks_per_node",
    "zero_stage",
    "offload_optimizer",
    "offload_parameters",
    "activation_checkpointing",
    "timeout_s",
)
"""Settings of the learner that a resumed run may change."""

COMPLETE = "complete.json"
CONTROLLER = "controller.json"


def config_digest(config: RunConfig) -> str:
    """16 hex digits that change with whatever changes the run's results; its place and machines do not, and
    how the learner is laid out over them changes no more than rounding."""
    fields = dataclasses.asdict(config)
    for place in ("run_dir", "cluster"):
        del fields[place]
    for layout in LEARNER_LAYOUT:
        del fields["learner"][layout]
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def writing(
    folder: str | Path,
    *,
    step: int,
    state: Mapping[str, Any],
    digest: str,
    versions: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Iterator[Path]:
    """Gives a folder to write into; when the block ends well it becomes the checkpoint of `step`.

    `folder` holds all checkpoints of the run, of which the `keep` newest stay. `state` is the controller's,
    JSON values only. An exception in the block leaves the checkpoints as they were.
    """
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_json(partial / CONTROLLER, state)
        write_json(
            partial / COMPLETE, {"step": step, "config_digest": digest, "versions": dict(versions or {})}
        )
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)


def latest(folder: str | Path) -> Path | None:
    """The newest complete checkpoint below `folder`, if there is one."""
    complete = _complete(Path(folder))
    return complete[-1] if complete else None


def read(checkpoint: str | Path, *, digest: str | None = None) -> dict[str, Any]:
    """The controller's state of a checkpoint; the learner's files lie in its `learner` folder.

    Raises CheckpointError where it is missing or incomplete, or where `digest` is given and differs.
    """
    checkpoint = Path(checkpoint)
    marker = read_json(checkpoint / COMPLETE)
    if digest is not None and marker["config_digest"] != digest:
        raise CheckpointError(
            f"{checkpoint}: written under another configuration (digest {marker['config_digest']}, this run "
            f"has {digest}); resume with the config.yaml of that run, or start in a new run_dir"
        )
    return read_json(checkpoint / CONTROLLER)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes and syncs, then renames: a reader sees the whole file or none."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError where the file is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: missing, so {path.parent} is no complete checkpoint; use an older one or start anew"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not readable as JSON ({error}); choose an older checkpoint"
        ) from error


def _complete(folder: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in folder.glob("step_*") if (path / COMPLETE).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))
