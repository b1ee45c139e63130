"""Completions of lengths that are known beforehand, for measuring: a logits processor of vLLM's.

A benchmark whose policy is random cannot leave the lengths to it. With the engine arguments
(`rollout.engine`) `logits_processors: [rlcore.engines.forced_lengths:ForcedLengths]` and
`additional_config: {completion_lengths: TABLE}`, sample k of a request with seed s ends at
`TABLE[(s + k) % len(TABLE)]` tokens: its stop token is out of reach before, and the only choice then. A
request without a seed takes the table's next entry. Log-probabilities stay the model's own, as vLLM takes
them before its processors.

This module imports nothing of rlcore, so that the engines of other frameworks can be given the same lengths:
there the table is a JSON file that `FORCED_LENGTHS` in the environment names (benchmarks/peers/gpu.sh).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

TABLE = "completion_lengths"
"""Key of the table in vLLM's `additional_config`."""


class ForcedLengths(LogitsProcessor):
    """Ends completions at the table's lengths. vLLM builds the processor, and says what enters, leaves and
    moves in the batch."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        self._table: Sequence[int] = vllm_config.additional_config.get(TABLE) or _table_from_environment()
        self._num_unseeded = 0
        self._rows: dict[int, tuple[int, Sequence[int], list[int]]] = {}
        """Each row of the batch, with its length, its tokens so far and its stop tokens."""

    def is_argmax_invariant(self) -> bool:
        """Returns False: greedy answers are made to end, too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows the rows of the batch, as vLLM changes them between two steps."""
        process_dict_updates(self._rows, batch_update, self._entry)

    def _entry(
        self, params: SamplingParams, prompt: Sequence[int] | None, tokens: Sequence[int]
    ) -> tuple[int, Sequence[int], list[int]]:
        place = params.seed
        if place is None:
            place = self._num_unseeded
            self._num_unseeded += 1
        return self._table[place % len(self._table)], tokens, sorted(params.all_stop_token_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Changes logits [B, V] in place, and returns them."""
        ending: list[tuple[int, int]] = []
        blocked: list[tuple[int, int]] = []
        for row, (length, tokens, stops) in self._rows.items():
            if len(tokens) < length - 1:
                blocked += [(row, stop) for stop in stops]
            else:
                ending.append((row, stops[0]))
        _fill(logits, blocked, -math.inf)
        if ending:
            logits[[row for row, _ in ending]] = -math.inf
            _fill(logits, ending, 0.0)
        return logits


def _table_from_environment() -> list[int]:
    with open(os.environ["FORCED_LENGTHS"], encoding="utf-8") as file:
        return [int(length) for length in json.load(file)]


def _fill(logits: torch.Tensor, places: list[tuple[int, int]], value: float) -> None:
    if places:
        rows, tokens = torch.tensor(places, device=logits.device).T
        logits[rows, tokens] = value
