"""Runs TRL's side of `benchmarks.peers.trl`, in a Python that has TRL: some steps of its GRPOTrainer.

    python -I trl_side.py SPEC.json

The spec says model, prompts in order, the length of every completion, and settings; seconds of each step are
printed as JSON. This module imports nothing of the project.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer


class ForcedLengths(LogitsProcessor):
    """Ends row b of a batch at `lengths[b]` tokens, as `rlcore.engines.forced_lengths` does."""

    def __init__(self, lengths: list[int], prompt_tokens: int, stop: int):
        self._last, self._prompt_tokens, self._stop = torch.tensor(lengths) - 1, prompt_tokens, stop

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        is_last = input_ids.shape[1] - self._prompt_tokens >= self._last
        scores[:, self._stop] = -math.inf
        if is_last.any():
            scores[is_last] = -math.inf
            scores[is_last, self._stop] = 0.0
        return scores


class Marks(TrainerCallback):
    """Records when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: object, state: object, control: object, **named: object) -> None:
        self.times.append(time.perf_counter())


def force_lengths(
    model: PreTrainedModel, steps: list[list[int]], prompt_tokens: int, stop: int
) -> list[float]:
    """Makes `model.generate` end the completions of its n-th batch at the lengths `steps[n]`.

    The returned list is filled with the seconds of each call."""
    generate, seconds = model.generate, list[float]()

    def forced(**named: object) -> object:
        processor = ForcedLengths(steps[len(seconds)], prompt_tokens, stop)
        start = time.perf_counter()
        output = generate(logits_processor=LogitsProcessorList([processor]), **named)
        seconds.append(time.perf_counter() - start)
        return output

    model.generate = forced
    return seconds


def force_batches(model: PreTrainedModel, steps: list[list[int]]) -> list[float]:
    """Makes transformers' continuous batching end the completions of its n-th batch at the lengths
    `steps[n]`.

    Each request gets its own `max_new_tokens`, and no stop token. The returned list is filled with the
    seconds of each call."""
    from transformers.generation.continuous_batching import ContinuousBatchingManager

    generate, seconds = model.generate_batch, list[float]()

    def add_requests(self: ContinuousBatchingManager, inputs: list[list[int]], **_: object) -> list[str]:
        lengths = steps[len(seconds)]
        ids = [f"req_{i}" for i in range(len(inputs))]
        # Equal prompts behind each other, as the manager's own method has them for its prefix cache.
        for i in sorted(range(len(inputs)), key=lambda i: inputs[i], reverse=True):
            self.add_request(inputs[i], request_id=ids[i], max_new_tokens=lengths[i], eos_token_id=-1)
        return ids

    def forced(*args: object, **named: object) -> object:
        start = time.perf_counter()
        output = generate(*args, **named)
        seconds.append(time.perf_counter() - start)
        return output

    ContinuousBatchingManager.add_requests = add_requests
    model.generate_batch = forced
    return seconds


def trainer_arguments(spec: dict[str, Any], folder: str) -> GRPOConfig:
    rows, num_samples = spec["micro_batch"], len(spec["lengths"][0])
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=num_samples // rows,
        num_generations=spec["samples_per_prompt"],
        max_completion_length=spec["max_tokens"],
        use_transformers_continuous_batching=spec["continuous"],
        max_steps=len(spec["lengths"]),
        beta=0.0,
        learning_rate=spec["lr"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32)
    if spec["continuous"]:
        generated = force_batches(model, spec["lengths"])
    else:
        generated = force_lengths(model, spec["lengths"], spec["prompt_tokens"], tokenizer.eos_token_id)
    seen: list[list[int]] = []

    def even_tokens(completion_ids: list[list[int]], **_: object) -> list[float]:
        seen.append([len(ids) for ids in completion_ids])
        return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]

    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=even_tokens,
            args=trainer_arguments(spec, folder),
            train_dataset=Dataset.from_list([{"prompt": text} for text in spec["prompts"]]),
            processing_class=tokenizer,
            callbacks=[marks],
        )
        trainer.train()
    assert seen == spec["lengths"], "TRL's completions are not of the lengths that were asked for"
    steps = [end - start for start, end in zip(marks.times, marks.times[1:], strict=False)]
    answer = {"step_seconds": steps, "generate_seconds": generated[1:], "load": os.getloadavg()[0]}
    print(json.dumps(answer | {"threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
