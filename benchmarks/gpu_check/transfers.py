"""Tensors on their way: lent to another process by handle, and copied between main memory and the device."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from benchmarks.gpu_check.measure import seconds_of, wait
from benchmarks.gpu_check.record import Record
from rlcore.weight_sync.shared_memory import SharedMemoryOut

DEADLINE_S = 30.0


def handles(record: Record, device: str, *, tiny: bool) -> None:
    """Lends tensors as the medium `ipc` does: the other process reads what is there, and sees what is written
    later."""
    num_bytes = (4 if tiny else 1024) << 20
    torch.manual_seed(0)
    lent = torch.randn(num_bytes // 4, device=device)
    part = lent[1000 : 1000 + num_bytes // 8]  # vLLM lends slices of a buffer: a handle with an offset
    context = torch.multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_borrow, args=(there, device), daemon=True)
    child.start()
    for name, tensor in (("a tensor", lent), ("a slice", part)):
        wait(device)
        function, arguments = reduce_tensor(tensor)
        here.send((function, arguments))
        total, seconds = _answer(here)
        record.measured(
            f"{name}: read elsewhere",
            "same" if total == _sum(tensor) else "other",
            passed=total == _sum(tensor),
        )
        record.measured(f"{name}: copied there", tensor.nbytes / seconds / 1e9, "GB/s")
    lent.mul_(2)
    wait(device)
    here.send(None)
    total, _ = _answer(here)
    record.measured(
        "what is written later", "seen" if total == _sum(part) else "not seen", passed=total == _sum(part)
    )
    child.join(DEADLINE_S)
    if device == "cuda" and importlib.util.find_spec("vllm"):
        from rlcore.weight_sync.vllm_trainer import from_json, to_json

        handle = reduce_tensor(part)[1]
        is_whole = from_json(to_json(handle)) == handle
        record.measured("a handle as JSON and back", "same" if is_whole else "other", passed=is_whole)


def _answer(connection: Connection) -> Any:
    if not connection.poll(DEADLINE_S):
        raise TimeoutError(f"the other process has not answered within {DEADLINE_S:.0f} s")
    return connection.recv()


def _borrow(connection: Connection, device: str) -> None:
    borrowed: Tensor | None = None
    while (handle := connection.recv()) is not None:
        function, arguments = handle
        borrowed = function(*arguments)
        assert borrowed is not None
        target = torch.empty_like(borrowed).copy_(borrowed)
        seconds = seconds_of(lambda source=borrowed, to=target: to.copy_(source), device)
        connection.send((_sum(target), seconds))
    assert borrowed is not None
    connection.send((_sum(borrowed), 0.0))


def _sum(tensor: Tensor) -> int:
    """A sum of the bits, the same in any order."""
    return int(tensor.contiguous().view(torch.int32).sum(dtype=torch.int64))


def copies(record: Record, device: str, *, tiny: bool) -> None:
    """Compares pageable with pinned memory and the slots of /dev/shm, by tensors of 1 MB and of 256 MB."""
    for megabytes in (1, 4) if tiny else (1, 256):
        num_bytes = megabytes << 20
        own = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        medium = SharedMemoryOut(num_bytes, 1)
        hosts = {"pageable": torch.zeros(num_bytes, dtype=torch.uint8), "/dev/shm": medium.slots[0]}
        if device == "cuda":
            hosts["pinned"] = torch.zeros(num_bytes, dtype=torch.uint8).pin_memory()
        for name, host in hosts.items():
            ways: dict[str, Callable[[], Tensor]] = {
                "to the device": lambda host=host, own=own: own.copy_(host, non_blocking=True),
                "from the device": lambda host=host, own=own: host.copy_(own, non_blocking=True),
            }
            for way, copy in ways.items():
                copy()
                seconds = seconds_of(lambda copy=copy: [copy() for _ in range(8)], device)
                record.measured(f"{megabytes} MB {way}, {name}", 8 * num_bytes / seconds / 1e9, "GB/s")
        medium.close()
