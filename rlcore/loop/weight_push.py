"""Brings the learner's weights into the rollout engines. The only place in the loop that knows the policy's
version, who takes part in a push, and how one is called off."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress

from rlcore.actors.crew import Actors
from rlcore.config import RunConfig
from rlcore.errors import DeadlineError, RLCoreError, WeightSyncError
from rlcore.records.timeline import Recorder
from rlcore.weight_sync.messages import call_off

_MARGIN_S = 15.0
"""Added to the wait for a push, whose own deadline says more."""


class WeightPush:
    """Pushes the weights of one run. Engines start from `model.path` as version 0."""

    def __init__(self, config: RunConfig, actors: Actors, recorder: Recorder):
        self._config, self._actors, self._recorder = config, actors, recorder
        self.version = 0
        """The policy version that standing engines hold."""

    def push(self, step: int) -> None:
        """Brings the weights after the update of `step` (from 0) into the engines, as the next version. What
        the engines are writing goes on with it.

        Raises WeightSyncError where the push failed though no engine was lost; what the pool raises.
        """
        pool, timeout_s = self._actors.rollout, self._config.rollout.timeout_s
        if self._config.cluster.colocate:
            pool.wake_up("weights", timeout_s=timeout_s)
        self._push(self.version + 1, pool.standing, step)
        self.version += 1
        if self._config.cluster.colocate:
            pool.wake_up("kv_cache", timeout_s=timeout_s)

    def restore(self, step: int) -> None:
        """Brings the current version into engines that were started anew. The learner must be idle: its
        weights are the current version only then."""
        self._push(self.version, self._actors.rollout.stale, step)

    def _push(self, version: int, ranks: Sequence[int], step: int) -> None:
        """Learner and engines take part at the same time: while they load one bucket, the learner gathers the
        next. Where an engine is lost meanwhile, the others are pushed to again."""
        pool, learner = self._actors.rollout, self._actors.needed_learner
        workers = self._config.rollout.workers_per_engine
        timeout_s = self._config.weight_sync.timeout_s + _MARGIN_S
        ranks = list(ranks)
        if not ranks:  # all are being started, from the weights of `model.path`
            pool.expect(version)
        while ranks:
            push = learner.call_one(0, "announce_push", version, ranks, workers, timeout_s=timeout_s)
            with self._recorder.span("learner", "push_weights", step + 1):
                sending = learner.call_async("push_weights", push)
                try:
                    updated = pool.update_weights(push, ranks, timeout_s=timeout_s)
                except RLCoreError as error:
                    # The learner need not wait any longer. Where it died itself, that is the cause.
                    with suppress(WeightSyncError, DeadlineError):
                        call_off(push, str(error))
                        sending.result(timeout_s=timeout_s)
                    raise
                with suppress(WeightSyncError) if len(updated) < len(ranks) else nullcontext():
                    sending.result(timeout_s=timeout_s)
            ranks = sorted(set(ranks) & set(pool.stale))
