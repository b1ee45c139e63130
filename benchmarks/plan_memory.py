"""Compares `rlcore plan`'s memory of a learner with what the learner takes on this machine.

    python -m benchmarks.plan_memory [--quick] [--json FILE] [--gate]

Each case is one DeepSpeed engine (one process per rank) that takes two policy updates on made-up groups.
The measured figure is the peak of the process's resident memory (VmHWM, reset when the libraries are loaded
and a small engine has run) above what was resident at that moment. glibc gives every tensor above 64 kB its
own mapping, so that the peak is what is allocated and not what malloc keeps. Goal: within 10 %.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import finish, parse_arguments

if TYPE_CHECKING:
    import numpy as np

    from rlcore.config import LearnerConfig
    from rlcore.types import TrainGroup

GOAL = 0.10


@dataclass(frozen=True, kw_only=True)
class Case:
    """Holds a Qwen2 text model, a learner and a batch.

    Every rank has `num_groups` prompts of `prompt` tokens with `samples` completions of `completion` tokens
    each, in micro-batches of `micro_batch_tokens`."""

    name: str
    hidden: int = 384
    intermediate: int = 1152
    layers: int = 8
    vocab: int = 8192
    num_ranks: int = 1
    zero_stage: int = 2
    lora_rank: int = 0
    checkpointing: bool = False
    precision: str = "float32"
    stored: str = "float32"
    """Dtype of the checkpoint."""
    num_groups: int = 1
    prompt: int = 16
    samples: int = 2
    completion: int = 16
    micro_batch_tokens: int = 8192


LONG = Case(name="", num_groups=2, prompt=128, samples=8, completion=96, layers=6)
CASES = (
    Case(name="weights, ZeRO 0", zero_stage=0),
    Case(name="weights, ZeRO 1", zero_stage=1),
    Case(name="weights, ZeRO 2"),
    Case(name="weights, ZeRO 3", zero_stage=3),
    Case(name="weights, ZeRO 2, 2 ranks", num_ranks=2),
    Case(name="weights, ZeRO 3, 2 ranks", num_ranks=2, zero_stage=3),
    Case(name="adapters, rank 16", lora_rank=16),
    replace(LONG, name="activations, ZeRO 2"),
    replace(LONG, name="activations, checkpointed", checkpointing=True),
    replace(LONG, name="activations, 2 micro-batches", micro_batch_tokens=1024),
    replace(LONG, name="activations, bfloat16", precision="autocast", layers=4),
    replace(LONG, name="adapters with activations", lora_rank=16),
    replace(LONG, name="adapters with activations, bfloat16", lora_rank=16, precision="autocast", layers=4),
    replace(
        LONG,
        name="adapters beside a checkpoint in bfloat16",
        lora_rank=16,
        precision="autocast",
        stored="bfloat16",
        layers=4,
    ),
    replace(
        LONG,
        name="the same, checkpointed, ZeRO 3",
        lora_rank=16,
        zero_stage=3,
        precision="autocast",
        stored="bfloat16",
        checkpointing=True,
    ),
    Case(
        name="large vocabulary", vocab=98304, hidden=128, intermediate=384, layers=4, samples=8, completion=48
    ),
)
QUICK = ("weights, ZeRO 2", "activations, ZeRO 2", "large vocabulary")


def small(case: Case) -> Case:
    return replace(case, hidden=64, intermediate=64, layers=1, vocab=64, num_groups=1, prompt=8, completion=8)


def dimensions(case: Case) -> dict[str, int | str]:
    """Returns the case's arguments of `Qwen2Config`."""
    heads = case.hidden // 64
    return {
        "vocab_size": case.vocab,
        "hidden_size": case.hidden,
        "intermediate_size": case.intermediate,
        "num_hidden_layers": case.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 3),
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "dtype": case.stored,
    }


def make_model(case: Case, folder: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(Qwen2Config(**dimensions(case)))
    model.to(getattr(torch, case.stored)).save_pretrained(folder)


def make_groups(case: Case, rank: int) -> list[TrainGroup]:
    import numpy as np

    from rlcore.types import TrainGroup

    rng = np.random.default_rng(rank)

    def tokens(count: int) -> np.ndarray:
        return rng.integers(0, case.vocab, size=count)

    def logprobs() -> tuple[np.ndarray, ...]:
        return tuple(np.full(case.completion, -2.0, dtype=np.float32) for _ in range(case.samples))

    return [
        TrainGroup(
            prompt_id=f"{rank}.{index}",
            prompt_token_ids=tokens(case.prompt),
            token_ids=tuple(tokens(case.completion) for _ in range(case.samples)),
            rollout_logprobs=logprobs(),
            reference_logprobs=logprobs(),
            advantages=rng.normal(size=case.samples).astype(np.float32),
            media_inputs={},
        )
        for index in range(case.num_groups)
    ]


def learner_of(case: Case) -> LearnerConfig:
    from rlcore.config import LearnerConfig, LoRAConfig

    return LearnerConfig(
        num_ranks=case.num_ranks,
        zero_stage=case.zero_stage,
        lora=LoRAConfig(rank=case.lora_rank),
        activation_checkpointing=case.checkpointing,
        precision=case.precision,
        micro_batch_tokens=case.micro_batch_tokens,
        timeout_s=120,
    )


def work(case: Case, folder: Path) -> None:
    """Runs one rank and prints its peak in bytes.

    A small engine goes first: what libraries load and keep at the first use of a ZeRO stage is no part of the
    model's cost."""
    import torch

    from rlcore.algorithms.aggregation import BatchTotals
    from rlcore.config import AlgorithmConfig, ModelConfig
    from rlcore.engines import zero
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine
    from rlcore.engines.shares import PolicyObjective

    torch.set_num_threads(1)
    zero.init_process_group(120)
    rank = int(os.environ["RANK"])

    def train(case: Case, folder: Path, num_updates: int) -> DeepSpeedEngine:
        model = ModelConfig(path=str(folder))
        engine = DeepSpeedEngine(str(folder), model, learner_of(case), num_steps=num_updates, seed=0)
        num_sequences = case.num_ranks * case.num_groups * case.samples
        for _ in range(num_updates):
            objective = PolicyObjective(
                totals=BatchTotals(
                    num_tokens=num_sequences * case.completion,
                    num_sequences=num_sequences,
                    max_tokens=case.completion,
                ),
                algorithm=AlgorithmConfig(),
                recompute_logprobs=False,
            )
            engine.update([(make_groups(case, rank), objective)])
        return engine

    train(small(case), folder / "small", 1).close()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory("VmRSS")
    engine = train(case, folder / "model", 2)
    print(_memory("VmHWM") - before, flush=True)
    engine.close()


def measure(case: Case) -> int:
    """Returns the highest peak of the case's ranks, in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(case, folder / "model")
        make_model(small(case), folder / "small")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            **os.environ,
            "WORLD_SIZE": str(case.num_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_ARENA_MAX": "2",
        }
        command = [sys.executable, "-m", "benchmarks.plan_memory", "--work", json.dumps(asdict(case)), name]
        ranks = [
            subprocess.Popen(
                command,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(case.num_ranks)
        ]
        peaks = []
        for process in ranks:
            out, errors = process.communicate(timeout=300)
            if process.returncode:
                raise SystemExit(errors)
            peaks.append(int(out.splitlines()[-1]))
        return max(peaks)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def planned(case: Case) -> float:
    """Returns the peak of one rank that `rlcore plan` gives, in bytes."""
    from transformers import Qwen2Config

    from rlcore.config import ModelConfig
    from rlcore.plan.hardware import Hardware
    from rlcore.plan.memory import MicroBatch, learner_memory
    from rlcore.plan.sizes import sizes_of_config

    learner = learner_of(case)
    fitting = (learner.micro_batch_tokens - case.prompt) // case.completion
    num_rows = min(fitting, case.num_groups * case.samples)
    shape = MicroBatch(
        num_groups=max(1, num_rows // case.samples),
        num_rows=num_rows,
        prompt=case.prompt,
        completion=case.completion,
        longest=case.completion,
    )
    count = -(-case.num_groups * case.samples // num_rows)
    sizes = sizes_of_config(Qwen2Config(**dimensions(case), architectures=["Qwen2ForCausalLM"]))
    model, hardware = ModelConfig(path="made-up"), Hardware(is_cpu=True)
    return learner_memory(sizes, model, learner, shape, hardware, num_micro_batches=count).peak


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(Case(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    arguments = parse_arguments(__doc__ or "")
    rows = []
    for case in CASES:
        if arguments.quick and case.name not in QUICK:
            continue
        measured, plan = measure(case), planned(case)
        row = {"case": case.name, "planned_MB": plan / 2**20, "measured_MB": measured / 2**20}
        rows.append(row | {"error": plan / measured - 1})
    worst = max(rows, key=lambda row: abs(row["error"]))
    errors = [abs(row["error"]) for row in rows]
    headline = {"worst_error": worst["error"], "in": worst["case"], "mean_error": sum(errors) / len(errors)}
    finish("plan_memory", rows, headline, {"within 10 %": max(errors) <= GOAL}, arguments)


if __name__ == "__main__":
    main()
