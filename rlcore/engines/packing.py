"""Packed groups for a Hugging Face decoder: no padding, and each prompt computed once for its K samples.

A micro-batch is one row of N tokens: all prompts, then all completions. Everything in a decoder layer but
attention works token by token and needs to know nothing of the packing. Attention is ours: a prompt attends
to itself, a completion to its own prompt and to itself. The result is that of K separate rows, for the price
of one prompt (the tree or cascade attention of inference engines, with a gradient).

Registered with transformers as the attention implementation `rlcore_packed`. Without a layout it is plain
SDPA, so that a model that was switched over still runs as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "rlcore_packed"

_SHORTEST_SHARE = 4
"""Completions are attended to beside those of up to this many times their length: next to one of 16,000
tokens those of 200 would be padded to eighty times theirs."""


_LARGEST_MASK = 16 * 1024 * 1024
"""Elements of a bucket's mask; SDPA keeps two bytes of each or more, in every layer. Answers that would need
more are attended to one by one, without a mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongCompletion:
    """A completion that is attended to by itself: as one causal row of its prompt and itself, without a mask,
    so that memory grows with its length and not with the square. The prompt's part is computed once more,
    which costs little beside an answer that is longer."""

    prompt: tuple[int, int]
    """Place of its prompt in the row: the first token, and the token after the last."""
    own: tuple[int, int]
    """Its own place, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionBucket:
    """B completions of similar length, padded to the longest's T; P is their longest prompt."""

    padded: Tensor
    """int64 [B, T], places in the row; 0 where a shorter completion has ended."""
    prompt_of: Tensor
    """int64 [B], the prompt of each."""
    mask: Tensor
    """bool [B, 1, T, P + T], true where a token attends: at its prompt, and at its own past."""
    positions: Tensor
    """int64 [B, T], positions, counted on from the prompt's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayout:
    """The places of G prompts and their completions in a row of N tokens."""

    position_ids: Tensor
    """int64 [1, N], or [axes, 1, N] of a rotary embedding with several; a completion goes on where its prompt
    ends."""
    prompt_padded: Tensor
    """int64 [G, P], places in the row; 0 where a shorter prompt has ended."""
    prompt_positions: Tensor
    """int64 [G, P], positions from 0."""
    completions: tuple[CompletionBucket, ...]
    """Completions that have tokens and are not long, those of similar length together."""
    long: tuple[LongCompletion, ...]
    """The other completions that have tokens."""
    unpad: Tensor
    """int64 [N], where each token of the row lies among the padded: prompts, then bucket after bucket, then
    the long completions, which have no padding."""

    @classmethod
    def of(
        cls,
        prompt_lengths: Sequence[int],
        completion_lengths: Sequence[int],
        prompt_of: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> PackedLayout:
        """Lays out `prompt_lengths` [G] and `completion_lengths` [B] (0 allowed); `prompt_of` [B] is the
        prompt of each completion."""
        prompts = np.asarray(prompt_lengths, dtype=np.int64)
        lengths = np.asarray(completion_lengths, dtype=np.int64)
        owner = np.asarray(prompt_of, dtype=np.int64)
        num_prompt_tokens = int(prompts.sum())
        first = num_prompt_tokens + np.cumsum(lengths) - lengths
        prompt_first = np.cumsum(prompts) - prompts
        prompt_padded, prompt_valid = _padded(prompt_first, prompts)
        prompt_positions = np.broadcast_to(np.arange(prompt_padded.shape[1]), prompt_padded.shape)

        position_ids = np.zeros(num_prompt_tokens + int(lengths.sum()), dtype=np.int64)
        unpad = np.zeros_like(position_ids)
        position_ids[:num_prompt_tokens] = prompt_positions[prompt_valid]
        unpad[:num_prompt_tokens] = np.flatnonzero(prompt_valid)
        buckets, num_padded = [], prompt_valid.size
        together, alone = _shared_out(lengths, prompts[owner])
        for members in together:
            padded, valid = _padded(first[members], lengths[members])
            of_prompt = prompts[owner[members]]
            positions = of_prompt[:, None] + np.arange(padded.shape[1])[None, :]
            position_ids[padded[valid]] = positions[valid]
            unpad[padded[valid]] = num_padded + np.flatnonzero(valid)
            num_padded += valid.size
            arrays = {
                "padded": padded,
                "prompt_of": owner[members],
                "positions": positions,
            }
            mask = _mask(torch.from_numpy(of_prompt).to(device), padded.shape[1])
            buckets.append(CompletionBucket(mask=mask, **_tensors(arrays, device)))
        long = []
        for member in alone:
            start, length, g = int(first[member]), int(lengths[member]), owner[member]
            position_ids[start : start + length] = prompts[g] + np.arange(length)
            unpad[start : start + length] = num_padded + np.arange(length)
            num_padded += length
            its_prompt = int(prompt_first[g]), int(prompt_first[g] + prompts[g])
            long.append(LongCompletion(prompt=its_prompt, own=(start, start + length)))
        arrays = {
            "position_ids": position_ids[None],
            "prompt_padded": prompt_padded,
            "prompt_positions": prompt_positions,
            "unpad": unpad,
        }
        return cls(completions=tuple(buckets), long=tuple(long), **_tensors(arrays, device))

    def within(self, window: int) -> tuple[Tensor, list[Tensor]]:
        """Returns the masks of a sliding window: the prompts' [G, 1, P, P], and one per bucket, shaped as the
        bucket's own."""
        query, key = self.prompt_positions[:, :, None], self.prompt_positions[:, None, :]
        prompts = (key <= query) & (key > query - window)
        buckets = []
        for bucket in self.completions:
            of_prompt = self.prompt_positions[bucket.prompt_of, : bucket.mask.shape[3] - bucket.mask.shape[2]]
            keys = torch.cat([of_prompt, bucket.positions], dim=1)
            near = keys[:, None, :] > bucket.positions[:, :, None] - window
            buckets.append(bucket.mask & near[:, None])
        return prompts[:, None], buckets


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
    """Computes the attention of one packed row: `query` [1, H, N, D], `key` and `value` [1, H_kv, N, D] with
    positions applied; returns [1, N, H, D]. The signature is transformers' attention interface."""
    if packed_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layout = packed_layout
    num_groups = query.shape[1] // key.shape[1]
    query_N, key_N, value_N = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, D]

    prompt_key, prompt_value = (_pad(x, layout.prompt_padded) for x in (key_N, value_N))  # [G, H_kv, P, D]
    prompt_mask, masks = None, [bucket.mask for bucket in layout.completions]
    if sliding_window is not None:
        prompt_mask, masks = layout.within(sliding_window)
    attended = [
        _attend(
            _pad(query_N, layout.prompt_padded),
            _repeat(prompt_key, num_groups),
            _repeat(prompt_value, num_groups),
            mask=prompt_mask,
            is_causal=prompt_mask is None,
            scale=scaling,
            dropout=dropout,
        )
    ]
    for bucket, mask in zip(layout.completions, masks, strict=True):
        own = (_pad(x, bucket.padded) for x in (key_N, value_N))  # [B, H_kv, T, D]
        longest = mask.shape[3] - mask.shape[2]
        shared = (x[:, :, :longest].index_select(0, bucket.prompt_of) for x in (prompt_key, prompt_value))
        keys, values = (torch.cat(pair, 2) for pair in zip(shared, own, strict=True))
        attended.append(
            _attend(
                _pad(query_N, bucket.padded),
                _repeat(keys, num_groups),
                _repeat(values, num_groups),
                mask=mask,
                scale=scaling,
                dropout=dropout,
            )
        )
    for completion in layout.long:
        both = [_row_of(completion, x) for x in (query_N, key_N, value_N)]  # [1, heads, P + T, D]
        whole = _attend(
            both[0],
            _repeat(both[1], num_groups),
            _repeat(both[2], num_groups),
            mask=_causal_within(sliding_window, both[0]),
            is_causal=sliding_window is None,
            scale=scaling,
            dropout=dropout,
        )
        attended.append(whole[:, :, completion.prompt[1] - completion.prompt[0] :])
    rows = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in attended])
    return rows.index_select(0, layout.unpad)[None], None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    is_causal: bool = False,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Computes scaled dot-product attention, on CPUs in float32: in bfloat16 their kernel takes twice as long
    for its backward pass (150 tokens, 9 heads of 64: 59 ms against 30)."""
    attention = partial(
        nn.functional.scaled_dot_product_attention,
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout,
    )
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return attention(query, key, value)
    with torch.autocast("cpu", enabled=False):
        return attention(query.float(), key.float(), value.float()).to(query.dtype)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def packed_hidden_states(decoder: PreTrainedModel, inputs_embeds: Tensor, layout: PackedLayout) -> Tensor:
    """Computes hidden states [N, H] of a packed row `inputs_embeds` [N, H].

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


def _shared_out(lengths: np.ndarray, prompt_lengths: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Returns the indices of completions that have tokens: those of similar length together, each in their
    order; and those that are attended to alone. Both arguments are [B]."""
    together: list[np.ndarray] = []
    alone: list[int] = []
    left = np.flatnonzero(lengths)
    while left.size:
        alike = lengths[left] * _SHORTEST_SHARE >= lengths[left].max()
        members, left = left[alike], left[~alike]
        longest, of_prompt = lengths[members].max(), prompt_lengths[members].max()
        if members.size * longest * (of_prompt + longest) > _LARGEST_MASK and longest >= of_prompt:
            alone += members.tolist()
        else:
            together.append(members)
    return together, alone


def _padded(first: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices [S, longest] of sequences that begin at `first`, 0 where a sequence has ended, and
    where they are valid."""
    column = np.arange(lengths.max(initial=0))[None, :]
    valid = column < lengths[:, None]
    return np.where(valid, first[:, None] + column, 0), valid


def _mask(prompt_lengths: Tensor, longest: int) -> Tensor:
    """Returns the masks of a bucket's completions, bool [B, 1, T, P + T], on the device of their prompts'
    lengths [B]."""
    device = prompt_lengths.device
    column_P = torch.arange(int(prompt_lengths.max()), device=device)
    column_T = torch.arange(longest, device=device)
    prefix = (column_P[None, :] < prompt_lengths[:, None])[:, None, :]
    causal = (column_T[:, None] >= column_T[None, :])[None]
    shape = len(prompt_lengths), longest, -1
    return torch.cat([prefix.expand(shape), causal.expand(shape)], dim=2)[:, None]


def _causal_within(window: int | None, row: Tensor) -> Tensor | None:
    """Returns the mask [L, L] of a sliding window over a causal row [1, H, L, D]; None without a window."""
    if window is None:
        return None
    place = torch.arange(row.shape[2], device=row.device)
    return (place[None, :] <= place[:, None]) & (place[None, :] > place[:, None] - window)


def _tensors(arrays: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}


def _pad(rows: Tensor, padded: Tensor) -> Tensor:
    """Turns [N, heads, D] into [S, heads, longest, D]. At padding stands some other token: finite, unused."""
    return rows.index_select(0, padded.flatten()).view(*padded.shape, *rows.shape[1:]).transpose(1, 2)


def _row_of(completion: LongCompletion, rows: Tensor) -> Tensor:
    """Returns a completion behind its prompt, [1, heads, P + T, D], from all rows [N, heads, D]."""
    return torch.cat([rows[slice(*completion.prompt)], rows[slice(*completion.own)]]).transpose(0, 1)[None]


def _repeat(heads: Tensor, times: int) -> Tensor:
    """Turns [S, H_kv, L, D] into [S, H_kv * times, L, D], each head next to its copies."""
    return heads if times == 1 else heads.repeat_interleave(times, dim=1)
