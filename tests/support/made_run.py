"""A finished run's folder, made in a moment: what `rlcore train` leaves behind, with given answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from rlcore.records.files import JsonObject, write_json, write_rows, write_text

EMOTIONS = ("happy", "sad", "angry")
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "[click](javascript:window.hacked=1) **bold** `code` ![x](http://127.0.0.1:1/x.png)",
    "<!-- <svg onload=window.hacked=1> \u2028 \u2029 & &lt; \\u003c \U0001f600",
    "<style>body { display: none }</style>",
)
"""Answers that would do harm on a page which took them for markup."""


def answer(emotion: str, pitch: str = "high") -> str:
    return f"<think>The pitch is {pitch} and the voice is loud.</think><answer>{emotion}</answer>"


def sample(
    step: int,
    prompt: int,
    *,
    split: str = "train",
    k: int = 0,
    text: str | None = None,
    audio: str = "/nowhere/a.wav",
) -> JsonObject:
    """A row of samples.jsonl; two of three answers are right."""
    emotion = EMOTIONS[prompt % 3]
    said = EMOTIONS[(prompt + (step + k + prompt) % 3 // 2) % 3]
    right = float(said == emotion)
    row: JsonObject = {
        "step": step,
        "split": split,
        "prompt": f"{split}-{prompt:04d}",
        "sample": k,
        "media": {"audio": audio},
        "reference": {
            "emotion": emotion,
            "text": "I lost my best friend",
            "speaker": "m1",
            "pitch_level": "high",
        },
        "text": answer(said) if text is None else text,
        "tokens": 20,
        "finish_reason": "stop",
        "policy_version": step,
        "versions": [[step, 20]],
        "scores": {"outcome": {"value": right}, "reasoning": {"value": 0.8, "parts": {"factual": 4.0}}},
    }
    return row if split == "eval" else row | {"reward": right + 0.4, "advantage": right - 0.5}


def make_run(
    folder: Path,
    *,
    num_steps: int = 12,
    prompts_per_step: int = 4,
    group: int = 2,
    num_eval: int = 30,
    texts: Sequence[str] = (),
    is_over: bool = True,
) -> Path:
    """Writes a run's records. `texts` are the answers of the first held-out prompts at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    audio = folder / "a.wav"
    seconds = np.arange(8000) / 16000
    soundfile.write(audio, 0.3 * np.sin(2 * math.pi * 180 * seconds) * (seconds < 0.4), 16000)
    metrics: list[JsonObject] = []
    samples: list[JsonObject] = []
    for step in range(num_steps + 1):
        if step:
            metrics.append(step_row(step))
            samples += [
                sample(step, step * prompts_per_step + p, k=k, audio=str(audio))
                for p in range(prompts_per_step)
                for k in range(group)
            ]
        if step in (0, num_steps):
            answers = [
                sample(
                    step,
                    p,
                    split="eval",
                    audio=str(audio),
                    text=texts[p] if step and p < len(texts) else None,
                )
                for p in range(num_eval)
            ]
            samples += answers
            accuracy = float(np.mean([row["scores"]["outcome"]["value"] for row in answers]))
            metrics.append(
                {"step": step, "time": 1000.0 + step, "eval/accuracy": accuracy, "eval/truncated": 0.0}
            )
    write_rows(folder / "metrics.jsonl", metrics)
    write_rows(folder / "samples.jsonl", samples)
    spans = [
        {"actor": actor, "phase": phase, "start": 1000.0 + s, "end": 1000.4 + s, "step": s + 1}
        for s in range(num_steps)
        for actor, phase in (("controller", "update"), ("rollout[0]", "generate"))
    ]
    write_rows(folder / "spans.jsonl", spans)
    write_text(folder / "config.yaml", CONFIG.format(folder=folder, num_steps=num_steps))
    if is_over:
        write_json(folder / "status.json", {"phase": "end", "step": None, "since": 1000.0 + num_steps})
        write_json(
            folder / "summary.json", {"steps": num_steps, "stopped_by": None, "after": {"accuracy": 0.5}}
        )
    return folder


def step_row(step: int) -> JsonObject:
    """A row of metrics.jsonl of one update; the gate opens at step 6."""
    row: JsonObject = {
        "step": step,
        "time": 1000.0 + step,
        "reward/mean": 0.5 + step / 100,
        "reward/outcome": 0.4,
    }
    row |= {
        "reward/reasoning": 0.8,
        "ptr/gate": float(step >= 6),
        "ptr/tau": 0.9,
        "kl": step / 1000,
        "entropy": 0.5,
    }
    return row | {
        "seconds/update": 0.5,
        "seconds/rollout": 0.4,
        "update_skipped": 0.0,
        "completion/truncated": 0.0,
    }


CONFIG = """\
run_dir: {folder}
model:
  path: m
task:
  target: emotion_task.task:EmotionTask
  args:
    manifest: /nowhere/manifest.jsonl
    model_path: m
rewards:
  outcome:
    target: emotion_task.rewards:OutcomeReward
  reasoning:
    target: emotion_task.rewards:ReasoningReward
algorithm:
  ptr:
    outcome: outcome
train:
  num_steps: {num_steps}
"""
