"""Describes machines: how much a GPU holds, how fast it is, and how many there are."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rlcore.config import load_config
from rlcore.config.checks import positive
from rlcore.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A cluster of equal nodes. Its rates are peaks; `Efficiency` says what share of them is reached."""

    name: str = "custom"
    gpus_per_node: int = 8
    num_nodes: int = 1
    memory_gb: float = 80.0
    """Memory of one GPU, in units of 10^9 bytes."""
    bf16_tflops: float = 989.0
    """Rate of one GPU in dense matrix products of bfloat16."""
    fp32_tflops: float = 67.0
    """Rate of one GPU in dense matrix products of float32."""
    bandwidth_gb_s: float = 3350.0
    """Rate of one GPU's memory."""
    link_gb_s: float = 450.0
    """Rate between the GPUs of a node, in one direction."""
    network_gb_s: float = 50.0
    """Rate between nodes, for each GPU, in one direction."""
    host_link_gb_s: float = 50.0
    """Rate between a GPU and its node's main memory, in one direction."""
    host_memory_gb: float = 1000.0
    """Main memory of a node."""
    is_cpu: bool = False
    """A "GPU" is a core, and all roles of a node share `host_memory_gb`."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name not in ("name", "is_cpu"):
                positive(self, one.name)

    @property
    def num_gpus(self) -> int:
        return self.gpus_per_node * self.num_nodes

    def tflops(self, dtype: str) -> float:
        return self.bf16_tflops if dtype == "bfloat16" else self.fp32_tflops


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The efficiency says which shares of the hardware's peaks the phases reach.

    These are assumptions, not measurements of this project: well-kept engines report them for dense models of
    a few billion parameters (docs/guides/plan.md).
    """

    prefill: float = 0.50
    """Share of the matrix products' peak while vLLM reads prompts."""
    decode: float = 0.60
    """Share of the memory's bandwidth while vLLM writes tokens."""
    decode_step_s: float = 0.003
    """Seconds of a decoding step beside the model: scheduling, sampling, log-probabilities."""
    forward: float = 0.45
    """Share of the matrix products' peak while the reference or a reward model scores."""
    train: float = 0.35
    """Share of the matrix products' peak while the learner computes gradients."""
    prepare_s: float = 0.002
    """Seconds of one CPU core to read a second of audio and make the model's input features of it."""
    link: float = 0.70
    """Share of the rates of links, network and copies."""


KNOWN = {
    # The makers' data sheets; dense rates, without sparsity.
    "h100-80g": Hardware(name="h100-80g", host_memory_gb=2000.0),
    "h200-141g": Hardware(name="h200-141g", memory_gb=141.0, bandwidth_gb_s=4800.0, host_memory_gb=2000.0),
    "a100-80g": Hardware(
        name="a100-80g",
        bf16_tflops=312.0,
        fp32_tflops=19.5,
        bandwidth_gb_s=2039.0,
        link_gb_s=300.0,
        network_gb_s=25.0,
        host_link_gb_s=25.0,
    ),
    "a100-40g": Hardware(
        name="a100-40g",
        memory_gb=40.0,
        bf16_tflops=312.0,
        fp32_tflops=19.5,
        bandwidth_gb_s=1555.0,
        link_gb_s=300.0,
        network_gb_s=25.0,
        host_link_gb_s=25.0,
    ),
    "l40s": Hardware(
        name="l40s",
        memory_gb=48.0,
        bf16_tflops=362.0,
        fp32_tflops=91.6,
        bandwidth_gb_s=864.0,
        link_gb_s=25.0,
        network_gb_s=12.5,
        host_link_gb_s=25.0,
        host_memory_gb=512.0,
    ),
}

_SPEC = re.compile(r"(?P<name>[a-z0-9-]+)(:(?P<gpus>\d+)(x(?P<nodes>\d+))?)?")


def load_hardware(spec: str) -> Hardware:
    """Reads which hardware `spec` names.

    Args:
        spec: `h100-80g`, `h100-80g:8` (GPUs of one node), `h100-80g:8x4` (on 4 nodes), `cpu` (this machine,
            measured in a second), or a YAML file with the fields of `Hardware`.

    Raises:
        ConfigError: there is no such name, file or field.
    """
    if Path(spec).suffix in (".yaml", ".yml"):
        return load_config([spec], [], Hardware)
    found = _SPEC.fullmatch(spec)
    name = found["name"] if found else ""
    if name == "cpu":
        return this_machine()
    if found is None or name not in KNOWN:
        known = ", ".join([*KNOWN, "cpu"])
        raise ConfigError(
            f"--hardware: got {spec!r}, must be one of {known}, with :GPUS or :GPUSxNODES behind it, or a "
            "YAML file with memory_gb, bf16_tflops, bandwidth_gb_s, ..."
        )
    hardware = KNOWN[name]
    return replace(
        hardware,
        gpus_per_node=int(found["gpus"] or hardware.gpus_per_node),
        num_nodes=int(found["nodes"] or 1),
    )


def this_machine(device: str = "cpu") -> Hardware:
    """Measures this machine's rates by a matrix product and a copy.

    Args:
        device: `cpu`: rates of one core, and a "GPU" is a core. `cuda`: rates of the first GPU, whose links
        are
            not measured and keep their defaults.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = {dtype: _product_tflops(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
        copy_gb_s = _copy_gb_s(device)
    finally:
        torch.set_num_threads(threads)
    memory_gb = psutil.virtual_memory().total / 1e9
    measured = Hardware(
        name=device,
        gpus_per_node=os.cpu_count() or 1,
        memory_gb=memory_gb,
        host_memory_gb=memory_gb,
        bf16_tflops=rates[torch.bfloat16],
        fp32_tflops=rates[torch.float32],
        bandwidth_gb_s=copy_gb_s,
    )
    if device != "cpu":
        own = torch.cuda.get_device_properties(0)
        return replace(
            measured,
            name=own.name,
            gpus_per_node=torch.cuda.device_count(),
            memory_gb=own.total_memory / 1e9,
        )
    half = copy_gb_s / 2
    return replace(measured, is_cpu=True, link_gb_s=half, network_gb_s=1.0, host_link_gb_s=copy_gb_s)


def _product_tflops(device: str, dtype: torch.dtype) -> float:
    import torch

    size = 768 if device == "cpu" else 8192
    square = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _seconds(lambda: square @ square, device) / 1e12


def _copy_gb_s(device: str) -> float:
    """Counts what is read and what is written."""
    import torch

    num_bytes = (32 if device == "cpu" else 1024) << 20
    source, target = torch.zeros(2, num_bytes, dtype=torch.uint8, device=device)
    return 2 * num_bytes / _seconds(lambda: target.copy_(source), device) / 1e9


def _seconds(work: Callable[[], object], device: str, *, repeats: int = 5, times: int = 5) -> float:
    """Seconds of one call: the best of some repeats, as others may be at work on the machine."""
    import torch

    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    best = float("inf")
    for _ in range(1 + repeats):  # the first also warms up
        wait()
        start = time.perf_counter()
        for _ in range(times):
            work()
        wait()
        best = min(best, (time.perf_counter() - start) / times)
    return best
