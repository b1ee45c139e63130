"""Provides actors that end themselves where a test has armed a death: once, in the middle of a method."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlcore.actors.learner_worker import LearnerWorker
from rlcore.actors.reference_worker import ReferenceWorker
from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.types import Group, RolloutJob, TrainBatch
from rlcore.weight_sync import Push, PushReport

FOLDER = "MORTAL_WORKERS"
"""Environment variable that names the folder of armed deaths."""


def arm(folder: Path, *deaths: str) -> None:
    """Arms deaths such as `update-1-3` (method, rank, step from 1); with `-stop` at the end the process is
    stopped, not killed."""
    for death in deaths:
        (folder / death).touch()


def die_if_armed(place: str) -> None:
    for death, number in ((place, signal.SIGKILL), (f"{place}-stop", signal.SIGSTOP)):
        file = Path(os.environ[FOLDER]) / death
        if file.exists():
            file.unlink()
            os.kill(os.getpid(), number)


class MortalLearner(LearnerWorker):
    """A learner rank that may die in an update, in a push with half of the weights sent, and in a save."""

    def update(self, batch: TrainBatch) -> dict[str, float]:
        die_if_armed(f"update-{self.rank}-{self._engine._num_calls + 1}")
        return super().update(batch)

    def push_weights(self, push: Push) -> PushReport | None:
        place = f"push-{self.rank}-{self._engine._num_calls}"
        if self._sender is None:
            die_if_armed(place)
            return super().push_weights(push)
        post = type(self._sender).post_bucket

        def post_bucket(talk: Any, index: int, slot: int, checksum: str) -> None:
            if index == 2:  # engines have loaded the first, or are about to
                die_if_armed(place)
            post(self._sender, talk, index, slot, checksum)

        self._sender.post_bucket = post_bucket
        return super().push_weights(push)

    def save(self, folder: str) -> None:
        die_if_armed(f"save-{self.rank}-{self._engine._num_calls}")
        super().save(folder)


class MortalReference(ReferenceWorker):
    """A reference replica that may die when it is asked."""

    def logprobs(self, groups: Sequence[Group]) -> list[Any]:
        die_if_armed("reference")
        return super().logprobs(groups)


class MortalRollout(RolloutWorker):
    """A rollout replica that may die as it generates a prompt of the stream."""

    def submit(self, jobs: Sequence[RolloutJob], policy_version: int | None = None) -> None:
        super().submit(jobs, policy_version)
        for job in jobs:
            if not job.greedy:
                die_if_armed(f"rollout-{job.draw}")
