"""Stages that are run once, and found finished by the next start with the same settings."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from emotion_task.pipeline.estimate import minutes
from rlcore.config.io import plain
from rlcore.records.files import write_json

log = logging.getLogger(__name__)

_BESIDE = ("reference", "perception")
"""Stages whose results no later stage uses: to run one anew leaves the others finished."""


class Stages:
    """Runs stages once: each leaves `stages/NAME.json` with a digest of its settings, seconds and result."""

    def __init__(self, run_dir: Path):
        self._folder = run_dir / "stages"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.expected: Mapping[str, float] = {}
        """Seconds of each stage, where they were estimated."""
        self._chain = ""

    def finished(self, stages: Iterable[tuple[str, Any]]) -> dict[str, float]:
        """Seconds that each of these took, (name, settings) in the order in which they will be run, as far as
        they lie finished here with these settings."""
        chain, seconds = "", {}
        for name, settings in stages:
            digest = _digest(chain, name, settings)
            found = self._found(name, digest)
            if found is not None:
                seconds[name] = float(found["seconds"])
            if name in _BESIDE:
                continue
            if found is None:
                break
            chain = digest
        return seconds

    def _found(self, name: str, digest: str) -> dict[str, Any] | None:
        path = self._folder / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found if found.get("digest") == digest else None

    def run(self, name: str, settings: Any, work: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """The stage's result, made now or found. It depends on its settings and on all stages before it but
        those beside the line.

        `work` is told whether it may go on from what an interrupted attempt with the same settings left.
        """
        digest = _digest(self._chain, name, settings)
        if name not in _BESIDE:
            self._chain = digest
        found = self._found(name, digest)
        if found is not None:
            log.info("%s: found finished in %s", name, self._folder)
            self.seconds[name], self.results[name] = found["seconds"], found["result"]
            return found["result"]
        expected = f", about {minutes(self.expected[name])}" if name in self.expected else ""
        print(f"\n== {name}{expected}", flush=True)
        started = self._folder / f"{name}.started"
        may_resume = started.is_file() and started.read_text(encoding="utf-8") == digest
        started.write_text(digest, encoding="utf-8")
        began = time.perf_counter()
        result = work(may_resume)
        self.seconds[name], self.results[name] = round(time.perf_counter() - began, 1), result
        write_json(
            self._folder / f"{name}.json",
            {"digest": digest, "seconds": self.seconds[name], "result": result},
            durable=True,
        )
        return result


def _digest(before: str, name: str, settings: Any) -> str:
    """Of a stage's settings and of all stages before it. What came from the environment counts by its name: a
    key may change."""
    described = json.dumps(plain(settings), sort_keys=True)
    return hashlib.sha256(f"{before}/{name}/{described}".encode()).hexdigest()[:16]
