"""Packed groups for a Hugging Face decoder: no padding, and each prompt computed once for its K samples.

A micro-batch is one row of N tokens: all prompts, then all completions. Everything in a decoder layer but
attention works token by token and needs to know nothing of it. Attention is ours: a prompt attends to itself,
a completion to its own prompt and to itself. The result is that of K separate rows, for the price of one
prompt (the tree or cascade attention of inference engines, with a gradient).

Registered with transformers as the attention implementation `rlcore_packed`. Without a layout it is plain
SDPA, so that a model that was switched over still runs as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "rlcore_packed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayout:
    """Where the tokens of G prompts and B completions lie in a row of N. `padded` indices point into the row,
    and to 0 where a shorter sequence has ended."""

    position_ids: Tensor
    """int64 [1, N]; a completion goes on where its prompt ends."""
    prompt_padded: Tensor
    """int64 [G, P]"""
    completion_padded: Tensor
    """int64 [B, T]"""
    prompt_of: Tensor
    """int64 [B], the prompt of each completion."""
    unpad: Tensor
    """int64 [N], where each token of the row lies in [G * P + B * T] padded ones."""
    mask: Tensor
    """bool [B, 1, T, P + T], what a completion's token attends to: its prompt, and its own past."""
    prompt_positions: Tensor
    """int64 [G, P]"""
    completion_positions: Tensor
    """int64 [B, T]"""

    @classmethod
    def of(
        cls,
        prompt_lengths: Sequence[int],
        completion_lengths: Sequence[int],
        prompt_of: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> PackedLayout:
        """`prompt_lengths` [G], `completion_lengths` [B] (0 allowed), `prompt_of` [B]."""
        prompts = np.asarray(prompt_lengths, dtype=np.int64)
        completions = np.asarray(completion_lengths, dtype=np.int64)
        owner = np.asarray(prompt_of, dtype=np.int64)
        num_prompt_tokens = int(prompts.sum())
        prompt_padded, prompt_valid = _padded(prompts, 0)
        completion_padded, completion_valid = _padded(completions, num_prompt_tokens)
        column_P, column_T = np.arange(prompt_padded.shape[1]), np.arange(completion_padded.shape[1])
        completion_positions = prompts[owner][:, None] + column_T[None, :]
        prompt_positions = np.broadcast_to(column_P, prompt_padded.shape)
        prefix = np.broadcast_to(
            (column_P[None, :] < prompts[owner][:, None])[:, None, :],
            (len(owner), len(column_T), len(column_P)),
        )
        causal = np.broadcast_to(
            column_T[:, None] >= column_T[None, :], (len(owner), len(column_T), len(column_T))
        )
        arrays = {
            "position_ids": np.concatenate(
                [prompt_positions[prompt_valid], completion_positions[completion_valid]]
            )[None],
            "prompt_padded": prompt_padded,
            "completion_padded": completion_padded,
            "prompt_of": owner,
            "unpad": np.concatenate(
                [np.flatnonzero(prompt_valid), prompt_valid.size + np.flatnonzero(completion_valid)]
            ),
            "mask": np.concatenate([prefix, causal], axis=2)[:, None],
            "prompt_positions": prompt_positions,
            "completion_positions": completion_positions,
        }
        return cls(**{n: torch.from_numpy(np.array(a)).to(device) for n, a in arrays.items()})

    def within(self, window: int) -> tuple[Tensor, Tensor]:
        """Masks of a sliding window: prompts [G, 1, P, P], completions [B, 1, T, P + T]."""
        query, key = self.prompt_positions[:, :, None], self.prompt_positions[:, None, :]
        prompts = (key <= query) & (key > query - window)
        keys = torch.cat([self.prompt_positions[self.prompt_of], self.completion_positions], dim=1)
        near = keys[:, None, :] > self.completion_positions[:, :, None] - window
        return prompts[:, None], self.mask & near[:, None]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed_layout: PackedLayout | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention of one packed row: `query` [1, H, N, D], `key` and `value` [1, H_kv, N, D] with positions
    applied; returns [1, N, H, D]. The signature is transformers' attention interface."""
    if packed_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layout = packed_layout
    num_groups = query.shape[1] // key.shape[1]
    query_N, key_N, value_N = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, D]

    prompt_key, prompt_value = (_pad(x, layout.prompt_padded) for x in (key_N, value_N))  # [G, H_kv, P, D]
    prompt_mask = completion_mask = None
    if sliding_window is not None:
        prompt_mask, completion_mask = layout.within(sliding_window)
    attended = [
        _attend(
            _pad(query_N, layout.prompt_padded),
            _repeat(prompt_key, num_groups),
            _repeat(prompt_value, num_groups),
            attn_mask=prompt_mask,
            is_causal=prompt_mask is None,
            scale=scaling,
            dropout_p=dropout,
        )
    ]
    if layout.completion_padded.numel():
        own_key, own_value = (_pad(x, layout.completion_padded) for x in (key_N, value_N))  # [B, H_kv, T, D]
        attended.append(
            _attend(
                _pad(query_N, layout.completion_padded),
                _repeat(torch.cat([prompt_key.index_select(0, layout.prompt_of), own_key], 2), num_groups),
                _repeat(
                    torch.cat([prompt_value.index_select(0, layout.prompt_of), own_value], 2), num_groups
                ),
                attn_mask=layout.mask if completion_mask is None else completion_mask,
                scale=scaling,
                dropout_p=dropout,
            )
        )
    rows = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in attended])  # [G * P + B * T, H, D]
    return rows.index_select(0, layout.unpad)[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """Scaled dot-product attention, on CPUs in float32: in bfloat16 their kernel takes twice as long for its
    backward pass (150 tokens, 9 heads of 64: 59 ms against 30)."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return nn.functional.scaled_dot_product_attention(query, key, value, **kwargs)
    with torch.autocast("cpu", enabled=False):
        return nn.functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), **kwargs
        ).to(query.dtype)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def packed_hidden_states(decoder: nn.Module, inputs_embeds: Tensor, layout: PackedLayout) -> Tensor:
    """Hidden states [N, H] of a packed row `inputs_embeds` [N, H].

    Switches the decoder over to `rlcore_packed` for good: a recomputation in the backward pass must find it.
    """
    decoder.config._attn_implementation = ATTENTION
    return decoder(
        inputs_embeds=inputs_embeds[None],
        position_ids=layout.position_ids,
        # transformers passes a mask of four dimensions through as it is; the layout says what it would.
        attention_mask=inputs_embeds.new_empty(1, 1, 1, 0),
        use_cache=False,
        packed_layout=layout,
    ).last_hidden_state[0]


def _padded(lengths: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [S, longest] of sequences that lie one after the other from `first` on, and where they are
    valid."""
    valid = np.arange(lengths.max(initial=0))[None, :] < lengths[:, None]
    indices = np.zeros(valid.shape, dtype=np.int64)
    indices[valid] = first + np.arange(lengths.sum())
    return indices, valid


def _pad(rows: Tensor, padded: Tensor) -> Tensor:
    """[N, heads, D] to [S, heads, longest, D]. What stands at padding is some other token: finite, unused."""
    return rows.index_select(0, padded.flatten()).view(*padded.shape, *rows.shape[1:]).transpose(1, 2)


def _repeat(heads: Tensor, times: int) -> Tensor:
    """[S, H_kv, L, D] to [S, H_kv * times, L, D], each head next to its copies."""
    return heads if times == 1 else heads.repeat_interleave(times, dim=1)
