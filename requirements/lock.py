"""Writes cpu.lock: the exact versions of everything that the CPU set-up installs.

    make lock        # or: python requirements/lock.py

Run with Python 3.11 on Linux x86-64, where PyTorch's CPU wheels can be found. pip resolves the project with
the extras that `resolve` names in a fresh environment without installing it; the answer is written down less
what must not be installed on a CPU machine. The lock is therefore installed with `--no-deps`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCK = PROJECT / "requirements" / "cpu.lock"

DROPPED = {
    "torchaudio": "its public build is for CUDA and fails beside a CPU torch; nothing here needs it",
    "torchcodec": "as torchaudio; audio is read with soundfile",
    "triton": "compiles for GPUs; xgrammar asks for it and runs without",
}
# torchvision stays, though its public build is for CUDA too: the processors of Qwen2.5-Omni import it, and
# rlcore.engines.torchvision_shim makes that import work.
HEADER = """\
# Exact versions of the CPU set-up: Python 3.11, Linux x86-64. Written by `make lock`; do not edit.
# Install with: pip install --no-deps -r requirements/cpu.lock
# Left out on purpose, hence --no-deps:
"""


def resolve() -> dict[str, str]:
    """Name to version of the whole set, as pip's resolver chooses it today."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        report = Path(folder) / "report.json"
        install = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        wanted = [f"{PROJECT}[cpu,emotion,synth,small,variants,bench,dev]", "setuptools"]
        subprocess.run([*install, "--report", report, *wanted], check=True)
        packages = json.loads(report.read_text())["install"]
    return {p["metadata"]["name"]: p["metadata"]["version"] for p in packages}


def is_dropped(name: str) -> bool:
    return name.lower() in DROPPED or name.lower().startswith(("nvidia-", "cuda-"))


def main() -> int:
    versions = {n: v for n, v in resolve().items() if n != "rlcore" and not is_dropped(n)}
    lines = [HEADER]
    lines += [f"#   {name}: {reason}\n" for name, reason in DROPPED.items()]
    for name in sorted(versions, key=str.lower):
        # "+cpu" is added by the wheel that is found; the plain version also finds it.
        lines.append(f"{name}=={versions[name].split('+')[0]}\n")
    LOCK.write_text("".join(lines))
    print(f"{LOCK}: {len(versions)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
