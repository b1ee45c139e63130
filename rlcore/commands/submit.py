"""Starts a run as a job of a Ray cluster, shows its log, and ends as it ended: `rlcore submit`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands, dry_run_option, run_dir_options

if TYPE_CHECKING:
    from rlcore.submit.request import JobRequest


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `submit` to the commands."""
    parser = commands.add_parser(
        "submit",
        parents=[*parents, run_dir_options(), dry_run_option()],
        help="train as a job of the Ray cluster that cluster.job names",
    )
    add_job_options(parser)
    parser.set_defaults(run=run)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every command that submits."""
    parser.add_argument("--run-id", metavar="ID", help="name of the run: the last part of its run_dir")
    parser.add_argument("--no-wait", action="store_true", help="end once the job is accepted")


def run(arguments: argparse.Namespace) -> int:
    """Submits the run and returns the exit code of `submit`."""
    from rlcore.submit.request import JobCommand, job_request

    asked = {
        "--resume": arguments.resume,
        "--accept-changes": arguments.accept_changes,
        "--overwrite": arguments.overwrite,
    }
    command = JobCommand(flags=tuple(flag for flag, is_set in asked.items() if is_set))
    request = job_request(arguments.config, arguments.overrides, run_id=arguments.run_id, command=command)
    again = arguments.resume or arguments.overwrite
    return submit(request, again=again, wait=not arguments.no_wait, dry_run=arguments.dry_run)


def submit(request: JobRequest, *, again: bool, wait: bool = True, dry_run: bool = False) -> int:
    """Starts the job, and returns its command's own exit code (0 at once unless `wait`).

    Raises:
        ConfigError: the folder is too large, or lacks a configuration file.
        ClusterError: the cluster does not answer, refuses, runs another Ray, or has the run already.
        PlacementError: the cluster cannot hold the run.
        StoppedError: someone stopped the job.
    """
    from rlcore.submit import ray_job as job  # imports Ray: only once the configuration stands

    client, submission_id, size = job.prepare(request, again=again)
    if dry_run:
        print(f"{request.run_id}: nothing speaks against it on {client.address} ({size})")
        return 0
    job.start(client, request, submission_id)
    print(f"{request.run_id}: job {submission_id} on {client.address} ({size})", flush=True)
    print(f"  stop, with a checkpoint: ray job stop {submission_id}", flush=True)
    if not wait:
        print(f"  its log: ray job logs {submission_id} --follow")
        return 0
    try:
        job.follow(client, submission_id, sys.stdout)
    except KeyboardInterrupt:
        print(
            f"\n{submission_id} goes on without being watched: ray job stop {submission_id}", file=sys.stderr
        )
        raise
    return job.exit_code(client, submission_id)
