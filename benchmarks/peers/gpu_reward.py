"""Defines the reward of the peers on GPUs, in the form that each of them needs: the share of even characters.

The reward also marks when each completion was scored, from which `benchmarks.peers.gpu` reads samples per
second, in the same way for all.

This module imports nothing of the project: peers load it by path, in environments of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence


def compute_score(
    data_source: object, solution_str: str, ground_truth: object, extra_info: object = None
) -> float:
    """Scores one completion, as verl's `custom_reward_function`."""
    _mark(1)
    return _even(solution_str)


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: object, **_: object
) -> dict[str, object]:
    """Scores completions, as OpenRLHF's `--remote_rm_url FILE.py`; `queries` are prompts with their
    completions."""
    import torch

    _mark(len(queries))
    values = [_even(query[len(prompt) :]) for query, prompt in zip(queries, prompts, strict=True)]
    rewards = torch.tensor(values)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def _even(text: str) -> float:
    return sum(ord(character) % 2 == 0 for character in text) / max(1, len(text))


def _mark(count: int) -> None:
    line = f"{time.time()} {count}\n".encode()
    file = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)  # one write to the end of a file: lines of several processes do not mix
    finally:
        os.close(file)
