"""The engine's end of the shared-memory medium: a backend of vLLM's own weight transfer API.

vLLM builds it in every worker process (`rlcore.engines.vllm_plugin` registers it). It checks a push against
the checkpoint that the engine was built from before it touches the model: vLLM's loaders skip some unknown
names and cannot see missing ones, so a wrong push would otherwise leave old weights in place without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import PretrainedConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rlcore.engines.hf_model import is_language_name, load_config
from rlcore.errors import WeightSyncError
from rlcore.weight_sync.buckets import Manifest
from rlcore.weight_sync.shared_memory import read


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every push names its file."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """`Push.update_info` of the shared-memory sender."""

    path: str
    version: int
    checksum: str
    tensors: list[dict[str, Any]]


class SharedMemoryReceiver(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads a push into the running model, in place."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        self._config = load_config(self.model_config.model)
        self._checkpoint_shapes = checkpoint_shapes(self.model_config.model)
        self._is_covered = False

    def start_weight_update(self) -> None:
        """Nothing yet: the model is touched only once a push has been checked."""

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        manifest = Manifest.from_rows(update_info.tensors)
        version, whole = update_info.version, not self._is_covered
        check_names(manifest, self._checkpoint_shapes, self._config, version=version, whole=whole)
        payload = read(update_info.path, version, update_info.checksum, manifest)
        # Layer-wise reloading redoes what vLLM does to weights after loading (quantisation, kernel layouts).
        # On the CPU the plug-in keeps layers as they were loaded, so plain loading is right, and faster.
        if not current_platform.is_cpu():
            initialize_layerwise_reload(self.model)
        with torch.no_grad():
            self.model.load_weights(manifest.views(payload))
        self._is_covered = True

    def finish_weight_update(self) -> None:
        if not current_platform.is_cpu():
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        pass


def checkpoint_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a checkpoint's safetensors, from their headers alone.

    Raises:
        WeightSyncError: the folder holds no safetensors to compare with.
    """
    folder = Path(path)
    if not folder.is_dir():
        folder = Path(snapshot_download(path, local_files_only=True))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    if not shapes:
        raise WeightSyncError(f"{folder}: no *.safetensors there to check a weight push against")
    return shapes


def check_names(
    manifest: Manifest,
    checkpoint: dict[str, tuple[int, ...]],
    config: PretrainedConfig,
    *,
    version: int,
    whole: bool,
) -> None:
    """Compares a push with the engine's checkpoint. `whole` asks for every parameter of the language model,
    as the first push after a start must bring.

    Raises:
        WeightSyncError: an unexpected name or shape, or a missing name.
    """
    for spec in manifest.specs:
        if spec.name not in checkpoint:
            raise WeightSyncError(f"weights of version {version}: the engine has no {spec.name}")
        if spec.shape != checkpoint[spec.name]:
            raise WeightSyncError(
                f"weights of version {version}: {spec.name} has shape {spec.shape}, the engine's is "
                f"{checkpoint[spec.name]}"
            )
    if not whole:
        return
    tied = "lm_head.weight" if config.get_text_config().tie_word_embeddings else None
    missing = [
        name
        for name in checkpoint
        if name not in manifest.by_name
        and is_language_name(config, name)
        and not (tied and name.endswith(tied))
    ]
    if missing:
        raise WeightSyncError(
            f"weights of version {version}: {len(missing)} parameters of the language model are missing, "
            f"among them {missing[0]}; the first push must bring them all"
        )
