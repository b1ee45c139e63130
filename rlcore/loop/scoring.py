"""Scored groups: what the rewards and the reference say of a group, once it has been generated.

Every reward's pool and the reference work at the same time, each waited for by a thread that does nothing
else. What a failed score counts for is decided here, once, by the reward's `on_error`. Scoring knows neither
how scores are mixed nor what they are used for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import BoundedSemaphore
from typing import TypeVar

import numpy as np

from rlcore.actors.crew import Actors
from rlcore.actors.group import ActorGroup
from rlcore.config import RunConfig
from rlcore.loop.scored import ScoredGroup, Scores, group_arrays
from rlcore.records.timeline import Recorder
from rlcore.rewards.policy import apply_error_policy
from rlcore.types import Group, RewardContext, Score

T = TypeVar("T")

_MOST_SCORERS = 64


def groups_per_score(config: RunConfig) -> int:
    """Returns how many groups are scored together: one where prompts compete to be first."""
    return 1 if config.train.oversample else config.train.groups_per_score


def num_scorers(config: RunConfig) -> int:
    """Returns how many chunks of groups are scored at once: as many as keep every replica of every reward at
    work, and one for the rewards that are ahead of the slowest."""
    room = [r.replicas * r.concurrency * (r.batch_size or 1) for r in config.rewards.values()]
    chunks = -(-max(room, default=1) // groups_per_score(config))
    return min(_MOST_SCORERS, chunks + 1)


class Scoring:
    """Asks rewards and reference for their view of groups. `close` ends its threads."""

    def __init__(self, config: RunConfig, actors: Actors, recorder: Recorder):
        self._config, self._actors, self._recorder = config, actors, recorder
        self.statistics: dict[str, float] = {}
        """The latest finished step's `reward/...` metrics, which rewards may read."""
        self._chunks = ThreadPoolExecutor(num_scorers(config), thread_name_prefix="score")
        num_waiters = num_scorers(config) * (1 + len(config.rewards))
        self._waiters = ThreadPoolExecutor(num_waiters, thread_name_prefix="wait")
        # The reference's deadline holds for one call, waiting for its turn included.
        self._reference_turns = BoundedSemaphore(2 * max(1, config.reference.num_replicas))

    def submit(self, groups: list[Group], step: int) -> Future[list[ScoredGroup]]:
        """Starts to score training groups of `step` (from 0).

        The future raises RewardError where a score failed whose `on_error` is `abort`, and what the reference
        raises.
        """
        return self._chunks.submit(self.score_groups, groups, step)

    def score_groups(self, groups: list[Group], step: int) -> list[ScoredGroup]:
        """Scores training groups of `step` (from 0) and waits for them. Raises as `submit`'s future."""
        scoring = self._start_rewards(groups, step)
        reference = self._start_reference(groups, step) if self._config.algorithm.kl_coef > 0 else None
        scores = {name: future.result() for name, future in scoring.items()}
        logprobs = None if reference is None else reference.result()
        values = {
            name: apply_error_policy(name, groups, per_group, self._config.rewards[name].on_error)
            for name, per_group in scores.items()
        }
        return [
            ScoredGroup(
                group=group,
                scores={name: per_group[g] for name, per_group in scores.items()},
                values={name: per_group[g] for name, per_group in values.items()},
                arrays=group_arrays(group, None if logprobs is None else logprobs[g]),
            )
            for g, group in enumerate(groups)
        ]

    def score(self, groups: list[Group], step: int) -> Scores:
        """Returns every reward's scores, failures included, without the reference: for an evaluation."""
        return {name: future.result() for name, future in self._start_rewards(groups, step).items()}

    def close(self) -> None:
        """Ends the threads; what they wait for ends with the actors."""
        self._chunks.shutdown(wait=False, cancel_futures=True)
        self._waiters.shutdown(wait=False, cancel_futures=True)

    def _start_rewards(self, groups: list[Group], step: int) -> dict[str, Future[list[list[Score]]]]:
        context = RewardContext(
            step=step, num_steps=self._config.train.num_steps, statistics=dict(self.statistics)
        )
        return {
            name: self._wait_for(pool, "score", step, partial(pool.score, groups, context))
            for name, pool in self._actors.rewards.items()
        }

    def _start_reference(self, groups: list[Group], step: int) -> Future[list[list[np.ndarray]]]:
        """The reference's log-probabilities, [G][K] of float32 [T]."""
        reference: ActorGroup = self._actors.reference or self._actors.needed_learner
        method, timeout_s = "logprobs", self._config.reference.timeout_s
        if self._actors.reference is None:
            method = "reference_logprobs"
            timeout_s += self._config.learner.timeout_s  # an update may come first
        ask = partial(reference.call_shards, method, groups, timeout_s=timeout_s)
        return self._wait_for(reference, method, step, ask, self._reference_turns)

    def _wait_for(
        self,
        actors: ActorGroup,
        method: str,
        step: int,
        ask: Callable[[], T],
        turns: AbstractContextManager[object] | None = None,
    ) -> Future[T]:
        def wait() -> T:
            with turns or nullcontext(), self._recorder.span(actors.name, method, step + 1):
                return ask()

        return self._waiters.submit(wait)
