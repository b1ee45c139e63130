"""Weighted means of two checkpoints of one model."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from rlcore.errors import WeightSyncError
from rlcore.models.checkpoint_names import Checkpoint
from rlcore.records.files import replaced


def mix_into(before: str, folder: str, weight: float) -> None:
    """Replaces each tensor `new` of `folder` by `(1 - weight) * old + weight * new`, in the dtype of `new`,
    computed in float32. One file of the folder is in memory at a time.

    Args:
        before: folder of safetensors, or a name in the hub's cache, with the old tensors by the same names.
        folder: folder of safetensors.
        weight: share of what `folder` holds, from 0 to 1.

    Raises:
        WeightSyncError: `before` lacks a tensor, or has one of another shape.
    """
    old = Checkpoint(before)
    for file in sorted(Path(folder).glob("*.safetensors")):
        tensors = load_file(file)
        for name, new in tensors.items():
            if old.shapes.get(name) != tuple(new.shape):
                raise WeightSyncError(
                    f"{before}: {name} has the shape {old.shapes.get(name)}, and {tuple(new.shape)} in "
                    f"{folder}: the reference and the policy are not one model"
                )
            mean = old.tensor(name).float().lerp(new.float(), weight)
            tensors[name] = mean.to(new.dtype)
        with replaced(file) as partial:
            save_file(tensors, partial, metadata={"format": "pt"})
