"""All actors of a run: what they ask of the cluster, and how they come up and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

from rlcore.actors.crew import Actors
from rlcore.actors.group import ActorGroup, was_killed
from rlcore.actors.heartbeat import forget_heartbeats
from rlcore.actors.learner_worker import LearnerWorker, start_learner
from rlcore.actors.placement import Reservation, reserve, run_bundles, start_order
from rlcore.actors.reference_pool import ReferencePool
from rlcore.actors.reward_pool import RewardPool
from rlcore.actors.rollout_pool import RolloutPool
from rlcore.actors.rollout_worker import NUM_THREADS, RolloutWorker
from rlcore.actors.watch import Watch
from rlcore.config import RunConfig
from rlcore.errors import ActorError, ConfigError
from rlcore.models.engine_environment import engine_env, growing_blocks_env
from rlcore.models.host_memory import heap_env
from rlcore.records.progress import tell
from rlcore.records.timeline import Recorder

logger = logging.getLogger(__name__)


@contextmanager
def spawn(
    config: RunConfig, *, with_learner: bool = True, recorder: Recorder | None = None
) -> Iterator[Actors]:
    """Starts all actors of a run and yields them ready. At the end they are killed and their resources given
    back. What the rollout actors do goes into `recorder`.

    One that is killed meanwhile is started anew, as often as while the run goes on.

    Raises:
        PlacementError: the cluster cannot hold them (within `cluster.placement_timeout_s`).
        ActorError: one of them could not be built, or was killed too often.
        DeadlineError: one of them did not come up (within `cluster.startup_timeout_s`).
    """
    if not config.rewards and with_learner:
        raise ConfigError("rewards: got none; a run needs at least one, for instance rewards.format.target")
    timeout_s = config.cluster.startup_timeout_s
    with ExitStack() as stack:
        asked = run_bundles(config, with_learner=with_learner)
        tell(f"starting actors: {_roles(config, with_learner)}")
        reservation = reserve(asked, timeout_s=config.cluster.placement_timeout_s)
        stack.callback(forget_heartbeats)
        stack.callback(reservation.release)
        crew = _Crew(config, reservation, stack)
        engines = crew.rollout()
        rollout = RolloutPool(engines, config.rollout, startup_timeout_s=timeout_s, recorder=recorder)
        rewards = {name: crew.reward(name) for name in config.rewards}
        learner = crew.learner() if with_learner else None  # takes nothing of a GPU before `start_learner`
        ready = partial(ActorGroup.call, method="ready", timeout_s=timeout_s)
        reference = None
        pending = [pool.ready(rank) for pool in rewards.values() for rank in range(pool.size)]
        for roles in start_order(asked):
            if "reference" in roles:
                reference = crew.reference()
            if "learner" in roles and learner is not None:
                _stand(learner, partial(start_learner, timeout_s=timeout_s), config.learner.max_restarts)
                tell("the learner is ready")
            if "reference" in roles and reference is not None:
                _stand(reference, ready, config.reference.max_restarts)
                tell("the reference is ready")
            if pending:
                while pending:
                    pending.pop().result(timeout_s=timeout_s)
                tell("the rewards are ready")
            if "rollout" in roles:
                rollout.wait_until_ready(timeout_s=timeout_s)
                tell("the rollout engines are ready")
        watched = [engines, *rewards.values(), *filter(None, (learner, reference))]
        stack.enter_context(closing(Watch(watched)))
        yield Actors(rollout=rollout, rewards=rewards, learner=learner, reference=reference)


def _roles(config: RunConfig, with_learner: bool) -> str:
    """Says which actors a run has."""
    told = [f"{config.rollout.min_replicas} rollout"]
    if with_learner:
        told.append(f"{config.learner.num_ranks} learner")
    return ", ".join([*told, *(f"reward {name}" for name in config.rewards)])


def _stand(group: ActorGroup, start: Callable[[ActorGroup], object], max_restarts: int) -> None:
    """Waits until actors stand. Where one is killed meanwhile, all of its group are started anew: none of
    them has done anything yet."""
    for num_restarts in range(1, max_restarts + 2):
        try:
            start(group)
            return
        except ActorError as error:
            if not was_killed(error) or num_restarts > max_restarts:
                raise
            logger.warning(
                "%s is started anew, %d of %d times: %s", group.name, num_restarts, max_restarts, error
            )
            group.restart_all()


class _Crew:
    """Starts the actors of each role in what was reserved for it, to end with `stack`."""

    def __init__(self, config: RunConfig, reservation: Reservation, stack: ExitStack):
        self._config, self._reservation, self._stack = config, reservation, stack

    def rollout(self) -> ActorGroup:
        config = self._config
        common = {
            "model": config.model,
            "rollout": config.rollout,
            "task": config.task,
            "seed": config.seed,
            "weight_backend": config.weight_sync.backend,
            "can_sleep": config.cluster.colocate,
        }
        arguments = [{**common, "rank": rank} for rank in range(config.rollout.max_replicas)]
        env_vars = engine_env(cpu=config.rollout.num_gpus == 0)
        options = {"max_concurrency": NUM_THREADS}
        num_more = config.rollout.max_replicas - config.rollout.min_replicas
        return self._group(
            "rollout", RolloutWorker, config.rollout, arguments, env_vars, options, num_unreserved=num_more
        )

    def reward(self, name: str) -> RewardPool:
        reward = self._config.rewards[name]
        pool = RewardPool(
            name,
            reward,
            reservation=self._reservation,
            env_vars=engine_env(cpu=reward.num_gpus == 0),
            startup_timeout_s=self._config.cluster.startup_timeout_s,
        )
        self._stack.callback(pool.shutdown)
        return pool

    def learner(self) -> ActorGroup:
        learner = self._config.learner
        arguments = [{"config": self._config, "rank": r} for r in range(learner.num_ranks)]
        lends = self._config.weight_sync.medium.gpus == "shared"
        env_vars = self._torch_env(learner.num_gpus, blocks_grow=not lends)
        return self._group("learner", LearnerWorker, learner, arguments, env_vars)

    def reference(self) -> ReferencePool:
        reference = self._config.reference
        common = {
            "model": self._config.model,
            "learner": self._config.learner,
            "micro_batch_tokens": reference.micro_batch_tokens,
            "temperature": self._config.rollout.temperature,
        }
        pool = ReferencePool(
            [common] * reference.num_replicas,
            reference,
            reservation=self._reservation,
            env_vars=self._torch_env(reference.num_gpus),
        )
        self._stack.callback(pool.shutdown)
        return pool

    def _torch_env(self, num_gpus: float, *, blocks_grow: bool = True) -> dict[str, str]:
        if num_gpus == 0:
            return engine_env(cpu=True) | heap_env(self._config.model.path)
        return engine_env(cpu=False) | (growing_blocks_env() if blocks_grow else {})

    def _group(
        self,
        role: str,
        cls: type,
        section: Any,
        arguments: Sequence[Mapping[str, Any]],
        env_vars: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        num_unreserved: int = 0,
    ) -> ActorGroup:
        actors = ActorGroup(
            role,
            cls,
            arguments,
            num_cpus=section.num_cpus,
            num_gpus=section.num_gpus,
            reservation=self._reservation,
            env_vars=env_vars,
            options={"resources": dict(section.resources), **(options or {})},
            num_unreserved=num_unreserved,
        )
        self._stack.callback(actors.shutdown)
        return actors
