"""The decision what becomes of a run when something in it fails.

Rollout, reward and reference actors are replaced where they are called, and their calls go on. A learner rank
takes its process group with it, and the learner's state: the run goes back to its last checkpoint, with a new
learner. Whatever else is raised was raised on purpose, or is a defect: it ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from rlcore.config import RunConfig
from rlcore.errors import ActorError, DeadlineError
from rlcore.loop.controller import Controller

logger = logging.getLogger(__name__)

T = TypeVar("T")


def outliving_learners(work: Callable[[bool], T], config: RunConfig, controller: Controller) -> T:
    """Returns what `work` does, which begins anew where the learner is lost in it. It is told whether that
    was so, and then starts a new learner.

    Raises:
        ActorError, DeadlineError: the learner was lost more often than `learner.max_restarts`.
        Exception: what else `work` raised.
    """
    is_lost = False
    while True:
        try:
            return work(is_lost)
        except Exception as error:
            _raise_unless_learner_was_lost(error, config, controller.num_restarts)
            is_lost = True


def _raise_unless_learner_was_lost(error: Exception, config: RunConfig, num_restarts: int) -> None:
    """Returns where a new learner shall go on from the last checkpoint; else raises.

    Args:
        num_restarts: times that the learner was started anew before.

    Raises:
        ActorError, DeadlineError: the learner was lost, and may not be replaced once more.
        Exception: `error` itself, where the learner was not lost.
    """
    if not isinstance(error, ActorError | DeadlineError) or error.role != "learner":
        raise error
    allowed = config.learner.max_restarts
    if num_restarts >= allowed:
        spent = f"It was started anew {num_restarts} times and learner.max_restarts allows no more"
        raise type(error)(f"{error}. {spent}") from error
    logger.warning("the learner is started anew, %d of %d times: %s", num_restarts + 1, allowed, error)
