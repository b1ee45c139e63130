"""What rlcore adds to vLLM, through vLLM's own plug-in mechanism (`vllm.general_plugins` in setup.cfg).

vLLM calls `register` in the engine and in every worker process, before a model is built.
"""

from __future__ import annotations

BACKENDS = ("shared_memory", "gloo")
"""Weight transfer backends that rlcore adds to vLLM's own."""


def register() -> None:
    """Registers the weight transfer backends and, on the CPU, keeps linear layers unpacked. Idempotent."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    for name in BACKENDS:
        if name not in WeightTransferEngineFactory._registry:
            # Imported when an engine asks for it.
            WeightTransferEngineFactory.register_engine(
                name, "rlcore.weight_sync.vllm_receiver", "BucketReceiver"
            )
    if current_platform.is_cpu():
        _keep_linear_layers_unpacked()


def _keep_linear_layers_unpacked() -> None:
    """vLLM on the CPU packs linear weights for its kernels and drops the originals, so new weights cannot be
    loaded, and a tied output layer goes stale without an error. Unpacked layers cost 6-20 % of decode speed.
    """
    import torch
    from vllm.model_executor.layers import utils

    def use_plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = use_plain_linear
