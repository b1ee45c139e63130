"""Seconds, memory and kernels of a piece of work on a device."""

from __future__ import annotations

import re
import resource
import statistics
import time
from collections.abc import Callable

import torch

ATTENTION = re.compile(r"flash|fmha|attention|attn|sdpa|flex|cudnn", re.IGNORECASE)


def wait(device: str) -> None:
    """Waits until all work of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Returns the median of `repeats` runs. Let one go before: buffers and kernels are made at the first."""
    taken = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def forget_peak(device: str) -> None:
    """Begins to measure `peak_gb` anew, on a GPU."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float:
    """Returns the largest allocation of tensors so far, on the CPU the process' largest resident size."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def kernels_of(work: Callable[[], object], device: str) -> list[tuple[str, float]]:
    """Returns the kernels (on the CPU: operators) of a run and their share of the time, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        work()
        wait(device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    found = [(event.key, float(getattr(event, key))) for event in profiler.key_averages()]
    total = sum(taken for _, taken in found) or 1.0
    return sorted(((name, taken / total) for name, taken in found), key=lambda one: -one[1])
