"""The decision what becomes of a run when something in it fails.

Rollout, reward and reference actors are replaced where they are called, and their calls go on. A learner rank
takes its process group with it, and the learner's state: the run goes back to its last checkpoint, with a new
learner. Whatever else is raised was raised on purpose, or is a defect: it ends the run.
"""

from __future__ import annotations

import logging

from rlcore.config import RunConfig
from rlcore.errors import ActorError, DeadlineError

logger = logging.getLogger(__name__)


def raise_unless_learner_was_lost(error: Exception, config: RunConfig, num_restarts: int) -> None:
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
