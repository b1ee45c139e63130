"""Completions of lengths that are known beforehand, for measuring: a logits processor of vLLM's.

A benchmark whose policy is random cannot leave the lengths to it. With the engine arguments
(`rollout.engine`) `logits_processors: [rlcore.engines.forced_lengths:ForcedLengths]` and
`additional_config: {completion_lengths: TABLE}`, sample k of a request with seed s ends at
`TABLE[(s + k) % len(TABLE)]` tokens: its stop token is out of reach before, and the only choice then. A
request without a seed takes the table's next entry. Log-probabilities stay the model's own, as vLLM takes
them before its processors.

vLLM has two model runners, V1 (on CPUs) and V2 (on GPUs), and each takes only processors of its own
interface. Whoever names the class does not know which one will run, so it has both interfaces.

This module imports nothing of rlcore, so that the engines of other frameworks can be given the same lengths:
there the table is a JSON file that `FORCED_LENGTHS` in the environment names (benchmarks/peers/gpu.sh).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.v1.sample import logits_processor as v1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

try:
    from vllm.v1.worker.gpu.sample import logits_processor as v2
except ImportError:  # another framework's vLLM, from before V2 took processors
    v2 = v1  # type: ignore[misc]

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

TABLE = "completion_lengths"
"""Key of the table in vLLM's `additional_config`."""

_INTERFACES = dict.fromkeys((v1.LogitsProcessor, v2.LogitsProcessor))


class ForcedLengths(*_INTERFACES):  # type: ignore[misc]
    """Ends completions at the table's lengths. vLLM builds the processor, and says what enters, leaves and
    moves in the batch.

    Args:
        runner: device and whether memory is pinned, from V1; V2's `LogitsProcRequestState`.
    """

    def __init__(self, vllm_config: VllmConfig, *runner: Any):
        self._table: Sequence[int] = vllm_config.additional_config.get(TABLE) or _table_from_environment()
        self._num_unseeded = 0
        self._rows: dict[int, tuple[int, Sequence[int], list[int]]] = {}
        """V1: each row of the batch, with its length, its tokens so far and its stop tokens."""
        if len(runner) == 1:
            (self._requests,) = runner
            size = self._requests.max_num_reqs
            self._staged: dict[int, tuple[int, list[int]]] = {}
            self._last = torch.zeros(size, dtype=torch.int64, device=self._requests.device)
            """V2: [slots], the position that each request's last token but one has in its sequence."""
            self._stops = torch.zeros(size, 1, dtype=torch.int64, device=self._requests.device)
            """V2: [slots, S], each request's stop tokens, the last one repeated."""

    def _length(self, params: SamplingParams) -> int:
        place = params.seed
        if place is None:
            place = self._num_unseeded
            self._num_unseeded += 1
        return self._table[place % len(self._table)]

    def apply(self, logits: Tensor, ctx: v2.LogitsContext | None = None) -> Tensor:
        """Changes logits [B, V] in place, and returns them."""
        return self._apply_v1(logits) if ctx is None else self._apply_v2(logits, ctx)

    def is_argmax_invariant(self) -> bool:
        """Returns False: greedy answers are made to end, too."""
        return False

    def update_state(self, batch_update: v1.BatchUpdate | None) -> None:
        """Follows the rows of V1's batch, as vLLM changes them between two steps."""
        process_dict_updates(
            self._rows,
            batch_update,
            lambda params, prompt, tokens: (self._length(params), tokens, sorted(params.all_stop_token_ids)),
        )

    def _apply_v1(self, logits: Tensor) -> Tensor:
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

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Notes what enters a slot of V2's; returns True, as every request's length is forced."""
        last = int(self._requests.prompt_len.np[req_idx]) + self._length(sampling_params) - 2
        self._staged[req_idx] = (last, sorted(sampling_params.all_stop_token_ids))
        return True

    def apply_staged_writes(self) -> None:
        """Brings what has entered V2's slots to the device, before the step's forward pass."""
        if not self._staged:
            return
        width = max(self._stops.shape[1], *(len(stops) for _, stops in self._staged.values()))
        missing = width - self._stops.shape[1]
        if missing:
            self._stops = torch.cat([self._stops, self._stops[:, -1:].expand(-1, missing)], dim=1)
        device = self._stops.device
        slots = torch.tensor(list(self._staged), device=device)
        self._last[slots] = torch.tensor([last for last, _ in self._staged.values()], device=device)
        padded = [stops + stops[-1:] * (width - len(stops)) for _, stops in self._staged.values()]
        self._stops[slots] = torch.tensor(padded, device=device)
        self._staged = {}

    def _apply_v2(self, logits: Tensor, ctx: v2.LogitsContext) -> Tensor:
        slots = ctx.expanded_idx_mapping.long()
        stops = self._stops[slots]
        is_ending = ctx.pos >= self._last[slots]  # [B]
        logits.scatter_(1, stops, -math.inf)
        logits.masked_fill_(is_ending[:, None], -math.inf)
        end = torch.zeros_like(logits[:, :1]).masked_fill_(~is_ending[:, None], -math.inf)
        return logits.scatter_(1, stops[:, :1], end)


def _table_from_environment() -> list[int]:
    with open(os.environ["FORCED_LENGTHS"], encoding="utf-8") as file:
        return [int(length) for length in json.load(file)]


def _fill(logits: Tensor, places: list[tuple[int, int]], value: float) -> None:
    if places:
        rows, tokens = torch.tensor(places, device=logits.device).T
        logits[rows, tokens] = value
