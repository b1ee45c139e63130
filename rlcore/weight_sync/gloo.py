"""Buckets by gloo broadcast: from the learner's rank 0 to all engines at once, over TCP, CPU to CPU.

The group is the push's own, apart from the learner's and from vLLM's. It lives as long as its members do: an
engine that was restarted says that it holds no group, or fewer or other engines come, and all join a new one.

Neither the store in which its members meet nor gloo's connections ask who is there: whoever reaches these
ports may read and take part (docs/explanation/rollout.md).
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.base import MediumIn, MediumOut, Message


class GlooOut(MediumOut):
    """The learner's end: the root of the broadcasts."""

    def __init__(self, num_bytes: int, num_slots: int):
        self.slots = tuple(torch.zeros(num_bytes, dtype=torch.uint8) for _ in range(num_slots))
        self._work: list[dist.Work | None] = [None] * num_slots
        self._group: dist.ProcessGroupGloo | None = None
        self._generation = 0
        self._size = 0
        self._store: dist.TCPStore | None = None  # where the members of a new group meet
        self._key = secrets.token_hex(16)  # against mistakes alone: a store lists its keys to anyone

    def plan(self, held: list[Message]) -> Message:
        """Names the group to use: the standing one where exactly its members came, else the next."""
        size = 1 + len(held)
        standing = self._group is not None and self._size == size
        if not (standing and all(one["generation"] == self._generation for one in held)):
            self.reset()
            self._generation, self._size = self._generation + 1, size
            self._store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        return {
            "generation": self._generation,
            "size": size,
            "num_bytes": self.slots[0].numel(),
            "port": self._store.port if self._store else 0,
            "key": self._key,
        }

    def connect(self, timeout_s: float) -> None:
        """Joins the group that was planned, unless it stands already."""
        if self._group is None:
            assert self._store is not None
            self._group = _join(dist.PrefixStore(self._key, self._store), 0, self._size, timeout_s)

    def send(self, slot: int, num_bytes: int) -> None:
        """Starts the broadcast; gloo's own thread goes on with it."""
        assert self._group is not None
        payload = self.slots[slot][:num_bytes]
        self._work[slot] = self._group.broadcast([payload], _from_root())  # type: ignore[attr-defined]  # stub

    def wait(self, slot: int) -> None:
        """Waits until a slot's bytes have left.

        Raises:
            ConnectionError: a receiver is gone, or took longer than the deadline.
        """
        work, self._work[slot] = self._work[slot], None
        if work is not None:
            _finish(work, "broadcast")

    def reset(self) -> None:
        """Leaves the group; whoever still waits in it fails at once."""
        self._work = [None] * len(self.slots)
        self._group = None

    def close(self) -> None:
        """Leaves the group."""
        self.reset()


class GlooIn(MediumIn):
    """An engine's end: takes part in the broadcasts."""

    def __init__(self) -> None:
        self._group: dist.ProcessGroupGloo | None = None
        self._generation = 0
        self._buffers: tuple[Tensor, ...] = ()

    def held(self) -> Message:
        """Tells which group this end is in; 0 for none."""
        return {"generation": self._generation}

    def connect(self, plan: Message, host: str, rank: int, timeout_s: float) -> None:
        """Joins the group that the sender names, unless it is in it already."""
        if plan["generation"] == self._generation:
            return
        self.reset()
        store = _reach(host, plan["port"], timeout_s)
        self._group = _join(dist.PrefixStore(plan["key"], store), rank, plan["size"], timeout_s)
        self._generation = plan["generation"]
        # One is received into while the other is loaded.
        self._buffers = tuple(torch.zeros(plan["num_bytes"], dtype=torch.uint8) for _ in range(2))

    def receive(self, slot: int, num_bytes: int) -> Tensor:
        """Returns the next bucket, uint8. Valid until the next but one.

        Raises:
            ConnectionError: the learner or an engine is gone, or took longer than the deadline.
        """
        assert self._group is not None
        self._buffers = self._buffers[::-1]
        payload = self._buffers[0][:num_bytes]
        work = self._group.broadcast([payload], _from_root())  # type: ignore[attr-defined]  # stub
        _finish(work, "receive")
        return payload

    def reset(self) -> None:
        """Leaves the group."""
        self._group, self._generation = None, 0


def _reach(host: str, port: int, timeout_s: float) -> dist.TCPStore:
    try:
        return dist.TCPStore(host, port, None, False, timedelta(seconds=timeout_s), wait_for_workers=False)
    except dist.DistError as error:
        raise WeightSyncError(f"gloo: nobody listens at {host}:{port} ({_first_line(error)})") from error


def _join(store: dist.Store, rank: int, size: int, timeout_s: float) -> dist.ProcessGroupGloo:
    try:
        return dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=timeout_s))
    except RuntimeError as error:
        raise WeightSyncError(
            f"gloo: rank {rank} of {size} could not join the others within {timeout_s:g} s "
            f"({_first_line(error)}). Every node needs an address that the others reach: set "
            "GLOO_SOCKET_IFNAME to its network interface"
        ) from error


def _from_root() -> dist.BroadcastOptions:
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    return options


def _finish(work: dist.Work, what: str) -> None:
    try:
        work.wait()
    except RuntimeError as error:
        raise ConnectionError(f"gloo {what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
