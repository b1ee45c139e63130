"""The learner's updates on the device, under each ZeRO stage, against the same updates on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.gpu_check.models import free_port, make_groups, objective_of, text_config
from benchmarks.gpu_check.record import Record

NUM_UPDATES = 3
STAGES: dict[str, dict[str, Any]] = {
    "ZeRO 0": {"zero_stage": 0},
    "ZeRO 2": {"zero_stage": 2},
    "ZeRO 3": {"zero_stage": 3},
    "ZeRO 2, Adam in main memory": {"zero_stage": 2, "offload_optimizer": "cpu"},
    "ZeRO 3, all in main memory": {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
}


def run(record: Record, device: str, *, tiny: bool) -> None:
    """Compares norms of gradients and weights after three updates in float32."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = text_config(tiny=True)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        subprocess.run(
            [sys.executable, "-c", f"from benchmarks.gpu_check.zero import reference; reference({name!r})"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=300,
        )
        wanted = torch.load(folder / "reference.pt")
        start = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        os.environ["MASTER_PORT"] = free_port()
        for stage, settings in STAGES.items():
            try:
                norms, weights = updates(folder, settings)
            except Exception as error:  # one stage must not cost the others
                record.broke(stage, error)
                continue
            apart = max(abs(a / b - 1) for a, b in zip(norms, wanted["norms"], strict=True))
            record.measured(f"{stage}: norms of gradients", apart, "apart", at_most=1e-3)
            record.measured(
                f"{stage}: weights", _apart(weights, wanted["weights"], start), "of the way", at_most=0.03
            )


def reference(folder: str) -> None:
    """Writes what the CPU computes beside the checkpoint."""
    os.environ["MASTER_PORT"] = free_port()
    norms, weights = updates(Path(folder), STAGES["ZeRO 0"])
    torch.save({"norms": norms, "weights": weights}, Path(folder) / "reference.pt")


def updates(folder: Path, settings: dict[str, Any]) -> tuple[list[float], dict[str, Tensor]]:
    """Makes the updates, and returns each one's norm and the weights that engines would be pushed."""
    from rlcore.config import LearnerConfig, ModelConfig
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine

    groups = make_groups(text_config(tiny=True), num_groups=3, prompt=12, samples=4, completion=30)
    learner = LearnerConfig(lr=1e-3, micro_batch_tokens=300, timeout_s=60, **settings)
    engine = DeepSpeedEngine(
        str(folder), ModelConfig(path=str(folder)), learner, num_steps=NUM_UPDATES, seed=0
    )
    torch.set_float32_matmul_precision("highest")  # the learner has chosen TF32, which the CPU has not
    norms = [engine.update([(groups, objective_of(groups))])["grad_norm"] for _ in range(NUM_UPDATES)]
    weights = {
        name: tensor.float().cpu().clone() for name, tensor in engine.model.iter_push("float32", whole=True)
    }
    engine.close()
    return norms, weights


def _apart(weights: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """The norm of the difference, over that of the way that the updates have gone."""
    if weights.keys() != wanted.keys():
        return float("inf")
    difference = sum(float((weights[name] - wanted[name]).square().sum()) for name in wanted)
    way = sum(float((start[name] - wanted[name]).square().sum()) for name in wanted)
    return float((difference / way) ** 0.5)
