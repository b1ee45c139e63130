"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rlcore.records.versions import versions


def environment() -> dict[str, Any]:
    """Hardware, versions, commit (with `-dirty` where files differ from it; null outside a checkout), and how
    busy the machine is, so that a number can be compared."""
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
    """Of the checkout that `folder` lies in. Results that benchmarks have just written make it no other."""
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
    """What git prints; nothing where it fails or is not installed."""
    try:
        git = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""


def _cpu() -> str:
    """The model's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
