"""Stages that are run once, and found finished by the next start with the same settings.

Knows names, settings and results; what a stage does is its own affair.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from emotion_task.pipeline.estimate import minutes
from emotion_task.pipeline.results import Result
from rlcore.config.io import plain
from rlcore.records.files import read_json, write_json

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Result)
R_co = TypeVar("R_co", bound=Result, covariant=True)

Say = Callable[[str], None]
"""A function that takes a line for the person who waits, such as `print`."""

Reads = Mapping[str, tuple[str, str]]
"""What a stage reads that no stage made: by its key in the configuration, its path and a stamp that changes
with it."""


@dataclass(frozen=True)
class Stage(Generic[R_co]):
    """A stage is a piece of work under a name, done once for the same settings."""

    name: str
    result: type[R_co]
    settings: object
    """Values on which the result depends beside the stages before it; JSON-ready after
    `rlcore.config.io.plain`."""
    work: Callable[[bool], R_co]
    """Does the work. The argument says that it may go on from what an earlier attempt left, whose settings
    (`lasting`) were the same."""
    is_beside: bool = False
    """No later stage uses the result: to run the stage anew leaves the others finished."""
    reads: Callable[[], Reads] = dict
    """Looks at what the stage reads, beside what earlier stages made. Where that has changed, the stage and
    those after it are run again."""
    lasting: object = None
    """The part of the settings that an attempt, even a finished one, must share to be gone on from; None: all
    of them."""


class Stages:
    """Runs stages once: each leaves `stages/NAME.json` with a digest of its settings and of what it read,
    seconds and result.

    Args:
        say: is told when a stage begins.
    """

    def __init__(self, run_dir: Path, say: Say = log.info):
        self._folder = run_dir / "stages"
        self._say = say
        self.seconds: dict[str, float] = {}
        """Seconds that each stage took, of those that are finished."""
        self.expected: Mapping[str, float] = {}
        """Seconds of each stage, where they were estimated."""
        self._results: dict[str, Result] = {}
        self._chain = ""

    def finished(self, stages: Iterable[Stage[Result]]) -> dict[str, float]:
        """Returns the seconds that each of these stages took, as far as they lie finished here.

        Args:
            stages: in the order in which they will be run.
        """
        chain, seconds = "", {}
        for stage in stages:
            digest = _digest(chain, stage, self._reads(stage))
            found = self._found(stage.name, digest)
            if found is not None:
                seconds[stage.name] = float(found["seconds"])
            if stage.is_beside:
                continue
            if found is None:
                break
            chain = digest
        return seconds

    def result(self, name: str, kind: type[R]) -> R:
        """Returns what the stage `name` returned in this run, which is a `kind`."""
        found = self._results[name]
        assert isinstance(found, kind), (name, found)
        return found

    def run(self, stage: Stage[R]) -> R:
        """Returns the stage's result, made now or found.

        The result depends on the stage's settings and on all stages before it but those beside the line.
        """
        reads, before = self._reads(stage), self._chain
        digest = _digest(before, stage, reads)
        if not stage.is_beside:
            self._chain = digest
        found = self._found(stage.name, digest)
        result = None if found is None else _read(stage, found["result"])
        if found is not None and result is not None:
            log.info("%s: found finished in %s", stage.name, self._folder)
            self.seconds[stage.name] = found["seconds"]
        else:
            self._tell_changes(stage.name, reads)
            lasts = digest
            if stage.lasting is not None:
                lasts = _digest(before, replace(stage, settings=stage.lasting), reads)
            result = self._work(stage, digest, lasts, reads)
        self._results[stage.name] = result
        return result

    def _work(self, stage: Stage[R], digest: str, lasts: str, reads: Reads) -> R:
        name = stage.name
        expected = f", about {minutes(self.expected[name])}" if name in self.expected else ""
        self._say(f"\n== {name}{expected}")
        self._folder.mkdir(parents=True, exist_ok=True)
        started = self._folder / f"{name}.started"
        may_resume = started.is_file() and started.read_text(encoding="utf-8") == lasts
        started.write_text(lasts, encoding="utf-8")
        began = time.perf_counter()
        result = stage.work(may_resume)
        self.seconds[name] = round(time.perf_counter() - began, 1)
        write_json(
            self._folder / f"{name}.json",
            {"digest": digest, "seconds": self.seconds[name], "result": result.as_json(), "reads": reads},
            durable=True,
        )
        return result

    def _reads(self, stage: Stage[Result]) -> Reads:
        """Returns what the stage reads now. What is gone counts as it was: what was made of it holds."""
        now, before = stage.reads(), self._left(stage.name).get("reads", {})
        gone = {key for key, (path, _) in before.items() if key not in now and not Path(path).exists()}
        return {**now, **{key: tuple(before[key]) for key in gone}}

    def _tell_changes(self, name: str, reads: Reads) -> None:
        for key, (_, stamp) in self._left(name).get("reads", {}).items():
            if key in reads and reads[key][1] != stamp:
                self._say(f"{reads[key][0]} ({key}) changed since {name} read it: running {name} again")

    def _found(self, name: str, digest: str) -> dict[str, Any] | None:
        found = self._left(name)
        return found if found.get("digest") == digest else None

    def _left(self, name: str) -> dict[str, Any]:
        """Returns what a stage of this name left here; empty where none was finished."""
        return read_json(self._folder / f"{name}.json")


def _read(stage: Stage[R], found: dict[str, Any]) -> R | None:
    """A result that was found; None where it lacks what this version of the code needs."""
    try:
        return stage.result.from_json(found)
    except TypeError as error:
        log.warning("%s: its result is of another version (%s); the stage is run again", stage.name, error)
        return None


def _digest(before: str, stage: Stage[Result], reads: Reads) -> str:
    """Returns the digest of a stage's settings, of what it reads, and of all stages before it. What came from
    the environment counts by its name: a key may change, and a folder may be moved."""
    described = json.dumps(plain(stage.settings), sort_keys=True)
    stamps = sorted((key, stamp) for key, (_, stamp) in reads.items())
    read = json.dumps(stamps) if stamps else ""
    return hashlib.sha256(f"{before}/{stage.name}/{described}{read}".encode()).hexdigest()[:16]
