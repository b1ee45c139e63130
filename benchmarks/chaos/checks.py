"""Compares a disturbed run with one that was left alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.chaos.workload import NUM_PROMPTS, PROMPTS_PER_STEP, SAMPLES_PER_PROMPT
from rlcore.records.tracking import read_metrics

_EXACT = ("loss", "grad_norm", "kl", "reward/even", "completion/tokens")


def first_difference(run: Path, whole: Path) -> int | None:
    """Returns the first step whose metrics are not to the bit those of the run that was left alone; None
    where all steps that `run` has are equal."""
    expected = {row["step"]: row for row in _steps(whole)}
    for row in _steps(run):
        if any(row.get(name) != expected[row["step"]].get(name) for name in _EXACT):
            return int(row["step"])
    return None


def problems(run: Path, whole: Path, *, staleness: int, num_steps: int) -> list[str]:
    """Returns what is wrong with a run that has ended.

    Every step is there once, and every sample. At staleness 0 weights, metrics and texts are to the bit those
    of `whole`; above, no token is older than the bound.
    """
    found = []
    rows, samples = _steps(run), _samples(run)
    if [row["step"] for row in rows] != list(range(1, num_steps + 1)):
        found.append(f"steps {[row['step'] for row in rows]}, not 1 to {num_steps}")
    per_step = Counter(row["step"] for row in samples)
    if per_step != dict.fromkeys(range(1, num_steps + 1), PROMPTS_PER_STEP * SAMPLES_PER_PROMPT):
        found.append(f"samples per step: {dict(per_step)}")
    prompts = Counter(row["prompt"] for row in samples if row["sample"] == 0)
    if len(prompts) != NUM_PROMPTS or max(prompts.values()) - min(prompts.values()) > 1:
        found.append(f"prompts were used {dict(prompts)} times")
    if late := [row["step"] for row in rows if row["staleness/max"] > staleness]:
        found.append(f"steps {late} are staler than {staleness}")
    if apart := [row["step"] for row in rows if (row.get("logprob_max_diff") or 0) > 1e-4]:
        found.append(f"engine and learner disagree in steps {apart}")
    if staleness == 0:
        found += _differences(run, whole)
    return found


def _differences(run: Path, whole: Path) -> list[str]:
    found = []
    if (step := first_difference(run, whole)) is not None:
        found.append(f"metrics differ from step {step} on")
    ended, expected = (load_file(folder / "model" / "model.safetensors") for folder in (run, whole))
    apart = [name for name in expected if name not in ended or not torch.equal(ended[name], expected[name])]
    if apart or ended.keys() != expected.keys():
        found.append(f"{len(apart)} of {len(expected)} weights differ, {apart[:1]}")
    if _texts(run) != _texts(whole):
        found.append("samples.jsonl has other texts")
    return found


def _texts(run: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["sample"], row["prompt"], row["text"], row["reward"]) for row in _samples(run)]


def _steps(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run) if "policy_version" in row]


def _samples(run: Path) -> list[dict[str, Any]]:
    lines = (run / "samples.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == "train"]
