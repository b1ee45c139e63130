"""Brings the learner's weights into the rollout engines. The only place in the loop that knows the policy's
version, who takes part in a push, and how one is called off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress

from rlcore.actors.crew import Actors
from rlcore.config import RunConfig
from rlcore.errors import DeadlineError, RLCoreError, WeightSyncError
from rlcore.records.timeline import Recorder
from rlcore.weight_sync.messages import call_off

_NUM_NAMED = 3
"""Parameters that an error names."""

_MARGIN_S = 15.0
"""Added to the wait for a push, whose own deadline says more."""


class WeightPush:
    """Pushes the weights of one run. Engines start from `model.path` as version 0."""

    def __init__(self, config: RunConfig, actors: Actors, recorder: Recorder):
        self._config, self._actors, self._recorder = config, actors, recorder
        self.version = 0
        """The policy version that standing engines hold."""
        self._loaded: dict[int, dict[str, str]] = {}
        """What vLLM loaded from `model.path`, until the first push has been compared with it: digests by rank
        and name."""

    def push(self, step: int) -> None:
        """Brings the weights after the update of `step` (from 0) into the engines, as the next version. What
        the engines are writing goes on with it.

        The first push of a run brings the weights of `model.path`, before anything is trained. Where
        `weight_sync.verify_first_push` says so, it must reproduce what vLLM loaded from there.

        Raises WeightSyncError where the push failed though no engine was lost, or the first one did not
        reproduce what was loaded; what the pool raises.
        """
        pool, timeout_s = self._actors.rollout, self._config.rollout.timeout_s
        is_first = self.version == 0 and self._verifies_first
        if is_first:
            self._before_first()
        if self._config.cluster.colocate:
            pool.wake_up("weights", timeout_s=timeout_s)
        if is_first and self._config.pushes_all:
            pool.forget_weights(timeout_s=timeout_s)
        self._push(self.version + 1, pool.standing, step)
        if is_first:
            check_same(self._loaded, pool.weight_digests(timeout_s=timeout_s), self._config)
            self._loaded = {}
        self.version += 1
        if self._config.cluster.colocate:
            pool.wake_up("kv_cache", timeout_s=timeout_s)

    def _before_first(self) -> None:
        """Notes what vLLM loaded; a learner that is lost in the first push is followed by another first push,
        to engines that have forgotten it. Engines that share GPUs also sleep once, as they will in every
        step: before anything is trained it shows whether a push brings all that they give up."""
        pool, timeout_s = self._actors.rollout, self._config.rollout.timeout_s
        self._loaded = self._loaded or pool.weight_digests(timeout_s=timeout_s)
        if self._config.cluster.colocate:
            pool.sleep(timeout_s=timeout_s)

    @property
    def _verifies_first(self) -> bool:
        """Whether to verify the first push: not where it is to bring other weights than engines loaded."""
        return self._config.weight_sync.verify_first_push and self._config.engines_start_alike

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


def check_same(
    loaded: Mapping[int, Mapping[str, str]], pushed: Mapping[int, Mapping[str, str]], config: RunConfig
) -> None:
    """Compares digests of the engines' parameters, by rank and name, from before and after a push of the same
    weights.

    Raises:
        WeightSyncError: some differ; the first of them are named.
    """
    for rank in sorted(loaded.keys() & pushed.keys()):
        before, after = loaded[rank], pushed[rank]
        names = [name for name in before if after.get(name) != before[name]]
        if names:
            more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
            slept = ", after a sleep," if config.cluster.colocate else ""
            raise WeightSyncError(
                f"rollout[{rank}]: the first push by {config.weight_sync.backend}{slept} did not bring what "
                f"vLLM had loaded from model.path, though nothing has been trained yet. Of {len(before)} "
                f"parameters these differ: {', '.join(names[:_NUM_NAMED])}{more}. Every answer would be of a "
                "policy that is not the learner's. Try another weight_sync.backend (or cluster.colocate="
                "false where engines sleep); weight_sync.verify_first_push=false trains all the same"
            )
