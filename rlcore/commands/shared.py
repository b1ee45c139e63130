"""Parts that several commands share: their common options, the listing of metrics, and what they write to."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO


class Commands(Protocol):
    """The commands of a parser, to which each command's file adds its own."""

    def add_parser(
        self,
        name: str,
        *,
        parents: Sequence[argparse.ArgumentParser],
        help: str,
        description: str | None = None,
    ) -> argparse.ArgumentParser:
        """Adds a command and returns its parser."""
        ...


def debug_option() -> argparse.ArgumentParser:
    """Returns the option of every command, `--debug`, as a parent of its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def config_options() -> argparse.ArgumentParser:
    """Returns `--config FILE ... key=value ...` as a parent of a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML file; may be given several times, later files win",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="single settings, for instance learner.lr=1e-5"
    )
    return parser


def dry_run_option() -> argparse.ArgumentParser:
    """Returns `--dry-run` as a parent of a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--dry-run", action="store_true", help="only look for what would go wrong; nothing is started"
    )
    return parser


def run_dir_options() -> argparse.ArgumentParser:
    """Returns `--resume`, `--accept-changes` and `--overwrite`, what becomes of a run that lies in `run_dir`,
    as a parent of a command's parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run_dir")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on with settings that were others, such as learner.lr, and record them",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew where run_dir holds a run, and delete that; with --resume only where it has no "
        "checkpoint",
    )
    return parser


def print_metrics(title: str, metrics: Mapping[str, object]) -> None:
    """Prints names and values in two columns; names inside nested mappings are dotted."""
    rows = dict(_flat(metrics))
    width = max(map(len, rows), default=0)
    print(title)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def _flat(metrics: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in metrics.items():
        rows += (
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
        )
    return rows


@contextmanager
def lasting_output() -> Iterator[None]:
    """Keeps the block's work from ending because nobody reads on what it prints: stdout into a pipe that was
    closed (`| head -1`), or a terminal that is gone. What is printed from then on is lost."""
    streams = sys.stdout, sys.stderr
    lasting: list[Any] = list(map(_Lasting, streams))
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            stream.flush()  # at its end Python would find the closed pipe, and change the exit code
        sys.stdout, sys.stderr = streams


class _Lasting:
    """A text stream that turns into the null device where its reader is gone."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or drops the text."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes, or drops what was to be flushed."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            with suppress(OSError):  # no file of the system's
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
