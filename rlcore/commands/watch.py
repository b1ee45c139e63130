"""Serves the page of runs that go on: `rlcore watch`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlcore.commands.report import MAX_SAMPLES
from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `watch` to the commands."""
    parser = commands.add_parser(
        "watch", parents=parents, help="serve a run's page from its folder, as the run goes on"
    )
    parser.add_argument("folders", metavar="RUN", nargs="+", help="folder of a run; two stand side by side")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: one that is free)")
    parser.add_argument(
        "--samples",
        type=int,
        default=MAX_SAMPLES,
        metavar="N",
        help=f"samples at most (default: {MAX_SAMPLES:,})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C."""
    import asyncio

    from rlcore.report.server import Watch, serve

    watch = Watch([Path(folder) for folder in arguments.folders], max_samples=max(0, arguments.samples))

    def started(address: str) -> None:
        print(
            f"{address}\nOpen it in a browser on this machine; Ctrl-C ends it. The address is the key.",
            flush=True,
        )

    asyncio.run(serve(watch, arguments.port, started))
    return 0
