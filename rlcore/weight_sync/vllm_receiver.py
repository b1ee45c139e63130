"""All media that move buckets, as one backend of vLLM's own weight transfer API.

vLLM builds one in every worker process (`rlcore.engines.vllm_plugin` registers it). Before it touches the
model it checks a push against the checkpoint that the engine was built from: vLLM's loaders skip some unknown
names and cannot see missing ones, so a wrong push would leave old weights in place without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rlcore.models.adapters import are_adapters, by_weight, check_adapters, merged, weight_of
from rlcore.models.checkpoint_names import Checkpoint, check_names
from rlcore.models.hf_model import load_config
from rlcore.models.names import block_of, is_language_name
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.buckets import Layout
from rlcore.weight_sync.direct import DirectCopies, record
from rlcore.weight_sync.receiver import Receiver


@dataclass
class BucketInitInfo(WeightTransferInitInfo):
    """The agreement before the first push; every push says where to meet."""

    backend: str
    """The medium, as `weight_sync.backend` names it."""


@dataclass
class BucketUpdateInfo(WeightTransferUpdateInfo):
    """The part of one engine in one push."""

    push: dict[str, Any]
    """The push, as a mapping of the fields of `Push`."""
    engine: int
    """This engine's rollout rank."""


class BucketReceiver(WeightTransferEngine[BucketInitInfo, BucketUpdateInfo]):
    """Loads a push into the running model, in place, bucket by bucket.

    On the CPU the plug-in keeps layers as they were loaded: plain loading is right, and from the second push
    on, copying in its place. Elsewhere, and for mixtures of experts, vLLM's layer-wise reloading redoes what
    it does to weights after loading (quantisation, kernel layouts).
    """

    init_info_cls = BucketInitInfo
    update_info_cls = BucketUpdateInfo

    def init_transfer_engine(self, init_info: BucketInitInfo) -> None:
        """Makes the medium's end in this worker."""
        self._receiver = Receiver(init_info.backend)
        self._is_reloading = False
        self._copies: DirectCopies | None = None
        self._recorded: Layout | None = None  # the layout that was looked at for them
        self._checkpoint: Checkpoint | None = None

    def start_weight_update(self) -> None:
        """Does nothing yet: the model is touched only once a first bucket has been verified."""

    def receive_weights(self, update_info: BucketUpdateInfo) -> None:
        """Takes part in a push; raises as `Receiver.take`."""
        push = Push(**{**update_info.push, "engines": tuple(update_info.push["engines"])})
        try:
            self._receiver.take(
                push,
                engine=update_info.engine,
                worker=self.parallel_config.rank,
                accept=self._accept,
                load=self._load,
            )
        except BaseException:
            self.finish_weight_update()
            raise

    def finish_weight_update(self) -> None:
        """Ends vLLM's layer-wise reloading, where a push has begun one."""
        if self._is_reloading:
            self._is_reloading = False
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Leaves the learner."""
        self._receiver.close()

    def _accept(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        shapes, path = list(shapes), self.model_config.model
        self._checkpoint = self._checkpoint or Checkpoint(path)
        if are_adapters(name for name, _ in shapes):
            check_adapters(shapes, self._checkpoint.shapes)
        else:
            check_names(shapes, self._checkpoint.shapes, load_config(path))

    @torch.no_grad()
    def _load(self, layout: Layout, payloads: Iterator[Tensor]) -> None:
        if are_adapters(name for name, _ in layout.shapes):
            self._load_adapters(layout.tensors(payloads))
        elif not self._is_as_loaded:
            self._reload(layout.tensors(payloads))
        elif self._copies is not None and self._copies.fit(layout):
            self._copies.load(payloads)
        elif self._recorded is layout and self._copies is None:
            self.model.load_weights(layout.tensors(payloads))
        else:
            self._copies = self._recorded = None
            self._copies = record(layout, payloads, self.model, self.model.load_weights)
            self._recorded = layout

    @property
    def _is_as_loaded(self) -> bool:
        """Whether all weights lie in the model as its loader put them there."""
        return current_platform.is_cpu() and not self.model_config.is_moe

    def _load_adapters(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        assert self._checkpoint is not None, "accepted before"
        base, dtype = self._checkpoint.tensor, self.model_config.dtype
        if self._is_as_loaded:
            self.model.load_weights(merged(tensors, base, dtype))
            return
        # Layers are redone whole: of one with q, k and v in it, an adapter of q alone would not be enough.
        # One weight at a time, from factors on the GPU: all of them at once would take the host's memory.
        changed = {name: tuple(part.to(self.device) for part in parts) for name, parts in by_weight(tensors)}
        self._reload(
            (name, weight_of(name, changed[name], base, dtype) if name in changed else base(name))
            for name in self._redone(changed)
        )

    def _redone(self, changed: Iterable[str]) -> list[str]:
        """The weights to load so that layers with these among them are whole. The others stay as they are;
        after a sleep, in which an engine may forget them, all are loaded."""
        assert self._checkpoint is not None, "accepted before"
        names, blocks = list(self._checkpoint.shapes), {block_of(name) for name in changed}
        if not self.model_config.enable_sleep_mode:
            return [name for name in names if block_of(name) in blocks]
        config = load_config(self.model_config.model)
        return [name for name in names if is_language_name(config, name) or block_of(name) in blocks]

    def _reload(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        first = next(tensors)  # verified: only now is the model touched
        self._is_reloading = True
        initialize_layerwise_reload(self.model)
        self.model.load_weights((name, tensor.to(self.device)) for name, tensor in chain([first], tensors))
