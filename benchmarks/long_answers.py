"""Measures the attention of packed groups with long answers: memory and time with a mask, and without.

    python -m benchmarks.long_answers [--quick] [--json FILE] [--gate]

Two answers to one prompt of 256 tokens, one layer of one head of 64, forward and backward, each in a process
of its own. Goal: from 4096 to 16384 tokens the memory beside the process's own grows by no more than 4.5
times, as the tokens do.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import Row, finish, parse_arguments

PROMPT, ANSWERS, HEAD_SIZE = 256, 2, 64
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16384), (1024, 4096)
MAX_MASKED = 4096
"""Longest answers that are measured with a mask: 16384 would take 2.2 GB for it."""


def peak_mb() -> float:
    """Returns the largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def attend(length: int, masked: bool) -> None:
    """Runs one forward and backward pass, and prints MB beyond what was there before, and seconds."""
    import torch

    from rlcore.engines import packing

    if masked:
        packing._LARGEST_MASK = sys.maxsize
    module: Any = torch.nn.Module()
    warm_up = torch.randn(1, 1, 64, HEAD_SIZE, requires_grad=True)
    torch.nn.functional.scaled_dot_product_attention(warm_up, warm_up, warm_up).sum().backward()
    num_tokens = PROMPT + ANSWERS * length
    query, key, value = (torch.randn(1, 1, num_tokens, HEAD_SIZE, requires_grad=True) for _ in range(3))
    before, start = peak_mb(), time.perf_counter()
    layout = packing.PackedLayout.of([PROMPT], [length] * ANSWERS, [0] * ANSWERS)
    rows, _ = packing.packed_attention(module, query, key, value, None, packed_layout=layout)
    rows.sum().backward()
    print(peak_mb() - before, time.perf_counter() - start)


def measured(length: int, masked: bool) -> tuple[float, float]:
    """Returns MB and seconds, from a new process."""
    code = f"from benchmarks.long_answers import attend; attend({length}, {masked})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    mb, seconds = map(float, done.stdout.split())
    return mb, seconds


def main() -> None:
    """Runs the benchmark."""
    arguments = parse_arguments(__doc__ or "")
    lengths = QUICK_LENGTHS if arguments.quick else LENGTHS
    rows: list[Row] = []
    peaks: dict[int, float] = {}
    for length in lengths:
        peaks[length], seconds = measured(length, masked=False)
        with_mask = measured(length, masked=True) if length <= MAX_MASKED else None
        rows.append(
            {
                "tokens": length,
                "MB": round(peaks[length], 1),
                "seconds": round(seconds, 2),
                "MB with a mask": round(with_mask[0], 1) if with_mask else "-",
                "seconds with a mask": round(with_mask[1], 2) if with_mask else "-",
            }
        )
    growth = peaks[lengths[-1]] / peaks[lengths[-2]]
    finish("long_answers", rows, {"growth": growth}, {"grows as the tokens do": growth <= 4.5}, arguments)


if __name__ == "__main__":
    main()
