"""The folder of a run: in which one a run may begin or go on, and what is said where it cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlcore.errors import (
    ActorError,
    CheckpointError,
    ConfigError,
    DeadlineError,
    RLCoreError,
    StorageError,
    message_of,
)
from rlcore.records import checkpoint
from rlcore.records.tracking import METRICS, SAMPLES
from rlcore.records.witness import what_is_saved


def check_folder(run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses a folder whose run would be deleted without being asked for, and one without a checkpoint to go
    on from.

    Raises:
        ConfigError: the folder holds a run and neither `resume` nor `overwrite` is given.
        CheckpointError: there is no checkpoint to resume from.
    """
    if overwrite:
        return
    checkpoints = checkpoint.numbered(run_dir / "checkpoints")
    if resume:
        if not checkpoint.complete(run_dir / "checkpoints"):
            raise CheckpointError(
                f"run_dir: {run_dir} holds no complete checkpoint that --resume could go on from. Without "
                "--resume a run begins there; --overwrite deletes one that lies there already"
            )
        return
    files = [path for path in map(run_dir.joinpath, (METRICS, SAMPLES, "model")) if path.exists()]
    # Before its first evaluation a run has files, and no rows in them.
    found = [path.name for path in [*checkpoints, *files] if path.is_dir() or path.stat().st_size]
    if found:
        raise ConfigError(
            f"run_dir: {run_dir} holds a run ({', '.join(found)}): --resume goes on from its last "
            "checkpoint, --overwrite deletes it and begins anew. Or choose another run_dir"
        )


@contextmanager
def resumable(run_dir: Path) -> Iterator[None]:
    """Adds what is saved, and which command goes on, to the error of an actor that was lost and of a file in
    `run_dir` that cannot be written.

    Raises:
        ActorError, DeadlineError: an actor died, or gave no answer.
        StorageError: a file cannot be written.
    """
    try:
        yield
    except (ActorError, DeadlineError) as error:
        raise type(error)(f"{message_of(error)}. {what_is_saved(run_dir)}") from error
    except OSError as error:
        if isinstance(error, RLCoreError):
            if not isinstance(error, StorageError):
                raise
            told = message_of(error)
        elif error.filename is not None and run_dir in Path(str(error.filename)).parents:
            told = f"{error.filename}: {error.strerror}"
        else:
            raise
        raise StorageError(
            f"{told}. {what_is_saved(run_dir)}, once that is put right"
            if run_dir.is_dir()
            else f"{told}. Put {run_dir} back with its checkpoints, and --resume goes on from the last"
        ) from error
