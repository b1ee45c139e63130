"""The reference that follows the policy, and its weights in checkpoints.

A frozen reference holds a long run back: the KL grows with what is learnt. After every `reference.sync_every`
steps the reference takes on weights of the policy, theta_ref <- (1 - a) theta_ref + a theta, with a =
`reference.sync_weight` (TR-DPO, arXiv 2404.09656: with 1 its hard update, below its soft one; ProRL, arXiv
2505.24864, resets the reference too).

The weights lie in `run_dir/reference`, from which a replica that is replaced starts as well. A checkpoint
holds a second name of these files, which costs no room.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rlcore.actors.crew import Actors
from rlcore.config import RunConfig
from rlcore.records.checkpoint import check_digest, file_digest, read_json
from rlcore.records.files import replaced, sync, write_json
from rlcore.records.timeline import Recorder

FOLDER = "reference"
"""Folder of the weights, in `run_dir` and in a checkpoint."""
SYNCED = "synced.json"
"""File in that folder: after which step the weights were taken, and digests of the files that hold them."""


class MovingReference:
    """Moves the reference after the policy, and saves and restores what it is by then."""

    def __init__(self, config: RunConfig, actors: Actors, recorder: Recorder):
        self.step = 0
        """Finished steps when the reference took on weights of the policy; 0: it is `model.path`."""
        self._config, self._actors, self._recorder = config.reference, actors, recorder
        self._start, self._folder = config.model.path, Path(config.run_dir).resolve() / FOLDER
        self._learner_timeout_s = config.learner.timeout_s

    def follow(self, step: int) -> None:
        """Takes on weights of the policy, if that is due after `step` finished steps."""
        every = self._config.sync_every
        if every is None or step % every:
            return
        with self._recorder.phase("reference_sync", step):
            learner = self._actors.needed_learner
            with replaced(self._folder, durable=True) as partial:
                learner.call("export", str(partial), timeout_s=self._learner_timeout_s)
                if self._config.sync_weight < 1:
                    before = str(self._folder) if self.step else self._start
                    mixed = (before, str(partial), self._config.sync_weight)
                    learner.call_one(0, "mix_into", *mixed, timeout_s=self._learner_timeout_s)
                files = sorted(partial.glob("*.safetensors"))
                for file in files:
                    sync(file)
                digests = {file.name: file_digest(file) for file in files}
                write_json(partial / SYNCED, {"step": step, "digests": digests})
            self._move(str(self._folder), step)

    def save(self, checkpoint: Path) -> None:
        """Adds the weights to a checkpoint, unless they are those of `model.path`."""
        if self.step:
            shutil.copytree(self._folder, checkpoint / FOLDER, copy_function=_link)

    def restore(self, checkpoint: Path | None) -> None:
        """Goes back to what the reference was at a checkpoint, or at the start of the run (None).

        Raises:
            DamagedCheckpointError: a file is not as it was saved.
        """
        saved = None if checkpoint is None else checkpoint / FOLDER
        if saved is None or not saved.is_dir():
            if self.step:
                self._move(self._start, 0)
            return
        synced = read_json(saved / SYNCED)
        for name, digest in synced["digests"].items():
            check_digest(saved / name, digest)
        with replaced(self._folder, durable=True) as partial:
            shutil.copytree(saved, partial, copy_function=_link)
        self._move(str(self._folder), synced["step"])

    def _move(self, path: str, step: int) -> None:
        if self._actors.reference is not None:
            self._actors.reference.move(path, timeout_s=self._config.timeout_s)
        self.step = step


def _link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
