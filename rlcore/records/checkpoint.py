"""Checkpoints of a whole run: the learner's files and the controller's state in one folder.

    RUN/checkpoints/step_000040/
        learner/...        what the learner's ranks saved
        controller.json    step, policy version, gate, ...: whatever the controller gave
        complete.json      step, settings, versions: written last

A checkpoint is written under another name and renamed when it is whole and on the disk: a kill or a power cut
while it is saved leaves nothing that could be taken for one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlcore.config import RunConfig
from rlcore.config import io as config_io
from rlcore.errors import CheckpointError
from rlcore.records.files import replaced, write_json

_PLACEMENT = ("num_cpus", "num_gpus", "resources", "timeout_s")
LAYOUT: dict[str, tuple[str, ...]] = {
    "learner": (
        *_PLACEMENT,
        "num_ranks",
        "ranks_per_node",
        "zero_stage",
        "offload_optimizer",
        "offload_parameters",
        "activation_checkpointing",
        "micro_batch_tokens",
        "micro_batch_audio_frames",
    ),
    "rollout": (*_PLACEMENT, "num_replicas", "hang_timeout_s", "max_restarts"),
    "reference": (*_PLACEMENT, "num_replicas", "micro_batch_tokens"),
    "model": ("media_cache",),
    "train": ("checkpoint_every", "eval_every"),
}
"""Settings by section that a resumed run may change, beside all of `run_dir`, `cluster` and `weight_sync`."""
REWARD_LAYOUT = (*_PLACEMENT, "replicas", "concurrency", "retries")
"""And of each reward."""

_MAX_SHOWN = 5
COMPLETE = "complete.json"
CONTROLLER = "controller.json"


class DamagedCheckpointError(CheckpointError):
    """A part of it is missing or cannot be read. An older one may do."""


def run_settings(config: RunConfig) -> dict[str, Any]:
    """What the run's results hang on, JSON-ready. Its place and machines, deadlines and how often it saves or
    looks are left out, and how the work is laid out over the machines, which changes no more than
    rounding. What came from the environment stands as `${oc.env:NAME}`: a key may change."""
    fields = config_io.plain(config)
    for place in ("run_dir", "cluster", "weight_sync"):
        del fields[place]
    for section, names in LAYOUT.items():
        for name in names:
            del fields[section][name]
    for reward in fields["rewards"].values():
        for name in REWARD_LAYOUT:
            del reward[name]
    return fields


@contextmanager
def writing(
    folder: str | Path,
    *,
    step: int,
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Iterator[Path]:
    """Gives a folder to write into; when the block ends well it becomes the checkpoint of `step`.

    `folder` holds all checkpoints of the run, of which the `keep` newest stay. `state` is the controller's,
    `settings` are the run's (`run_settings`); JSON values only. An exception in the block leaves the
    checkpoints as they were.
    """
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    with replaced(final, durable=True) as partial:
        partial.mkdir()
        yield partial
        write_json(partial / CONTROLLER, state, durable=True)
        marker = {"step": step, "settings": settings, "versions": dict(versions or {})}
        write_json(partial / COMPLETE, marker, durable=True)
    for old in complete(folder)[:-keep]:
        shutil.rmtree(old)


def complete(folder: str | Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first."""
    found = [path for path in Path(folder).glob("step_*") if (path / COMPLETE).is_file()]
    # Beside them may lie copies under names of the user's own.
    numbered = [path for path in found if re.fullmatch(r"step_\d+", path.name)]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step_")))


def read(checkpoint: str | Path, *, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The controller's state of a checkpoint; the learner's files lie in its `learner` folder.

    Raises DamagedCheckpointError where it is missing or incomplete, and CheckpointError where it was written
    under other settings than `settings` (names them).
    """
    checkpoint = Path(checkpoint)
    marker = read_json(checkpoint / COMPLETE)
    if settings is not None and (changed := list(_changes(marker.get("settings", {}), settings))):
        shown = "; ".join([*changed[:_MAX_SHOWN], *(["..."] if changed[_MAX_SHOWN:] else [])])
        raise CheckpointError(
            f"{checkpoint}: written under another configuration: {shown}. Resume with the settings of that "
            "run, or start in a new run_dir"
        )
    return read_json(checkpoint / CONTROLLER)


def _changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Settings that differ, as `learner.lr was 1e-06, is 2e-06`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in {**before, **now}:
            yield from _changes(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield f"{path} was {before}, is {now}"


def read_json(path: Path) -> dict[str, Any]:
    """Raises DamagedCheckpointError where the file is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedCheckpointError(
            f"{path}: missing, so {path.parent} is no complete checkpoint; use an older one or start anew"
        ) from error
    except ValueError as error:
        raise DamagedCheckpointError(
            f"{path}: not readable as JSON ({error}); choose an older checkpoint"
        ) from error
