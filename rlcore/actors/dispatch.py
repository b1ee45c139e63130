"""The decision which replica works on what: jobs go to the one with the least to do, and only to one that
holds the current weights. A plain class, which calls no actor: `rlcore.actors.rollout_pool` carries its
decisions out.

    starting --started--> stale --updated--> ready --lost--> starting ...

The jobs of a replica that is lost go to the others, or wait until one is ready.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

STARTING, STALE, READY = "starting", "stale", "ready"


@dataclass(slots=True)
class _Replica:
    version: int = -1
    jobs: dict[int, None] = field(default_factory=dict)
    """Jobs of the replica, in the order in which they were given."""


class Dispatcher:
    """The states of `num_replicas` replicas, and who has which job.

    `version` is the one that replicas must hold: a replica that reports another takes no work.
    """

    def __init__(self, num_replicas: int, version: int = 0):
        self.version = version
        self.waiting: dict[int, None] = {}
        """Jobs that no replica has, in order."""
        self._replicas = [_Replica() for _ in range(num_replicas)]
        self._in: dict[str, set[int]] = {STARTING: set(range(num_replicas)), STALE: set(), READY: set()}
        """Ranks by state: to ask for those that are stale, at every poll, must cost nothing."""

    def add(self, jobs: Iterable[int]) -> None:
        """Takes new jobs, which wait for `assign`."""
        self.waiting |= dict.fromkeys(jobs)

    def assign(self) -> dict[int, list[int]]:
        """Gives every waiting job to the ready replica with the fewest jobs, of equal ones the lowest rank:
        idle replicas get jobs in turn. Returns each rank's new jobs, in order; empty while no replica is
        ready."""
        ready = [(len(self._replicas[rank].jobs), rank) for rank in self.ranks(READY)]
        given: dict[int, list[int]] = {}
        if not ready:
            return given
        heapq.heapify(ready)
        for job in self.waiting:
            num_jobs, rank = ready[0]
            heapq.heapreplace(ready, (num_jobs + 1, rank))
            self._replicas[rank].jobs[job] = None
            given.setdefault(rank, []).append(job)
        self.waiting.clear()
        return given

    def finish(self, rank: int, job: int) -> bool:
        """Takes a finished job off a replica. Returns whether the job was this replica's to finish: False
        where the job was cancelled, or given to another."""
        return self._replicas[rank].jobs.pop(job, 0) is None

    def cancel(self, jobs: Iterable[int]) -> dict[int, list[int]]:
        """Forgets jobs. Returns those that replicas must be told of, by rank."""
        told: dict[int, list[int]] = {}
        rank_of = {job: rank for rank, replica in enumerate(self._replicas) for job in replica.jobs}
        for job in jobs:
            self.waiting.pop(job, None)
            if (rank := rank_of.pop(job, None)) is not None:
                del self._replicas[rank].jobs[job]
                told.setdefault(rank, []).append(job)
        return told

    def started(self, rank: int, version: int) -> None:
        """Notes that a replica stands, with weights of this version."""
        self._replicas[rank].version = version
        self._move(rank, READY if version == self.version else STALE)

    def updated(self, version: int, ranks: Iterable[int]) -> None:
        """Notes that some replicas now hold `version`, which is the one that counts."""
        self.version = version
        for rank in ranks:
            self._replicas[rank].version = version
        standing = self._in[STALE] | self._in[READY]
        self._in[READY] = {rank for rank in standing if self._replicas[rank].version == version}
        self._in[STALE] = standing - self._in[READY]

    def lost(self, rank: int) -> list[int]:
        """Notes that a replica died or hangs, and is being started anew. Returns its jobs, which wait before
        all others."""
        jobs = self._replicas[rank].jobs
        self.waiting = {**jobs, **self.waiting}
        self._replicas[rank] = _Replica()
        self._move(rank, STARTING)
        return list(jobs)

    def ranks(self, *states: str) -> list[int]:
        """Returns the ranks of replicas in one of these states, ascending."""
        return sorted(set[int]().union(*(self._in[state] for state in states)))

    def num_jobs(self, rank: int) -> int:
        """Returns the number of jobs that a replica has."""
        return len(self._replicas[rank].jobs)

    @property
    def num_unfinished(self) -> int:
        """Number of jobs that wait, or that a replica has."""
        return len(self.waiting) + sum(len(replica.jobs) for replica in self._replicas)

    def _move(self, rank: int, state: str) -> None:
        for ranks in self._in.values():
            ranks.discard(rank)
        self._in[state].add(rank)
