"""The stage of reinforcement learning: GRPO-PTR from the SFT model."""

from __future__ import annotations

from emotion_task.pipeline.results import Reinforced
from emotion_task.pipeline.workspace import Workspace
from rlcore.errors import StoppedError


def reinforce(work: Workspace, may_resume: bool) -> Reinforced:
    """Trains the policy as `rl` is configured; leaves `rl/model`.

    Raises:
        StoppedError: a signal ended the run, with a checkpoint.
    """
    from rlcore.run import train

    result = Reinforced.from_json(train(work.config.rl, resume=may_resume, overwrite=True))
    if (stopped_by := result.summary["stopped_by"]) is not None:
        raise StoppedError(
            f"stopped by {stopped_by} after RL step {result.summary['steps']}, with a checkpoint; the same "
            "command goes on from there"
        )
    work.add_companions(result.model)
    return result
