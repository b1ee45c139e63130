"""The check that a push fits the checkpoint that an engine was built from: names, shapes, and nothing left
out.

This module reads the headers of safetensors. How weights travel is the business of `weight_sync`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig

from rlcore.errors import ConfigError, WeightSyncError
from rlcore.models.adapters import are_adapters, check_adapters
from rlcore.models.hf_model import load_config
from rlcore.models.names import block_of, is_language_name


class Checkpoint:
    """The safetensors of a folder or of the hub's cache: shapes from their headers, tensors as they are asked
    for (mapped, so that what is read stays in the page cache alone).

    Raises:
        WeightSyncError: the folder holds no safetensors.
    """

    def __init__(self, path: str):
        folder = Path(path)
        if not folder.is_dir():
            folder = Path(snapshot_download(path, local_files_only=True))
        self._files: dict[str, safe_open] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors = safe_open(file, framework="pt")
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                self._files[name] = tensors
                self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
        if not self.shapes:
            raise WeightSyncError(f"{folder}: no *.safetensors there to check a weight push against")

    def tensor(self, name: str) -> Tensor:
        """Reads one tensor, by the name that it has in the checkpoint."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


def checkpoint_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Reads the names and shapes of a checkpoint's tensors.

    Raises:
        WeightSyncError: the folder holds no safetensors.
    """
    return Checkpoint(path).shapes


def check_trained(shapes: Sequence[tuple[str, tuple[int, ...]]], path: str) -> None:
    """Compares what a learner can push, all weights or adapters, with the checkpoint that the learner was
    loaded from.

    Raises:
        ConfigError: transformers holds the weights in another form than the checkpoint, which
            `rlcore.models.names` does not know to undo, so that no engine could take them.
    """
    checkpoint, config = checkpoint_shapes(path), load_config(path)
    try:
        if are_adapters(name for name, _ in shapes):
            check_adapters(shapes, checkpoint)
        else:
            check_names(shapes, checkpoint, config, blocks={block_of(name) for name in checkpoint})
    except WeightSyncError as error:
        raise ConfigError(
            f"model.path: {path} cannot be trained: {error}. transformers holds its weights in another form "
            "than the checkpoint, which engines are pushed; take a dense model, or a mixture of experts with "
            "Qwen2-MoE's names"
        ) from error


def check_names(
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    checkpoint: dict[str, tuple[int, ...]],
    config: PretrainedConfig,
    *,
    blocks: AbstractSet[str] = frozenset(),
) -> None:
    """Compares a push's (hub name, full shape)s with the engine's checkpoint.

    Of a block (`rlcore.models.names.block_of`) of the language model every parameter must be among them, or
    none.

    Args:
        blocks: blocks that must be among them.

    Raises:
        WeightSyncError: an unexpected name or shape, or a missing name.
    """
    names = set()
    for name, shape in shapes:
        names.add(name)
        if name not in checkpoint:
            raise WeightSyncError(f"the engine has no {name}")
        if shape != checkpoint[name]:
            raise WeightSyncError(f"{name} has shape {shape}, the engine's is {checkpoint[name]}")
    touched = blocks | {block_of(name) for name in names}
    tied = "lm_head.weight" if config.get_text_config().tie_word_embeddings else None
    missing = [
        name
        for name in checkpoint
        if name not in names
        and block_of(name) in touched
        and is_language_name(config, name)
        and not (tied and name.endswith(tied))
    ]
    if missing:
        raise WeightSyncError(
            f"{len(missing)} parameters of the language model are missing, among them {missing[0]}; a push "
            "must bring all of an attention, a feed-forward network or a layer's experts"
        )
