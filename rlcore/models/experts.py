"""The products of a mixture's experts under autocast, which does not know them. transformers' grouped
products compute in the dtype of their weights: weights of float32 would be multiplied in float32, on GPUs at
a tenth of the speed.

Registered with transformers as the experts implementation `rlcore_grouped_mm`; `load_model` asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ExpertsInterface, grouped_mm_experts_forward

EXPERTS = "rlcore_grouped_mm"


def experts_forward(
    self: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Computes transformers' `grouped_mm`, under autocast with weights rounded to its dtype: hidden states
    [N, H] and for each token k experts and their weights [N, k] to [N, H]."""
    device = hidden_states.device.type
    experts: nn.Module | _Rounded = self
    if torch.is_autocast_enabled(device):
        experts = _Rounded(self, torch.get_autocast_dtype(device))
    return grouped_mm_experts_forward(experts, hidden_states, top_k_index, top_k_weights)


class _Rounded:
    """Experts whose weights, tensors [E, out, in], are rounded as they are asked for."""

    def __init__(self, experts: nn.Module, dtype: torch.dtype):
        self._experts, self._dtype = experts, dtype

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._experts, name)
        return value.to(self._dtype) if isinstance(value, nn.Parameter) and value.ndim == 3 else value


ExpertsInterface.register(EXPERTS, experts_forward)
