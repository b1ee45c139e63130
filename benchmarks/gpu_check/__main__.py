"""The check's command line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu_check import __doc__ as about
from benchmarks.gpu_check.parts import PARTS, run_part
from benchmarks.gpu_check.record import markdown
from rlcore.bench.machine import environment
from rlcore.records.files import finite, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts one after another; returns 1 where one failed, broke or ran out of time, else 0."""
    listed = "\n".join(f"  {name:<11} {part.limit_s:4.0f} s  {part.about}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=f"{about}\nparts, and the seconds that each may take:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help="only these"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny, to try the check itself"
    )
    parser.add_argument("--seconds", type=float, default=570, help="limit of all parts together")
    parser.add_argument("--json", type=Path, help="also write the results to this file, after each part")
    parser.add_argument("--render", type=Path, help="render an earlier --json as Markdown, and run nothing")
    arguments = parser.parse_args(argv)
    if arguments.render:
        if not arguments.render.is_file():
            parser.error(f"--render: {arguments.render} is no file; `--json FILE` writes one")
        print(markdown(json.loads(arguments.render.read_text(encoding="utf-8"))), end="")
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no GPU here: `rlcore doctor` says why. "
            "--device cpu runs the same code with tiny shapes"
        )
        return 1
    start = time.perf_counter()
    result = {"benchmark": "gpu_check", "device": arguments.device, "parts": [], **environment()}
    # A CPU, which may have others at work, has no card's time to spare.
    patience = 1 if arguments.device == "cuda" else 4
    for name in arguments.parts:
        left = arguments.seconds - (time.perf_counter() - start)
        limit = min(patience * PARTS[name].limit_s, left)
        part = run_part(name, PARTS[name], device=arguments.device, limit_s=limit)
        result["parts"].append(part)
        result["seconds"] = round(time.perf_counter() - start, 1)
        print(f"{name:<11} {part['status']:<8} {part['seconds']:6.1f} s  {part['about']}", flush=True)
        if arguments.json:
            write_json(arguments.json, finite(result))
    print(f"\n{markdown(finite(result))}", end="")
    return int(any(part["status"] not in ("ok", "skipped") for part in result["parts"]))


if __name__ == "__main__":
    sys.exit(main())
