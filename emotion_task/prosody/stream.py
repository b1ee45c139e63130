"""Measures files on Ray Data: on every node of the cluster, streaming, in any order.

    utterances -> blocks of up to 128 -> measuring tasks, one per CPU, where one is free -> outcomes

Nodes read the audio themselves, by its path: the audio must be on storage that all of them see.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import ray

from emotion_task.prosody.files import MeasureConfig, Outcome, measure_file
from emotion_task.records import Utterance
from rlcore.actors.session import ray_session
from rlcore.config import ClusterConfig

log = logging.getLogger(__name__)

BLOCK = 128
"""Most utterances per task; a killed run has to measure at most this many per CPU again."""
_BLOCKS_PER_CPU = 4
"""Least number of blocks per CPU (while there are utterances), so that CPUs end at about the same time."""


def stream_outcomes(
    jobs: Sequence[tuple[str, Utterance]], config: MeasureConfig, num_workers: int | None
) -> Iterator[Outcome]:
    """Measures utterances, given with their keys, and yields each outcome once.

    A file that kills its measuring process (a crash in a native library, memory) gives an outcome with a
    reason, too. What a dead worker left is measured again, one utterance per task: the file whose task dies
    again is the culprit.

    Args:
        jobs: utterances with their keys.
        num_workers: number of tasks at a time; None for all CPUs of the cluster.
    """
    with ray_session(ClusterConfig(num_cpus=num_workers)):
        pending = dict(jobs)
        for outcome in _stream(pending, config, num_workers):
            del pending[outcome.key]
            yield outcome
        if pending:
            log.warning("a measuring process died; %d utterances are measured one by one", len(pending))
            yield from _one_by_one(pending, config, num_workers)


def _stream(
    pending: dict[str, Utterance], config: MeasureConfig, num_workers: int | None
) -> Iterator[Outcome]:
    """Yields the outcomes of every block that killed no process."""
    rows = [{"key": key, "row": _row(utterance)} for key, utterance in pending.items()]
    with _data_context(enable_progress_bars=False, max_errored_blocks=-1):
        num_tasks = num_workers or _num_cpus()
        num_blocks = max(-(-len(rows) // BLOCK), min(len(rows), _BLOCKS_PER_CPU * num_tasks))
        blocks = ray.data.from_items(rows, override_num_blocks=num_blocks)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is no other way to set `max_retries` yet
            measured = blocks.map_batches(
                _measure_batch,
                fn_kwargs={"config": config},
                batch_size=None,
                batch_format="numpy",
                num_cpus=1,
                compute=ray.data.TaskPoolStrategy(size=num_workers),
                ray_remote_args_fn=lambda: {"max_retries": 1},  # Ray Data itself tries for ever
            )
        for batch in measured.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            yield from (Outcome(**json.loads(outcome)) for outcome in batch["outcome"])


@contextmanager
def _data_context(**settings: object) -> Iterator[None]:
    """Sets Ray Data's settings for the length of the `with` block; they belong to the process."""
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in settings}
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)  # failed blocks are told of here
        for name, value in settings.items():
            setattr(context, name, value)
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def _measure_batch(batch: dict[str, np.ndarray], config: MeasureConfig) -> dict[str, list[str]]:
    return {
        "outcome": [
            _measure_row(str(key), str(row), config)
            for key, row in zip(batch["key"], batch["row"], strict=True)
        ]
    }


def _measure_row(key: str, row: str, config: MeasureConfig) -> str:
    measured, reason = measure_file(Utterance(**json.loads(row)), config)
    return json.dumps({"key": key, "measured": measured, "reason": reason})


def _one_by_one(
    pending: dict[str, Utterance], config: MeasureConfig, num_workers: int | None
) -> Iterator[Outcome]:
    remote = ray.remote(num_cpus=1, max_retries=1)(_measure_row)
    limit = num_workers or _num_cpus()
    waiting = iter(pending.items())
    running: dict[ray.ObjectRef, str] = {}
    while True:
        for key, utterance in waiting:
            running[remote.remote(key, _row(utterance), config)] = key
            if len(running) >= 2 * limit:
                break
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        key = running.pop(done)
        try:
            yield Outcome(**json.loads(ray.get(done)))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            yield Outcome(key=key, reason="killed: the process that measured it died, twice")


def _num_cpus() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _row(utterance: Utterance) -> str:
    needed = asdict(utterance)
    for name in ("measured", "trace"):
        needed[name] = None
    return json.dumps({name: value for name, value in needed.items() if value is not None})
