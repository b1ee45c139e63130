"""Shows where a run's time went: `rlcore timeline`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rlcore.commands.shared import Commands


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `timeline` to the commands."""
    parser = commands.add_parser(
        "timeline", parents=parents, help="write a run's trace for Perfetto, and say who was busy with what"
    )
    parser.add_argument("folder", metavar="RUN", help="folder of a run")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the trace, prints each actor's busy seconds by phase, and returns 0."""
    from rlcore.records.timeline import busy_seconds, read_spans, write_trace

    path, spans = write_trace(arguments.folder), read_spans(arguments.folder)
    total = max(span.end for span in spans) - spans[0].start
    print(f"{path}: {len(spans)} spans over {total:.1f} s (open it in ui.perfetto.dev or chrome://tracing)")
    for actor, phases in busy_seconds(spans).items():
        for phase, seconds in phases.items():
            print(f"  {actor:<20} {phase:<16} {seconds:9.2f} s {seconds / total:6.1%}")
    return 0
