"""The machine that a measurement was taken on, and the code."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from rlcore.records.versions import versions


def environment() -> dict[str, object]:
    """Returns hardware, versions, commit and load, without which a number cannot be compared.

    The commit ends in `-dirty` where files differ from it, and is null outside a checkout.
    """
    import torch

    return {
        "commit": _commit(),
        "cpu": _cpu(),
        "num_cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions(),
        "load": round(os.getloadavg()[0], 2),
    }


def _commit(folder: Path = Path(__file__).parent) -> str | None:
    """Returns the commit of the checkout around `folder`. Results that benchmarks just wrote do not count."""
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(
        folder,
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":(top)",
        ":(top,exclude)benchmarks/results",
    )
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(folder: Path, *command: str) -> str:
    """Returns what git prints; nothing where git fails or is not installed."""
    try:
        git = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""


def _cpu() -> str:
    """Returns the name of the CPU's model, or of its architecture where Linux tells no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
