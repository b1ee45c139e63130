"""The replicas of the reference policy, whatever becomes of one: they have no state to lose."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlcore.actors.group import ActorGroup
from rlcore.actors.placement import Reservation
from rlcore.actors.reference_worker import ReferenceWorker
from rlcore.config import ReferenceConfig
from rlcore.errors import ActorError, DeadlineError

logger = logging.getLogger(__name__)


class ReferencePool(ActorGroup):
    """A reference pool is a group whose calls outlive its actors: a replica that dies, or gives no answer, is
    started anew and asked again, for the same shard. Threads may share one pool.

    Args:
        arguments: constructor keywords of one replica each.
    """

    def __init__(
        self,
        arguments: Sequence[Mapping[str, Any]],
        config: ReferenceConfig,
        *,
        reservation: Reservation | None = None,
        env_vars: Mapping[str, str] | None = None,
    ):
        super().__init__(
            "reference",
            ReferenceWorker,
            arguments,
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            reservation=reservation,
            env_vars=env_vars,
            options={"resources": dict(config.resources)},
        )
        self.num_restarts = 0
        self._max_restarts, self._replacing = config.max_restarts, threading.Lock()

    def call_each(
        self, method: str, arguments: Sequence[tuple[Any, ...]], *, timeout_s: float, **kwargs: Any
    ) -> list[Any]:
        """Calls rank i with `arguments[i]`, and returns one result per rank.

        Raises ActorError once more replicas were lost than `reference.max_restarts`.
        """
        actors = self.actors
        calls = [self.call_one_async(i, method, *args, **kwargs) for i, args in enumerate(arguments)]
        results = []
        for rank, (actor, call) in enumerate(zip(actors, calls, strict=True)):
            while True:
                try:
                    results.append(call.result(timeout_s=timeout_s))
                    break
                except (ActorError, DeadlineError) as error:
                    self._replace(rank, actor, error)
                    actor = self.actors[rank]
                    call = self.call_one_async(rank, method, *arguments[rank], **kwargs)
        return results

    def move(self, path: str, *, timeout_s: float) -> None:
        """Loads other weights into every replica, and into those that will take the place of one. Calls that
        are under way may still be answered by the old ones."""
        self._arguments = [{**each, "model": replace(each["model"], path=path)} for each in self._arguments]
        self.call_each("load", [(path,)] * self.size, timeout_s=timeout_s)

    def _replace(self, rank: int, actor: Any, error: ActorError | DeadlineError) -> None:
        with self._replacing:
            if self.actors[rank] is not actor:
                return  # another thread, whose call it lost as well, has done so
            if self.num_restarts == self._max_restarts:
                raise ActorError(
                    f"{error}. It is number {self.num_restarts + 1} to be lost and reference.max_restarts "
                    "allows no more"
                ) from error
            self.num_restarts += 1
            logger.warning("reference[%d] is replaced: %s", rank, error)
            self.restart(rank)
