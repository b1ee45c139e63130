"""Driver, builds and imports; the card, and the rates that it reaches."""

from __future__ import annotations

import importlib
import os
import time

import psutil

from benchmarks.gpu_check.record import Record
from rlcore.commands.machine_checks import check_builds, check_versions, driver_version
from rlcore.plan.hardware import KNOWN, Hardware, this_machine

PACKAGES = (
    "torch",
    "transformers",
    "triton",
    "deepspeed",
    "ray",
    "vllm",
    "flashinfer",
    "torchaudio",
    "torchcodec",
)


def run(record: Record, device: str, *, tiny: bool) -> None:
    """Looks at the machine; fails where `rlcore doctor` fails for its builds."""
    record.measured("driver", driver_version() or "none")
    for finding in check_builds():
        passed = {"ok": True, "fail": False}.get(finding.status)
        record.measured(finding.subject, f"{finding.detail} {finding.advice}".strip(), passed=passed)
    for finding in check_versions():
        if finding.status != "ok":
            record.measured(f"version of {finding.subject}", finding.detail)
    for package in PACKAGES:
        start = time.perf_counter()
        try:
            module = importlib.import_module(package)
        except Exception as error:
            # Absent ones are told; one that is there and breaks (a library of another CUDA) is a failure.
            absent = isinstance(error, ModuleNotFoundError) and error.name == package
            record.measured(
                f"import {package}", "absent" if absent else f"{error}", passed=None if absent else False
            )
        else:
            version = getattr(module, "__version__", "")
            record.measured(f"import {package} {version}".strip(), time.perf_counter() - start, "s")
    import torch

    record.measured("CPU cores", len(os.sched_getaffinity(0)))
    record.measured("main memory", psutil.virtual_memory().total / 1e9, "GB")
    if device == "cuda":
        own = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        record.measured("card", own.name)
        record.measured("compute capability", f"{own.major}.{own.minor}")
        record.measured("memory of the card", total / 1e9, "GB")
        record.measured("of it free", free / 1e9, "GB", at_least=0.9 * total / 1e9)
        record.measured("NCCL", ".".join(map(str, torch.cuda.nccl.version())))
    rates, sheet = this_machine(device), _data_sheet(torch.cuda.get_device_name() if device == "cuda" else "")
    for what, name, unit in (
        ("matrix products in bfloat16", "bf16_tflops", "TFLOP/s"),
        ("matrix products in float32", "fp32_tflops", "TFLOP/s"),
        ("copy on the device", "bandwidth_gb_s", "GB/s"),
    ):
        expected = f"data sheet {getattr(sheet, name):.0f}" if sheet else ""
        record.measured(what, getattr(rates, name), unit, expected=expected)


def _data_sheet(card: str) -> Hardware | None:
    """The hardware of `rlcore plan` that has this card's name in its own."""
    return next((one for name, one in KNOWN.items() if name.partition("-")[0] in card.lower()), None)
