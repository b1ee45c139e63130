"""Weights through /dev/shm: the sender writes one file, engines on the same machine map it and copy from it.

The file's header names the version that lies in it, so that an engine that comes late notices that the
buffer has been written over; the payload's checksum travels with the push. The receiver for vLLM is in
`shared_memory_receiver`, apart because it imports vLLM.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.buckets import ALIGNMENT, Manifest, checksum

FOLDER = Path("/dev/shm")
PREFIX = "rlcore-weights-"
_HEADER = struct.Struct("<8sq")
_MAGIC = b"RLCORE01"
_BEING_WRITTEN = -1


class SharedMemorySender:
    """Owns one file of shared memory, readable by its user alone, and removes it at exit.

    Args:
        shapes: (hub name, full shape) of every tensor that will be pushed.
        dtype: what the weights travel as, the engines' dtype.

    Raises:
        WeightSyncError: /dev/shm is missing or has not room enough.
    """

    def __init__(self, shapes: Iterable[tuple[str, tuple[int, ...]]], *, dtype: str = "float32"):
        self._manifest = Manifest.of(shapes, dtype)
        self._rows = self._manifest.rows()
        _remove_orphans()
        self._path = FOLDER / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self._file = _create(self._path, ALIGNMENT + self._manifest.num_bytes)
        atexit.register(self.close)

    @property
    def num_bytes(self) -> int:
        """Bytes of weights in one push."""
        return self._manifest.num_bytes

    def push(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> Push:
        """Packs the tensors and returns what engines need to load them.

        Raises:
            WeightSyncError: a tensor is missing, unknown or of another shape than announced.
        """
        if self._file is None:
            raise WeightSyncError(f"{self._path}: this sender is closed")
        _write_version(self._file, _BEING_WRITTEN)
        payload = self._file[ALIGNMENT:]
        self._manifest.pack(payload, tensors)
        _write_version(self._file, version)
        return Push(
            backend="shared_memory",
            version=version,
            update_info={
                "path": str(self._path),
                "version": version,
                "checksum": checksum(payload),
                "tensors": self._rows,
            },
        )

    def close(self) -> None:
        self._file = None
        atexit.unregister(self.close)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def read(path: str, version: int, expected_checksum: str, manifest: Manifest) -> Tensor:
    """Maps a sender's file and checks it. Returns the payload, uint8, without copying it.

    Raises:
        WeightSyncError: no such file here, another version than announced, or the checksum differs.
    """
    try:
        # Copy on write: nothing that an engine does can change what its neighbours read. (torch.from_file
        # would create a file that is not there.)
        mapped = np.memmap(path, dtype=np.uint8, mode="c", shape=(ALIGNMENT + manifest.num_bytes,))
    except (OSError, ValueError) as error:
        raise WeightSyncError(
            f"weights of version {version}: cannot map {path} on {os.uname().nodename} ({error}). The "
            "shared_memory backend needs learner and engine on one machine, in one container"
        ) from error
    file = torch.from_numpy(mapped)
    magic, found = _HEADER.unpack(bytes(file[: _HEADER.size].numpy()))
    if magic != _MAGIC:
        raise WeightSyncError(f"weights of version {version}: {path} has no header, so it is damaged")
    if found != version:
        raise WeightSyncError(
            f"weights of version {version}: {path} holds version {found}; an engine must apply a push before "
            "the next one is made"
        )
    payload = file[ALIGNMENT:]
    if (found_checksum := checksum(payload)) != expected_checksum:
        raise WeightSyncError(
            f"weights of version {version}: {path} has checksum {found_checksum}, not {expected_checksum}"
        )
    return payload


def _create(path: Path, num_bytes: int) -> Tensor:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        raise WeightSyncError(f"{path}: cannot create shared memory ({error.strerror})") from error
    try:
        # Reserves the pages now: without it a full /dev/shm kills the process by SIGBUS at the first write.
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        path.unlink()
        raise WeightSyncError(
            f"{FOLDER}: {num_bytes / 2**20:.0f} MB for the weights are not free ({error.strerror}); enlarge "
            "it (docker: --shm-size, Kubernetes: an emptyDir of medium Memory)"
        ) from error
    finally:
        os.close(descriptor)
    return torch.from_file(str(path), shared=True, size=num_bytes, dtype=torch.uint8)


def _write_version(file: Tensor, version: int) -> None:
    header = bytearray(_HEADER.pack(_MAGIC, version))
    file[: _HEADER.size].copy_(torch.frombuffer(header, dtype=torch.uint8))


def _remove_orphans() -> None:
    """Removes this user's files whose process is gone: a killed learner cannot clean up after itself."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and path.stat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                path.unlink()
