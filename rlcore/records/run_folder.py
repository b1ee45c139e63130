"""The rule which folders a run may begin in, or go on in."""

from __future__ import annotations

from pathlib import Path

from rlcore.errors import CheckpointError, ConfigError
from rlcore.records import checkpoint
from rlcore.records.tracking import METRICS, SAMPLES


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
