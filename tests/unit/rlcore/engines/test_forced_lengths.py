"""Completions of forced lengths under V2, the model runner that vLLM has on GPUs, with tensors on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

NAME = "rlcore.engines.forced_lengths:ForcedLengths"
VOCABULARY = 12
TABLE = (3, 1, 4)


def sampling(seed: int | None, *stops: int) -> Any:
    from vllm import SamplingParams

    params = SamplingParams(seed=seed, max_tokens=8)
    params._all_stop_token_ids = set(stops)
    return params


class Runner:
    """vLLM's V2 model runner, as far as its logits processors go: slots, and steps in another order."""

    def __init__(self, table: tuple[int, ...] | None):
        from vllm.v1.worker.cpu.buffer_utils import UvaBuffer
        from vllm.v1.worker.gpu import buffer_utils
        from vllm.v1.worker.gpu.sample.logits_processor import build_custom_logits_processors
        from vllm.v1.worker.gpu.states import RequestState

        with pytest.MonkeyPatch.context() as patch:  # as vLLM does where V2 runs on CPUs
            patch.setattr(buffer_utils, "UvaBuffer", UvaBuffer)
            self.states = RequestState(4, 64, 64, 0, VOCABULARY, torch.device("cpu"))
        config = SimpleNamespace(additional_config={"completion_lengths": table} if table else {})
        (self.processor,) = build_custom_logits_processors(config, self.states, False, [NAME])
        self.written: dict[str, list[int]] = {}
        self.prompt_len: dict[str, int] = {}

    def add(self, name: str, prompt_len: int, params: Any, written: tuple[int, ...] = ()) -> None:
        self.states.add_request(name, prompt_len, [0] * prompt_len + list(written), 0, 8)
        assert self.processor.add_request(self.states.req_id_to_index[name], params)
        self.written[name], self.prompt_len[name] = list(written), prompt_len

    def step(self) -> dict[str, torch.Tensor]:
        """Every running request's logits, changed; each takes the likeliest token."""
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

        self.processor.apply_staged_writes()
        names = sorted(self.states.req_id_to_index, reverse=True)
        slots = [self.states.req_id_to_index[name] for name in names]
        pos = [self.prompt_len[name] + len(self.written[name]) - 1 for name in names]
        mapping = torch.tensor(slots, dtype=torch.int32)
        context = LogitsContext(
            expanded_idx_mapping=mapping,
            idx_mapping=mapping,
            idx_mapping_np=np.array(slots),
            expanded_local_pos=torch.zeros(len(slots), dtype=torch.int32),
            input_ids=torch.zeros(len(slots), dtype=torch.int32),
            pos=torch.tensor(pos),
            seq_lens_upper_bound_np=np.array(pos) + 1,
        )
        logits = torch.arange(VOCABULARY).float().repeat(len(names), 1)
        changed = dict(zip(names, self.processor.apply(logits, context), strict=True))
        for name, row in changed.items():
            self.written[name].append(int(row.argmax()))
        return changed

    def run(self, name: str, stops: tuple[int, ...]) -> int:
        """Steps until the request has written a stop token; its length."""
        while not set(self.written[name]) & set(stops):
            assert len(self.written[name]) < 20
            self.step()
        self.states.remove_request(name)
        return len(self.written[name])


def test_the_v2_runner_takes_the_processor_and_completions_have_the_tables_lengths() -> None:
    runner = Runner(TABLE)
    runner.add("a", 5, sampling(0, 11))
    runner.add("b", 9, sampling(5, 11, 10, 3))  # more stop tokens than those before
    first = runner.step()
    assert first["a"].tolist() == [*range(11), -torch.inf]
    assert [token for token, value in enumerate(first["b"]) if value == -torch.inf] == [3, 10, 11]
    assert runner.run("a", (11,)) == 3 and runner.written["a"] == [10, 10, 11]
    runner.add("c", 2, sampling(1, 11))  # the slot is taken again, by one that ends at once
    ending = runner.step()["c"]
    assert ending.argmax() == 11 and ending[11] == 0 and (ending[:11] == -torch.inf).all()
    assert runner.run("b", (3, 10, 11)) == 4 and runner.written["b"][-1] == 3


def test_a_request_that_is_taken_up_again_keeps_its_length_and_one_without_a_seed_takes_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = tmp_path / "lengths.json"
    lengths.write_text(json.dumps([2, 5]))
    monkeypatch.setenv("FORCED_LENGTHS", str(lengths))
    runner = Runner(None)
    runner.add("resumed", 6, sampling(1, 11), written=(4, 4, 4))
    assert runner.run("resumed", (11,)) == 5
    for name, expected in (("first", 2), ("second", 5)):
        runner.add(name, 3, sampling(None, 11))
        assert runner.run(name, (11,)) == expected


def test_both_loaders_of_vllm_take_the_class() -> None:
    from vllm.v1.sample.logits_processor import _load_logitsprocs_by_fqcns
    from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_by_fqcns

    from rlcore.engines.forced_lengths import ForcedLengths

    assert _load_logitsprocs_by_fqcns([NAME]) == [ForcedLengths]
    assert _load_v2_logitsprocs_by_fqcns([NAME]) == [ForcedLengths]
