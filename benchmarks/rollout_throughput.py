"""Tokens a second of the rollout actor on the quickstart's kind of model: audio prompts, K samples each.

    python -m benchmarks.rollout_throughput [--quick] [--json FILE] [--gate]

Goal: at least 2000 tokens a second on one core with 16 prompts of 8 samples.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.report import finish, parse_arguments
from emotion_task.prompt import emotion_messages, format_prompt
from emotion_task.tiny_model import TinyModelConfig, build_tiny_model
from rlcore.config import ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.vllm_engine import engine_env
from rlcore.types import Prompt

TOKENS_PER_S = 2000
SECONDS = 2.0
"""Length of every audio."""


class NoiseTask:
    """Media are noise; a prompt's seed makes it."""

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        rng = np.random.default_rng(prompt.media["seed"])
        waveform = 0.1 * rng.standard_normal(int(16000 * SECONDS))
        return {"audio": [waveform.astype(np.float32)], "sampling_rate": 16000}


def measure(worker: Any, text: str, num_prompts: int, num_samples: int, step: int) -> dict[str, Any]:
    """One call with prompts that were never seen, one with the same prompts again."""
    prompts = [
        Prompt(id=f"{step}-{i}", text=text, media={"seed": 1000 * step + i}) for i in range(num_prompts)
    ]
    seconds, tokens = [], []
    for repeat in range(2):
        start = time.perf_counter()
        groups = worker.generate(prompts, step=2 * step + repeat, num_samples=num_samples)
        seconds.append(time.perf_counter() - start)
        tokens.append(sum(len(c.token_ids) for group in groups for c in group.completions))
    return {
        "prompts": num_prompts,
        "samples": num_samples,
        "tokens": tokens[1],
        "new_audio_tok_per_s": tokens[0] / seconds[0],
        "known_audio_tok_per_s": tokens[1] / seconds[1],
    }


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    from rlcore.actors.rollout import RolloutWorker
    from rlcore.engines.hf_model import load_processor

    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(folder, ["what is the emotion of the speaker"] * 10, TinyModelConfig())
        start = time.perf_counter()
        worker = RolloutWorker(
            ModelConfig(path=folder),
            RolloutConfig(max_tokens=64 if arguments.quick else 128, engine={"max_model_len": 1024}),
            TargetConfig(target=f"{NoiseTask.__module__}:NoiseTask"),
            seed=0,
        )
        start_s = time.perf_counter() - start
        text = format_prompt(load_processor(folder), emotion_messages(("happy", "sad", "angry")))
        worker.generate([Prompt(id="warm", text=text, media={"seed": 0})], step=0)
        shapes = [(4, 8), (16, 8)] if arguments.quick else [(1, 8), (4, 8), (16, 8), (32, 8)]
        rows = [measure(worker, text, *shape, step=step) for step, shape in enumerate(shapes, 1)]
    at_goal = next(row for row in rows if row["prompts"] == 16)
    rate = at_goal["known_audio_tok_per_s"]
    headline = {"tok_per_s": rate, "new_audio_tok_per_s": at_goal["new_audio_tok_per_s"], "start_s": start_s}
    goals = {f"at least {TOKENS_PER_S} tokens a second": rate >= TOKENS_PER_S}
    finish("rollout_throughput", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
