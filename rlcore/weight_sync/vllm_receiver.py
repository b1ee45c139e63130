"""The media that move buckets, as backends of vLLM's own weight transfer API.

vLLM builds one in every worker process (`rlcore.engines.vllm_plugin` registers them). Before it touches the
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

from rlcore.engines.hf_model import load_config
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.buckets import Layout
from rlcore.weight_sync.checkpoint_names import check_names, checkpoint_shapes
from rlcore.weight_sync.direct import DirectCopies, record
from rlcore.weight_sync.receiver import Receiver


@dataclass
class BucketInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every push says where to meet."""


@dataclass
class BucketUpdateInfo(WeightTransferUpdateInfo):
    """One push, for one engine."""

    push: dict[str, Any]
    """Fields of `Push`."""
    engine: int
    """This engine's rollout rank."""


class BucketReceiver(WeightTransferEngine[BucketInitInfo, BucketUpdateInfo]):
    """Loads a push into the running model, in place, bucket by bucket.

    On the CPU the plug-in keeps layers as they were loaded: plain loading is right, and from the second push
    on, copying in its place. Elsewhere vLLM's layer-wise reloading redoes what it does to weights after
    loading (quantisation, kernel layouts).
    """

    init_info_cls = BucketInitInfo
    update_info_cls = BucketUpdateInfo

    def init_transfer_engine(self, init_info: BucketInitInfo) -> None:
        self._receiver = Receiver(self.config.backend)
        self._is_reloading = False
        self._copies: DirectCopies | None = None
        self._recorded: Layout | None = None  # the layout that was looked at for them

    def start_weight_update(self) -> None:
        """Nothing yet: the model is touched only once a first bucket has been verified."""

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
        if self._is_reloading:
            self._is_reloading = False
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        self._receiver.close()

    def _accept(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        path = self.model_config.model
        check_names(shapes, checkpoint_shapes(path), load_config(path))

    @torch.no_grad()
    def _load(self, layout: Layout, payloads: Iterator[Tensor]) -> None:
        if not current_platform.is_cpu():
            self._reload(layout.tensors(payloads))
        elif self._copies is not None and self._copies.fit(layout):
            self._copies.load(payloads)
        elif self._recorded is layout and self._copies is None:
            self.model.load_weights(layout.tensors(payloads))
        else:
            self._copies = self._recorded = None
            self._copies = record(layout, payloads, self.model, self.model.load_weights)
            self._recorded = layout

    def _reload(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        first = next(tensors)  # verified: only now is the model touched
        self._is_reloading = True
        initialize_layerwise_reload(self.model)
        self.model.load_weights((name, tensor.to(self.device)) for name, tensor in chain([first], tensors))
