"""The way back into a run: which checkpoint it goes on from, and under which settings."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from rlcore.actors.group import last_line
from rlcore.config import RunConfig
from rlcore.errors import CheckpointError
from rlcore.loop.controller import Controller
from rlcore.loop.extension import consequences
from rlcore.loop.saved_state import check_state
from rlcore.records import checkpoint
from rlcore.records.files import JsonObject

log = logging.getLogger(__name__)


def check_changes(config: RunConfig, folder: Path, accept_changes: bool) -> None:
    """Refuses before any actor starts what `go_on` would refuse of the newest checkpoint."""
    for newest in checkpoint.complete(folder)[-1:]:
        with suppress(checkpoint.DamagedCheckpointError):  # an older one may do
            _read(config, newest, accept_changes)


def _read(config: RunConfig, start: Path, accept_changes: bool) -> JsonObject:
    """Returns the controller's state of a checkpoint.

    Raises CheckpointError as `checkpoint.read`, and where the run is to end before the checkpoint's step.
    """
    settings = checkpoint.run_settings(config)
    state = checkpoint.read(start, settings=settings, accept_changes=accept_changes)
    check_state(config, state, start / checkpoint.CONTROLLER)
    if state["step"] > config.train.num_steps:
        raise CheckpointError(
            f"train.num_steps: got {config.train.num_steps}, must be at least {state['step']}, the step of "
            f"{start}; for fewer start in a new run_dir, or delete this run"
        )
    return state


def go_on(
    config: RunConfig, folder: Path, controller: Controller, accept_changes: bool = False
) -> int | None:
    """Brings learner and controller to the newest checkpoint in `folder` that is not damaged, and returns its
    step; None where there is no checkpoint.

    Raises CheckpointError where they are all damaged, or the newest is another run's.
    """
    found = checkpoint.complete(folder)
    while found:
        start = found.pop()
        try:
            state = _read(config, start, accept_changes)
            controller.learner.call("load", str(start / "learner"), timeout_s=config.learner.timeout_s)
            controller.reference.restore(start)
        except checkpoint.DamagedCheckpointError as error:
            if not found:
                raise
            log.warning("%s. The run goes on from %s", last_line(error), found[-1])
            continue
        controller.load_state_dict(state)
        return controller.step
    return None


def changes_since(config: RunConfig, folder: Path, step: int) -> list[checkpoint.Change]:
    """Returns what a run that goes on after `step` has changed, and says it in the log, with what follows
    from another length."""
    changes = checkpoint.changes(folder / f"step_{step:06d}", checkpoint.run_settings(config))
    for change in changes:
        log.warning("after step %d: %s", step, change)
        if change.key == "train.num_steps":
            for sentence in consequences(config, int(str(change.before)), step):
                log.warning("after step %d: %s", step, sentence)
    return changes
