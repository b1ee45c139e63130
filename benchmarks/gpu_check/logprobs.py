"""Packed log-probabilities and their gradients against the model's own forward, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from benchmarks.gpu_check.measure import kernels_of
from benchmarks.gpu_check.models import build, make_groups, omni_config, text_config
from benchmarks.gpu_check.record import Record
from rlcore.engines.logprobs import completion_logprobs
from rlcore.types import TrainGroup

AUTOCAST_LIMIT = 0.1
"""Nats between two ways to compute in bfloat16, each rounded elsewhere."""


def run(record: Record, device: str, *, tiny: bool) -> None:
    """Compares in float32 and in bfloat16, for text and for speech."""
    small = text_config(tiny=True)
    shape = {"num_groups": 3, "prompt": 20, "samples": 4, "completion": 40 if tiny else 200}
    _compare(record, "text", small, make_groups(small, **shape), device)
    omni = omni_config(tiny=True)
    _compare(record, "speech", omni, make_groups(omni, **shape, audio_tokens=30), device)


def _compare(
    record: Record, name: str, config: PretrainedConfig, groups: Sequence[TrainGroup], device: str
) -> None:
    model = build(config, device)
    packed, packed_gradients = _logprobs(model, groups, in_rows=False)
    rows, row_gradients = _logprobs(model, groups, in_rows=True)
    record.measured(f"{name}, float32: log-probabilities", _worst(packed, rows), "nats", at_most=1e-3)
    record.measured(f"{name}, float32: gradients", _relative(packed_gradients, row_gradients), at_most=1e-3)
    if device == "cuda":
        other, gradients = _logprobs(build(config, "cpu"), groups, in_rows=False)
        record.measured(f"{name}, float32: against the CPU", _worst(packed, other), "nats", at_most=1e-3)
        record.measured(
            f"{name}, float32: gradients, the CPU's", _relative(packed_gradients, gradients), at_most=1e-3
        )
    with torch.autocast(device, torch.bfloat16):
        narrow, narrow_gradients = _logprobs(model, groups, in_rows=False)
        narrow_rows, _ = _logprobs(model, groups, in_rows=True)
    record.measured(
        f"{name}, bfloat16: log-probabilities", _worst(narrow, narrow_rows), "nats", at_most=AUTOCAST_LIMIT
    )
    record.measured(
        f"{name}, bfloat16: gradients, float32's", _relative(narrow_gradients, packed_gradients), at_most=0.1
    )

    def forward() -> None:
        with torch.autocast(device, torch.bfloat16):
            completion_logprobs(model, groups)

    kernel, share = kernels_of(forward, device)[0]
    record.measured(f"{name}: most time in", kernel[:80], f"({share:.0%})")


def _logprobs(
    model: PreTrainedModel, groups: Sequence[TrainGroup], *, in_rows: bool
) -> tuple[Tensor, list[Tensor]]:
    """Log-probabilities of all completions [B, T], and gradients of their weighted sum, both on the CPU."""
    model.zero_grad(set_to_none=True)
    if in_rows:
        logprobs = torch.stack([_row(model, g, tokens) for g in groups for tokens in g.token_ids])
    else:
        logprobs = completion_logprobs(model, groups).logprobs
    weights = np.random.default_rng(1).normal(size=tuple(logprobs.shape)).astype(np.float32)
    (logprobs * torch.from_numpy(weights).to(logprobs.device)).sum().backward()
    gradients = [p.grad.float().cpu() for p in model.parameters() if p.grad is not None]
    return logprobs.detach().float().cpu(), gradients


def _row(model: PreTrainedModel, group: TrainGroup, tokens: np.ndarray) -> Tensor:
    device = model.get_input_embeddings().weight.device
    ids = torch.from_numpy(np.concatenate([group.prompt_token_ids, tokens])).to(device)[None]
    media = {name: torch.from_numpy(array).to(device) for name, array in group.media_inputs.items()}
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **media).logits
    prompt = len(group.prompt_token_ids)
    predicted = logits[0, prompt - 1 : -1].float().log_softmax(-1)
    return predicted.gather(-1, ids[0, prompt:, None])[:, 0]


def _worst(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _relative(gradients: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The norm of the difference over the norm of what is wanted; infinite where parameters are missing."""
    if len(gradients) != len(wanted):
        return float("inf")
    difference = sum(float((a - b).square().sum()) for a, b in zip(gradients, wanted, strict=True))
    return float((difference / sum(float(b.square().sum()) for b in wanted)) ** 0.5)
