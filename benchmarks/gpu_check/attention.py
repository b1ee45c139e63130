"""The attention of packed groups: right, how fast, how much memory, with short answers and with long ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu_check.measure import ATTENTION, forget_peak, kernels_of, peak_gb, seconds_of
from benchmarks.gpu_check.record import Record
from rlcore.engines.packing import PackedLayout, packed_attention

PROMPT = 256
CASES = {"512 tokens": (32, 512), "4096 tokens": (8, 4096), "16384 tokens": (2, 16_384)}
"""Answers of one prompt, and tokens of each."""
TINY_CASES = {"16 tokens": (4, 16), "128 tokens": (2, 128)}


def run(record: Record, device: str, *, tiny: bool) -> None:
    """Measures one layer of the 7B's heads in bfloat16, forward and backward. Memory that grew with the
    square of the length would be four times as much a token at 16384 tokens as at 4096."""
    num_heads, num_kv, size = (4, 2, 32) if tiny else (28, 4, 128)
    prompt = 16 if tiny else PROMPT
    per_token = {}
    for name, (count, length) in (TINY_CASES if tiny else CASES).items():
        layout = PackedLayout.of([prompt], [length] * count, [0] * count, device)
        num_tokens = prompt + count * length
        torch.manual_seed(0)
        q, k, v = (_rows(num, num_tokens, size, device) for num in (num_heads, num_kv, num_kv))

        def attend(q: Tensor = q, k: Tensor = k, v: Tensor = v, layout: PackedLayout = layout) -> Tensor:
            module: Any = torch.nn.Module()
            rows, _ = packed_attention(module, q, k, v, None, packed_layout=layout)
            rows.backward(torch.ones_like(rows))
            return rows

        rows = attend()
        first = slice(0, prompt), slice(prompt, prompt + length)
        wanted = _alone(q, k, v, first)
        apart = float((rows[0, first[1]].float() - wanted).norm() / wanted.norm())
        record.measured(f"{count} of {name}: against float32 alone", apart, "relative", at_most=0.02)
        q.grad = k.grad = v.grad = None
        seconds = seconds_of(attend, device)
        # Both products, forward, and twice backward, over half of the square.
        work = 3 * 2 * 2 * num_heads * size * count * length * (prompt + length / 2)
        record.measured(f"{count} of {name}", seconds * 1000, "ms")
        record.measured(f"{count} of {name}: arithmetic", work / seconds / 1e12, "TFLOP/s")
        if device == "cuda":
            held = torch.cuda.memory_allocated() / 1e9
            forget_peak(device)
            attend()
            peak = peak_gb(device) - held
            per_token[name] = peak / num_tokens
            record.measured(f"{count} of {name}: memory beside q, k, v", peak, "GB")
        used = [(kernel, part) for kernel, part in kernels_of(attend, device) if ATTENTION.search(kernel)]
        for kernel, part in used[:3]:
            record.measured(f"{count} of {name}: kernel", kernel[:90], f"({part:.0%})")
        del q, k, v, rows
    if device == "cuda":
        growth = per_token["16384 tokens"] / per_token["4096 tokens"]
        record.measured("memory a token, 16384 over 4096", growth, at_most=1.5)


def _rows(num_heads: int, num_tokens: int, size: int, device: str) -> Tensor:
    return torch.randn(
        1, num_heads, num_tokens, size, device=device, dtype=torch.bfloat16, requires_grad=True
    )


@torch.no_grad()
def _alone(q: Tensor, k: Tensor, v: Tensor, places: tuple[slice, slice]) -> Tensor:
    """The first answer's attention [T, H, D] behind its prompt, as a row of its own in float32."""
    rows = [torch.cat([x[:, :, place] for place in places], 2).float() for x in (q, k, v)]
    times = q.shape[1] // k.shape[1]
    query, key, value = rows[0], *(x.repeat_interleave(times, 1) for x in rows[1:])
    whole = scaled_dot_product_attention(query, key, value, is_causal=True)
    return whole[0, :, places[0].stop :].transpose(0, 1)
