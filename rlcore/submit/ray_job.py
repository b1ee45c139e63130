"""A run's job on the cluster: checks before it, its start, its log as it is written, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from aiohttp import ClientError

from rlcore.actors.placement import Bundle, check_fits, run_bundles
from rlcore.errors import ClusterError, StoppedError
from rlcore.submit.cluster import JobClient, asking, connect, nodes
from rlcore.submit.request import RUN_KEY, JobRequest
from rlcore.submit.working_dir import MB, check_working_dir

ACTIVE = ("PENDING", "RUNNING")
EXIT_CODE_S = 10.0
"""How long the driver's exit code may come after the job's end."""
SILENCE_S = 60.0
"""After so many seconds without news a log is asked for anew: its connection may be gone."""
LOST_S = 60.0
"""After so many seconds without an answer the cluster is given up."""


def prepare(request: JobRequest, *, again: bool) -> tuple[JobClient, str, str]:
    """Checks that the cluster can take the run.

    Args:
        again: the run may have been on this cluster before.

    Returns:
        The cluster's client, the id for the job, and how much will be uploaded (`3 files, 0.1 MB`).

    Raises:
        ConfigError: the folder is too large, or lacks a configuration file.
        ClusterError: the cluster does not answer, runs another Ray, or has the run already.
        PlacementError: the cluster cannot hold the run.
    """
    job = request.job
    sizes = check_working_dir(request.working_dir, job.exclude, max_mb=job.max_mb, needed=request.needed)
    client = connect(job)
    if not job.autoscales:
        driver = Bundle(role="driver", num_cpus=job.num_cpus)
        check_fits([driver, *run_bundles(request.config)], nodes(client))
    submission_id = next_submission_id(client, request.run_id, again=again)
    return client, submission_id, f"{len(sizes)} files, {sum(sizes.values()) / MB:.1f} MB"


def start(client: JobClient, request: JobRequest, submission_id: str) -> None:
    """Starts the job under this id.

    Raises:
        ClusterError: the cluster does not take the job.
    """
    with asking(client, "did not take the job"), _without_ray_telling():
        client.submit_job(
            entrypoint=request.entrypoint,
            runtime_env=request.runtime_env,
            metadata=request.metadata,
            submission_id=submission_id,
            entrypoint_num_cpus=request.job.num_cpus,
        )


@contextmanager
def _without_ray_telling() -> Iterator[None]:
    """Ray warns of what it leaves out of the working folder, line by line: `check_working_dir` has looked."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def next_submission_id(client: JobClient, run_id: str, *, again: bool) -> str:
    """Returns RUN for a run's first job, RUN.2 for the second.

    Raises:
        ClusterError: the run is going on; or has been there before, and is neither to be resumed nor
            to be overwritten (`again`).
    """
    with asking(client, "did not say which jobs it has"):
        jobs = client.list_jobs()
    earlier = [each for each in jobs if (each.metadata or {}).get(RUN_KEY) == run_id]
    for each in earlier:
        if each.status in ACTIVE:
            raise ClusterError(
                f"run {run_id} is {each.status} as job {each.submission_id}: end it (ray job stop "
                f"{each.submission_id}), or choose another --run-id"
            )
    if not earlier:
        return run_id
    if not again:
        last = max(earlier, key=lambda each: each.start_time or 0)
        raise ClusterError(
            f"run {run_id} has been on this cluster ({last.submission_id}: {last.status}): "
            "--resume goes on from its last checkpoint, another --run-id begins anew, --overwrite too, and "
            "deletes what is there"
        )
    # Some may have been deleted: their number among the others is not how many there were.
    return f"{run_id}.{max(_number(each.submission_id, run_id) for each in earlier) + 1}"


def _number(submission_id: str, run_id: str) -> int:
    suffix = submission_id.removeprefix(f"{run_id}.")
    return int(suffix) if suffix != submission_id and suffix.isdecimal() else 1


def follow(client: JobClient, submission_id: str, out: TextIO) -> None:
    """Writes the job's log to `out` until the job ends. A connection that breaks or falls silent is taken up
    again where the log had got to.

    Raises:
        ClusterError: the cluster answers no more.
    """
    asyncio.run(_follow(client, submission_id, out))


async def _follow(client: JobClient, submission_id: str, out: TextIO) -> None:
    written, answered = 0, time.monotonic()
    while True:
        seen, stream = 0, client.tail_job_logs(submission_id)
        # However it ends, the job's state tells what that means.
        with suppress(StopAsyncIteration, asyncio.TimeoutError, RuntimeError, OSError, ClientError):
            while True:
                text = await asyncio.wait_for(anext(stream), SILENCE_S)
                seen += len(text)
                if seen > written:
                    out.write(text[-(seen - written) :])
                    out.flush()
                    written = seen
        try:
            with asking(client, f"did not say how job {submission_id} is"):
                status = client.get_job_status(submission_id)
            if status not in ACTIVE:
                return
            answered = time.monotonic()
        except ClusterError as error:
            if time.monotonic() - answered > LOST_S:
                raise ClusterError(
                    f"the cluster has not answered for {LOST_S:g} s ({error}); job {submission_id} may go "
                    f"on: ray job logs {submission_id} --follow"
                ) from error
        await asyncio.sleep(1.0)


def exit_code(client: JobClient, submission_id: str) -> int:
    """Returns the exit code of the job's command.

    Raises:
        StoppedError: the job was stopped.
        ClusterError: the command never ran.
    """
    deadline = time.monotonic() + EXIT_CODE_S
    while True:
        with asking(client, f"did not say how job {submission_id} ended"):
            info = client.get_job_info(submission_id)
        if info.status == "STOPPED":
            raise StoppedError(
                f"job {submission_id} was stopped; where its log names a checkpoint, the same command with "
                "--resume goes on from there"
            )
        if info.driver_exit_code is not None:
            return int(info.driver_exit_code)
        if time.monotonic() > deadline:
            if info.status == "SUCCEEDED":
                return 0
            raise ClusterError(f"job {submission_id} {info.status}: {info.message}")
        time.sleep(0.2)
