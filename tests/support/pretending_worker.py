"""Defines a rollout actor that only pretends to generate. Ray's workers, which start and die all the time,
import this module: torch, which takes seconds, is imported only for a push."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rlcore.errors import ConfigError
from rlcore.types import Completion, FinishedJob, Group, RolloutJob

if TYPE_CHECKING:
    from rlcore.weight_sync.receiver import Receiver


class PretendingWorker:
    """Answers each prompt with its own rank. A prompt's text is an order, such as `die`; `folder` remembers
    which orders were obeyed, so that the worker that gets the prompt next only answers."""

    def __init__(self, rank: int, folder: str):
        self._rank, self._folder, self._version = rank, folder, 0
        self._jobs: list[RolloutJob] = []
        self._stalled = False
        self._receiver: Receiver | None = None
        if os.path.exists(f"{folder}/dies_at_start"):
            os.remove(f"{folder}/dies_at_start")
            os._exit(1)

    def ready(self) -> int:
        return self._version

    def submit(self, jobs, policy_version: int) -> None:
        assert policy_version == self._version
        for job in jobs:
            order, path = job.prompt.text, f"{self._folder}/{job.id}"
            if order in ("die twice", "die", "hang", "fail") and not os.path.exists(path):
                open(path, "w").close()
                if order == "die twice":
                    open(f"{self._folder}/dies_at_start", "w").close()
                if order.startswith("die"):
                    os._exit(1)
                if order == "fail":
                    raise ZeroDivisionError("a kernel failed")
                self._stalled = True
            elif order == "refuse":
                raise ConfigError(f"prompt {job.prompt.id} is too long")
            self._jobs.append(job)

    def collect(self, timeout_s: float) -> SimpleNamespace:
        """Returns the fields of a `RolloutReport` that the pool reads; that class's module would import
        vLLM."""
        time.sleep(0.02)
        jobs, self._jobs = ([], self._jobs) if self._stalled else (self._jobs, [])
        return SimpleNamespace(
            finished=tuple(FinishedJob(id=job.id, group=self._group(job), num_encoded=1) for job in jobs),
            stalled_s=9.0 if self._stalled else 0.0,
            spans=(),
        )

    def cancel(self, job_ids) -> None:
        self._jobs = [job for job in self._jobs if job.id not in job_ids]

    def update_weights(self, push) -> int:
        """Takes part in a `Push`, of which rank 1 dies; a SimpleNamespace only sets the version."""
        if not isinstance(push, SimpleNamespace):
            if self._rank == 1:
                os._exit(1)
            from rlcore.weight_sync.receiver import Receiver

            self._receiver = self._receiver or Receiver(push.backend)
            self._receiver.take(push, engine=self._rank, accept=list, load=lambda _, parts: list(parts))
        self._version = push.version
        return self._version

    def _group(self, job: RolloutJob) -> Group:
        answer = Completion(
            token_ids=(self._rank,),
            logprobs=(0.0,),
            text=f"rank {self._rank}",
            finish_reason="stop",
            policy_version=self._version,
        )
        return Group(prompt=job.prompt, prompt_token_ids=(1,), completions=(answer,))
