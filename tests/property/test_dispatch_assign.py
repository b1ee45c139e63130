"""`Dispatcher.assign` is its rule, job by job, whatever the replicas already have."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from rlcore.actors.dispatch import READY, Dispatcher


def one_at_a_time(num_jobs: dict[int, int], jobs: list[int]) -> dict[int, list[int]]:
    """Each job to the replica with the fewest, of equal ones the lowest rank."""
    counts, dealt = dict(num_jobs), dict[int, list[int]]()
    for job in jobs:
        rank = min(counts, key=lambda rank: (counts[rank], rank))
        counts[rank] += 1
        dealt.setdefault(rank, []).append(job)
    return dealt


@given(
    loads=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    stale=st.sets(st.integers(0, 7)),
    finished=st.sets(st.integers(0, 39)),
    num_jobs=st.integers(0, 40),
)
def test_each_job_goes_to_the_replica_with_the_fewest(
    loads: list[int], stale: set[int], finished: set[int], num_jobs: int
) -> None:
    dispatcher = Dispatcher(len(loads))
    first = 0
    for rank, load in enumerate(loads):  # alone, it is given all
        dispatcher.updated(rank, [])
        dispatcher.started(rank, rank)
        dispatcher.add(range(first, first + load))
        assert dispatcher.assign() == ({rank: list(range(first, first + load))} if load else {})
        for job in finished & set(range(first, first + load)):
            assert dispatcher.finish(rank, job)
        first += load
    for rank in range(len(loads)):
        dispatcher.started(rank, dispatcher.version - (rank in stale))
    ready = {rank: dispatcher.num_jobs(rank) for rank in dispatcher.ranks(READY)}
    jobs = list(range(1000, 1000 + num_jobs))
    dispatcher.add(jobs)
    dealt = dispatcher.assign()
    expected = one_at_a_time(ready, jobs) if ready else {}
    assert list(dealt.items()) == list(expected.items())  # the ranks in order of their first job, too
    assert list(dispatcher.waiting) == ([] if ready else jobs)


def test_the_work_of_dealing_grows_with_the_jobs_and_not_with_jobs_times_engines() -> None:
    """Looking through all engines for each job took seconds of a step of 4096."""

    def lines_run(num_engines: int) -> int:
        dispatcher = Dispatcher(num_engines)
        for rank in range(num_engines):
            dispatcher.started(rank, 0)
        dispatcher.add(range(2 * num_engines))
        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            dealt = dispatcher.assign()
        finally:
            sys.settrace(before)
        assert all(dealt[rank] == [rank, rank + num_engines] for rank in range(num_engines))
        return count

    assert lines_run(1024) < 17 * lines_run(64)
