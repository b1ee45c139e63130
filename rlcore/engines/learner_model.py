"""The model that a learner trains: made ready for DeepSpeed, and whole again for all others.

Loading, choosing what is trained and parking what stays outside the forward pass come before DeepSpeed;
pushes, exports and the fingerprint of frozen weights come after. This module knows neither loss nor
optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines import learner_checkpoint, zero
from rlcore.engines.collectives import failing_together
from rlcore.engines.scorer import load_policy
from rlcore.engines.trainable import checkpoint_activations, choose_trained, trained_media
from rlcore.engines.weights import (
    Weight,
    adapter_weights,
    changed_weights,
    model_weights,
    rollout_weights,
)
from rlcore.errors import CheckpointError
from rlcore.models.companions import reason_of
from rlcore.models.device import own_device
from rlcore.models.export_check import prepare_export
from rlcore.models.hf_model import (
    load_config,
    load_processor,
    multiplied_weights,
    save_checkpoint,
)
from rlcore.models.media_modules import attach_media_modules, detach_media_modules
from rlcore.models.names import full_shape
from rlcore.records.files import replaced, room
from rlcore.weight_sync.buckets import DTYPES


class LearnerModel:
    """One rank's model, in eval mode. Constructor and methods are collective but where they say otherwise.

    Args:
        path: checkpoint folder or hub id.

    Raises:
        ConfigError: nothing is trainable, or media modules are though the media come as embeddings.
    """

    def __init__(self, path: str, config: ModelConfig, learner: LearnerConfig):
        self._path, self._config, self._learner = path, config, learner
        self._frozen_fingerprint: str | None = None
        self._companions: dict[str, bytes] | None = None
        text_config = load_config(path).get_text_config()
        self.deepspeed_config = zero.deepspeed_config(learner, hidden_size=text_config.hidden_size)
        """DeepSpeed's configuration; the model was partitioned by it, where the ZeRO stage is 3."""
        with zero.partitioned_loading(self.deepspeed_config):
            self.module = load_policy(replace(config, path=path), learner, device=_loading_device(learner))
            """The transformers model. Given embeddings as media, the forward never enters the tower, and the
            tower waits on the CPU for the export."""
        own = self.module.config
        for each in (own, *(getattr(own, name) for name in own.sub_configs)):
            each.dtype = torch.float32  # what exports are in
        choose_trained(self.module, config, learner)
        if learner.weight_dtype == "bfloat16":
            zero.narrow(self.module.parameters())  # those that were loaded in parts, and adapters
        elif learner.compute_dtype == "bfloat16":
            zero.narrow_frozen(multiplied_weights(self.module))
        self._parked = detach_media_modules(self.module) if config.media == "embeds" else {}
        for module in self._parked.values():
            module.cpu()
        if learner.activation_checkpointing:
            checkpoint_activations(self.module)
        self.trained: dict[str, torch.nn.Parameter] = {
            name: p for name, p in self.module.named_parameters() if p.requires_grad
        }
        """In-memory name to each parameter that is trained, in the model's order."""

    @property
    def enters_media_together(self) -> bool:
        """True where a rank that enters tower or projector needs every other rank in there: trained or
        partitioned modules have collectives."""
        is_partitioned = self._learner.zero_stage == 3 and self._config.media == "raw"
        return is_partitioned or bool(trained_media(self.module))

    def push_shapes(self, *, whole: bool) -> list[tuple[str, tuple[int, ...]]]:
        """Returns (name, full shape) of what `iter_push` gives, in its order. Not collective."""
        return [(weight.hub_name, weight.shape) for weight in self._push_weights(whole)]

    def iter_push(self, engine_dtype: str, *, whole: bool) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields (hub name, full tensor) of what engines of `engine_dtype` get, from every ZeRO stage. Every
        rank must exhaust the iterator, and a tensor is valid only until the next one is asked for.

        With `learner.lora.push: adapters` they get `adapter_weights`, else `changed_weights`, or
        `rollout_weights` where they are to be brought the `whole` language model.
        """
        stage, dtype = self._learner.zero_stage, DTYPES[engine_dtype]
        for weight, tensor in zero.gathered(self._push_weights(whole), zero_stage=stage, dtype=dtype):
            yield weight.hub_name, tensor

    def _push_weights(self, whole: bool) -> list[Weight]:
        if self._learner.lora.push == "adapters":
            return list(adapter_weights(self.module))
        return list((rollout_weights if whole else changed_weights)(self.module))

    def identity(self) -> dict[str, object]:
        """Returns what must be the same where training goes on from a checkpoint, as JSON. Collective at the
        first call alone."""
        lora = self._learner.lora
        if self._frozen_fingerprint is None:
            with self._whole():
                frozen = [
                    Weight(name, name, (parameter,))
                    for name, parameter in self.module.named_parameters()
                    if name not in self.trained
                ]
            tensors = ((w.name, t) for w, t in zero.gathered(frozen, zero_stage=self._learner.zero_stage))
            self._frozen_fingerprint = learner_checkpoint.fingerprint(tensors)
        return {
            "frozen_fingerprint": self._frozen_fingerprint,
            "lora": {"rank": lora.rank, "alpha": lora.alpha} if lora.rank else None,
        }

    def prepare_export(self, folder: str | Path) -> None:
        """Tries what `export` to this folder will need, before a step is made; the processor's files are kept
        for it.

        Raises as `rlcore.models.export_check.prepare_export`, on every rank.
        """
        stage = self._learner.zero_stage
        with self._whole():
            all_weights = list(model_weights(self.module))
            for _ in zero.gathered([w for w in all_weights if w.adapter is not None], zero_stage=stage):
                pass  # the adapters can be merged
            # In float32, as the checkpoint with Adam's two moments.
            num_bytes = sum(4 * math.prod(weight.shape) for weight in all_weights)
            num_bytes += sum(3 * 4 * math.prod(full_shape(p)) for p in self.trained.values())
            with failing_together():
                if dist.get_rank() == 0:
                    self._companions = prepare_export(
                        self.module, self._path, Path(folder), num_bytes=num_bytes
                    )

    def export(self, folder: str | Path) -> None:
        """Writes a Hugging Face folder (hub names, safetensors, processor) for transformers and vLLM.

        Adapters are merged into the weights. The folder is replaced once all is written: a failure leaves
        what lay there.

        Raises:
            CheckpointError: the folder cannot be written; on every rank.
        """
        full = {}
        with self._whole():
            all_weights = list(model_weights(self.module))
            stage = self._learner.zero_stage
            for weight, tensor in zero.gathered(all_weights, zero_stage=stage, read=zero.master):
                if dist.get_rank() == 0:
                    full[weight.name] = tensor.cpu().clone()
            with failing_together():
                if dist.get_rank() == 0:
                    self._write(Path(folder), self.module.state_dict() | full)

    def _write(self, folder: Path, state: dict[str, torch.Tensor]) -> None:
        files = self._companions
        processor = load_processor(self._path) if files is None else None
        try:
            with replaced(folder) as partial:
                save_checkpoint(self.module, partial, state_dict=state, processor=processor, companions=files)
        except (OSError, SafetensorError) as error:
            num_bytes = sum(tensor.nbytes for tensor in state.values())
            raise CheckpointError(
                f"{folder}: the model cannot be written there: {reason_of(error)}; {room(folder, num_bytes)}"
            ) from error

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Puts the parked tower back for the length of the block."""
        attach_media_modules(self.module, self._parked)
        try:
            yield
        finally:
            if self._parked:
                detach_media_modules(self.module)


def _loading_device(learner: LearnerConfig) -> str:
    """ZeRO-3 gives the ranks their parts itself. With adapters the frozen weights are narrowed before they go
    to the GPU, where they would not fit in float32."""
    return "cpu" if learner.zero_stage == 3 or learner.lora.rank else own_device()
