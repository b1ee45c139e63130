"""Buckets through /dev/shm: the sender packs into a few slots of one file, engines on the machine map it.

Small slots are the point: a bucket is still in the processor's shared cache when the engine copies it out, so
only the plain copy's traffic reaches memory, and memory stays bounded however large the model is.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from rlcore.errors import WeightSyncError
from rlcore.records.files import why
from rlcore.weight_sync.base import MediumIn, MediumOut, Message

FOLDER = Path("/dev/shm")
PREFIX = "rlcore-weights-"


class SharedMemoryOut(MediumOut):
    """Owns one file of shared memory, readable by its user alone, and removes the file at exit. The
    file is locked meanwhile: processes of other containers, which may share /dev/shm, have no other sign that
    its owner lives.

    Args:
        num_bytes: size of a slot.
        num_slots: buckets that may be under way at once.

    Raises:
        WeightSyncError: /dev/shm is missing or has not room enough.
    """

    def __init__(self, num_bytes: int, num_slots: int):
        _remove_orphans()
        self._path = FOLDER / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self._file = _create(self._path, num_slots * num_bytes)
        mapped = torch.from_file(str(self._path), shared=True, size=num_slots * num_bytes, dtype=torch.uint8)
        self.slots: tuple[Tensor, ...] = mapped.split(num_bytes)
        atexit.register(self.close)

    def plan(self, held: list[Message]) -> Message:
        """Tells where the slots lie; `held` (what receivers hold on to) does not matter."""
        return {"path": str(self._path), "num_bytes": self.slots[0].numel(), "num_slots": len(self.slots)}

    def close(self) -> None:
        """Removes the file; engines that have mapped it keep their memory."""
        self.slots = ()
        atexit.unregister(self.close)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._file.close()


class SharedMemoryIn(MediumIn):
    """The engine's end: the sender's file, mapped."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._slots: tuple[Tensor, ...] = ()

    def connect(self, plan: Message, host: str, rank: int, timeout_s: float) -> None:
        """Maps the file, unless it is mapped already.

        Raises:
            WeightSyncError: no such file here.
        """
        if plan["path"] == self._path:
            return
        try:
            # Copy on write: nothing that an engine does can change what its neighbours read. (torch.from_file
            # would create a file that is not there.)
            size = plan["num_bytes"] * plan["num_slots"]
            mapped = np.memmap(plan["path"], dtype=np.uint8, mode="c", shape=(size,))
        except (OSError, ValueError) as error:
            raise WeightSyncError(
                f"cannot map {plan['path']} on {os.uname().nodename} ({error}). weight_sync.backend "
                "shared_memory needs learner and engine on one machine, in one container; gloo does not"
            ) from error
        self._path, self._slots = plan["path"], torch.from_numpy(mapped).split(plan["num_bytes"])

    def receive(self, slot: int, num_bytes: int) -> Tensor:
        """Returns the slot that holds the bucket, uint8, without a copy. Valid until it is answered."""
        return self._slots[slot]

    def reset(self) -> None:
        """Forgets the file."""
        self._path, self._slots = None, ()


def _create(path: Path, num_bytes: int) -> BinaryIO:
    """The new file, locked until it is closed."""
    unlocked = path.with_name(f".{path.name}")  # no orphan to others, before it is locked
    try:
        file = os.fdopen(os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.rename(path)
    except OSError as error:
        raise WeightSyncError(f"{path}: cannot create shared memory ({error.strerror})") from error
    try:
        # Reserves the pages now: without it a full /dev/shm kills the process by SIGBUS at the first write.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        path.unlink()
        file.close()
        raise WeightSyncError(
            f"{FOLDER}: no room for weights on their way to engines ({why(error, FOLDER, num_bytes)}); "
            "enlarge it (docker: --shm-size, Kubernetes: an emptyDir of medium Memory), or choose "
            "weight_sync.backend: gloo"
        ) from error
    return file


def _remove_orphans() -> None:
    """Removes this user's files whose process has ended: a killed learner cannot clean up after itself. One
    that lives, be it in another container, holds its lock."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is locked, or gone already
            if path.stat().st_uid == os.getuid():
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
