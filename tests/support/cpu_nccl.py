"""NCCL between threads: vLLM's own `nccl` engines of weight transfer over a collective in main memory, which
waits for ever for a member that does not come, as NCCL's does, until it is aborted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from vllm.distributed.weight_transfer import nccl_engine
from vllm.distributed.weight_transfer.base import ParamMeta

from rlcore.config.weight_media import Medium

MEDIUM = Medium(name="nccl", sender="rlcore.weight_sync.nccl:trainer_info")
"""`weight_sync.backend: cpu_nccl:MEDIUM`, which asks for no GPU."""


class Group:
    """All members of one communicator."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.calls: dict[int, dict[int, torch.Tensor]] = {}
        """Each broadcast's tensors, by the number of the broadcast and the member's rank."""


class Member:
    """A communicator's end at one rank, as vLLM's `PyNcclCommunicator`."""

    made: ClassVar[list[Member]] = []

    def __init__(self, group: Group, rank: int, world_size: int):
        self._group, self.rank, self.world_size = group, rank, world_size
        self._num_calls = 0
        self.is_destroyed = False
        Member.made.append(self)

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Sends rank 0's tensor to all; returns without a word where this end has been aborted."""
        with self._group.changed:
            call = self._group.calls.setdefault(self._num_calls, {})
            self._num_calls += 1
            call[self.rank] = tensor
            self._group.changed.notify_all()
            self._group.changed.wait_for(lambda: len(call) == self.world_size or self.is_destroyed)
            if not self.is_destroyed:
                tensor.copy_(call[0])

    def destroy(self) -> None:
        with self._group.changed:
            self.is_destroyed = True
            self._group.changed.notify_all()


@pytest.fixture
def cpu_nccl(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Member]]:
    """Lets vLLM's engines use it; yields every member that was made."""
    groups: dict[int, Group] = {}

    def member(info: Any, rank: int) -> Member:
        return Member(groups.setdefault(info.master_port, Group()), rank, info.world_size)

    def broadcast(self: Any, source: Iterable[tuple[str, torch.Tensor]], meta: list[ParamMeta]) -> None:
        for _, tensor in self._checked_iter(source, meta):
            self.model_update_group.broadcast(tensor)

    def receive(self: Any, info: Any) -> None:
        group = self.model_update_group

        def tensors() -> Iterator[tuple[str, torch.Tensor]]:
            for name, dtype, shape in zip(info.names, info.dtype_names, info.shapes, strict=True):
                tensor = torch.full(shape, torch.nan, dtype=getattr(torch, dtype))
                group.broadcast(tensor)
                yield name, tensor

        self.model.load_weights(tensors())

    Member.made = []
    patch = monkeypatch.setattr
    patch(nccl_engine, "open_trainer_endpoint", lambda info: member(info, 0))
    patch(
        nccl_engine,
        "worker_init_process_group",
        lambda info, parallel: member(info, info.rank_offset + parallel.rank),
    )
    patch(nccl_engine.NCCLTrainerWeightTransferEngine, "_broadcast", broadcast)
    patch(nccl_engine.NCCLWeightTransferEngine, "receive_weights", receive)
    yield Member.made
    for one in Member.made:
        one.destroy()
