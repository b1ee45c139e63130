"""The additions to vLLM, through vLLM's own mechanisms: a plug-in (`vllm.general_plugins` in setup.cfg)
and a worker extension.

vLLM calls `register` in the engine and in every worker process, before a model is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from rlcore.config.weight_media import VLLM_BACKEND
from rlcore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from rlcore.weight_sync.base import Push

logger = logging.getLogger(__name__)


def register() -> None:
    """Registers rlcore's weight transfer backend, takes a false alarm out of vLLM's log and, on the CPU,
    keeps linear layers unpacked and packs the experts of mixtures at every reload. Idempotent."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    if VLLM_BACKEND not in WeightTransferEngineFactory._registry:
        # Imported when an engine asks for it.
        WeightTransferEngineFactory.register_engine(
            VLLM_BACKEND, "rlcore.weight_sync.vllm_receiver", "BucketReceiver"
        )
    logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").addFilter(_is_news)
    if current_platform.is_cpu():
        _keep_linear_layers_unpacked()
        _pack_experts_again()


def _is_news(record: logging.LogRecord) -> bool:
    """vLLM warns of every layer that a push leaves as it was. That none is left out which ought to come, the
    check of names sees to (`rlcore.models.checkpoint_names`)."""
    return record.msg != "%s: Failed to load weights"


class _Layer(Protocol):
    """A linear layer of vLLM's on the CPU, as far as the product goes."""

    cpu_linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _keep_linear_layers_unpacked() -> None:
    """vLLM on the CPU packs linear weights for its kernels and drops the originals, so new weights cannot be
    loaded, and a tied output layer goes stale without an error. Unpacked layers cost 6-20 % of decode speed.
    """
    import torch
    from vllm.model_executor.layers import utils

    def use_plain_linear(layer: _Layer, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = use_plain_linear


def _pack_experts_again() -> None:
    """vLLM on the CPU packs the experts of a mixture for its kernel when the model is loaded, but not when it
    is reloaded: the kernel would read new weights in the wrong order, without an error."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    process = UnquantizedFusedMoEMethod.process_weights_after_loading
    if getattr(process, "packs_again", False):
        return

    def process_and_pack(self: Any, layer: Any) -> None:
        is_reload = self.moe_kernel is not None
        process(self, layer)
        if is_reload:
            self.moe_kernel.fused_experts.process_weights_after_loading(layer)

    process_and_pack.packs_again = True  # type: ignore[attr-defined]
    UnquantizedFusedMoEMethod.process_weights_after_loading = process_and_pack


def _apart(process: Callable[[Any], Any], kind: str, tower: Any, given: Any) -> Any:
    import torch

    found = process(given)
    if not isinstance(found, torch.Tensor):
        return found
    return found.split((given[f"{kind}_grid_thw"].prod(-1) // tower.spatial_merge_size**2).tolist())


class WorkerExtension:
    """Methods that every vLLM worker gets (`worker_extension_cls`)."""

    model_runner: Any
    parallel_config: Any
    weight_transfer_engine: Any
    finish_weight_update: Callable[[], None]

    def join_push(self, call: str, argument: Any, push: Push, engine: int) -> None:
        """Does `init_weight_transfer_engine` or `update_weights` of vLLM's worker, in which it waits for the
        learner and the other engines, for no longer than the push goes on.

        Raises WeightSyncError where the push is called off meanwhile.
        """
        from rlcore.weight_sync.base import receiver_name
        from rlcore.weight_sync.watcher import watched

        workers = self.parallel_config.world_size
        name = receiver_name(engine, self.parallel_config.rank, workers)
        with watched(push, name, self.weight_transfer_engine.shutdown):
            getattr(self, call)(argument)

    def abandon_weight_update(self) -> None:
        """Closes an update that failed, so that the next push loads every layer anew.

        vLLM's worker takes an update that raised for closed, and refuses to finish it. Layers that had part
        of their tensors would stay open: the next push would complete them with its first tensor, drop the
        others, and leave memory that was never written.
        """
        self._weight_update_active = True
        self.finish_weight_update()

    def forget_weights(self) -> None:
        """Sets what every push brings to zero: all weights of the language model. A tower stays, and so does
        everything in a model that does not tell them apart."""
        from vllm.model_executor.model_loader.weight_checksum import zero_weights

        model = self.model_runner.get_model()
        try:
            zero_weights(model.get_language_model() if hasattr(model, "get_language_model") else model)
        except NotImplementedError:
            logger.warning(
                "vLLM's %s does not tell its language model apart: that the first push brings the right "
                "weights is verified, that it leaves none out is not",
                type(model).__name__,
            )

    def keep_pictures_apart(self) -> None:
        """Splits embeddings of several pictures into each one's: vLLM's Qwen2.5-Omni gives them as one
        tensor, of which the engine would take each row for a picture's."""
        model = self.model_runner.get_model()
        for kind in ("image", "video"):
            if (process := getattr(model, f"_process_{kind}_input", None)) is not None:
                setattr(model, f"_process_{kind}_input", partial(_apart, process, kind, model.visual))

    def divide_logits(self, temperature: float) -> None:
        """Makes the model's logits those of the policy at `temperature`, in float32.

        vLLM gives log-probabilities before a request's temperature, or after it *and* bans and top-p; the
        learner's are after temperature alone. Logits divided in the model are that.

        Raises ConfigError where the model does not make its logits as vLLM's own do.
        """
        from vllm.model_executor.layers.logits_processor import LogitsProcessor

        heads = [m for m in self.model_runner.get_model().modules() if isinstance(m, LogitsProcessor)]
        if not heads:
            raise ConfigError(
                f"rollout.temperature: got {temperature:g}, must be 1: vLLM's model has no LogitsProcessor "
                "whose logits could be divided"
            )
        for head in heads:
            # None beside the first tensor-parallel rank.
            head.register_forward_hook(lambda _, __, y: None if y is None else y.float() / temperature)
