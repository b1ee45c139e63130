"""Log-probabilities of completions under a Hugging Face model: the one function that the learner and the
reference share, so that a ratio or a KL can differ from zero only because the weights do.

It knows no loss and no optimiser. Groups go through the decoder packed (`rlcore.engines.packing`): without
padding, and a prompt once for all of its completions. Logits are made only where they predict a completion
token, in float32, a bounded number at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.engines.packing import PackedLayout, packed_hidden_states
from rlcore.errors import DataError
from rlcore.models.hf_model import audio_token_id, decoder_of, embed_media, project_media, stacked
from rlcore.types import Group, TrainGroup

LOGITS_PER_CHUNK = 16 * 1024 * 1024
LOGITS_PER_CHUNK_ON_GPU = 4 * LOGITS_PER_CHUNK
"""Logits that exist at once (64 MB and 256 MB in float32); more are recomputed in the backward pass, chunk by
chunk. Each chunk reads the head's weight and adds to its gradient, so that few are too few for a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """The tokens of a group. `TrainGroup` has the same fields and may be given in its place."""

    prompt_token_ids: np.ndarray
    """int64 [P]"""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]"""
    media_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """As in `rlcore.types.Group`."""
    token_weights: tuple[np.ndarray, ...] = ()
    """[K] of float32 [T], what each token counts for in a supervised loss; empty: 1 each."""

    @classmethod
    def of(cls, group: Group) -> TokenGroup:
        return cls(
            prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
            token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
            media_inputs=group.media_inputs,
        )


_ONE_TOKEN = np.zeros(1, dtype=np.int64)
TWO_TOKENS = TokenGroup(prompt_token_ids=_ONE_TOKEN, token_ids=(_ONE_TOKEN,))
"""What a rank computes that has nothing left, while others have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionLogprobs:
    """Rows are the groups' completions, groups in order, B of them; T is the longest completion's length."""

    logprobs: Tensor
    """float32 [B, T], 0 at padding; carries the gradient."""
    entropies: Tensor
    """float32 [B, T], nats, 0 at padding; carries the gradient where it was asked for."""
    mask: Tensor
    """bool [B, T], true at completion tokens."""

    def rows(self) -> list[np.ndarray]:
        """[B] of float32 [T_b], padding cut."""
        lengths = self.mask.sum(-1).tolist()
        logprobs = self.logprobs.detach().float().cpu().numpy()
        return [row[:n].copy() for row, n in zip(logprobs, lengths, strict=True)]


def regrouped(rows: Sequence[np.ndarray], groups: Sequence[TokenGroup]) -> list[list[np.ndarray]]:
    """[sum of K] to [G][K]: rows of all groups' completions, in order, by group."""
    remaining = iter(rows)
    return [[next(remaining) for _ in group.token_ids] for group in groups]


def completion_logprobs(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup | TrainGroup],
    *,
    temperature: float = 1.0,
    entropy_grad: bool = False,
    silent_media: Mapping[str, np.ndarray] | None = None,
) -> CompletionLogprobs:
    """Log-probability and entropy of every completion token, given all before it, of softmax(logits /
    `temperature`): the distribution that was sampled from, where that was its temperature.

    The media of a prompt are embedded once and shared by its completions, and only the prompt's placeholders
    are replaced: a placeholder token that a policy sampled stays a token. `entropy_grad` lets the entropies
    carry a gradient too, for an entropy bonus. Where no group has media, `silent_media` (as a group's
    `media_inputs`) goes through the media modules in their place, to no effect but a gradient of 0: other
    ranks may be in there.

    Raises:
        DataError: a prompt's placeholders and its media embeddings differ in number.
    """
    device = model.get_input_embeddings().weight.device
    prompts = [np.asarray(group.prompt_token_ids, dtype=np.int64) for group in groups]
    rows = [(g, np.asarray(tokens)) for g, group in enumerate(groups) for tokens in group.token_ids]
    # A completion's last token predicts nothing that is asked for, and is not fed.
    fed = [tokens[:-1] for _, tokens in rows]
    layout = PackedLayout.of([len(p) for p in prompts], [len(f) for f in fed], [g for g, _ in rows], device)
    embeds = _embed(model, groups, prompts, fed, device)  # [N, H]
    if silent_media and not any(group.media_inputs for group in groups):
        silence = TokenGroup(prompt_token_ids=prompts[0], token_ids=(), media_inputs=silent_media)
        (audio,) = _media_embeds(model, [silence])
        assert audio is not None, sorted(silent_media)
        embeds = embeds + 0.0 * audio.sum().to(embeds)
    hidden = packed_hidden_states(decoder_of(model), embeds, layout)  # [N, H]

    predictors = torch.from_numpy(_predictors(prompts, rows)).to(device)
    targets = torch.from_numpy(np.concatenate([tokens for _, tokens in rows]).astype(np.int64)).to(device)
    predicting = hidden.index_select(0, predictors)
    logprobs, entropies = _token_logprobs(model, predicting, targets, temperature, entropy_grad)
    lengths = [len(tokens) for _, tokens in rows]
    column = torch.arange(max(lengths), device=device)
    mask = column[None, :] < torch.tensor(lengths, device=device)[:, None]  # [B, T]
    empty = torch.zeros(mask.shape, dtype=torch.float32, device=device)
    return CompletionLogprobs(
        logprobs=empty.masked_scatter(mask, logprobs),
        entropies=empty.masked_scatter(mask, entropies),
        mask=mask,
    )


def _predictors(prompts: Sequence[np.ndarray], rows: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Where in the packed row the hidden state lies that predicts each completion token: the prompt's last
    for the first, then the one before."""
    prompt_end = np.cumsum([len(prompt) for prompt in prompts])
    start, predictors = int(prompt_end[-1]), []
    for group, tokens in rows:
        if len(tokens):
            predictors.append(np.array([prompt_end[group] - 1]))
            predictors.append(np.arange(start, start + len(tokens) - 1))
            start += len(tokens) - 1
    return np.concatenate(predictors) if predictors else np.zeros(0, dtype=np.int64)


def _embed(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup | TrainGroup],
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    device: torch.device,
) -> Tensor:
    """The packed row [N] as embeddings [N, H], with each prompt's media at its placeholders."""
    token_ids = torch.from_numpy(np.concatenate([*prompts, *completions]).astype(np.int64)).to(device)
    embeds = model.get_input_embeddings()(token_ids)
    placeholder = audio_token_id(model.config)
    positions, media, start = [], [], 0
    for index, (prompt, audio) in enumerate(zip(prompts, _media_embeds(model, groups), strict=True)):
        if audio is not None:
            columns = np.flatnonzero(prompt == placeholder)
            if len(columns) != len(audio):
                raise DataError(
                    f"group {index} of this batch: its prompt has {len(columns)} media placeholders but its "
                    f"media_inputs give {len(audio)} embeddings; tokenise it with the model's own processor"
                )
            positions.append(start + columns)
            media.append(audio)
        start += len(prompt)
    if not media:
        return embeds
    where = torch.from_numpy(np.concatenate(positions)).to(device)
    return embeds.index_copy(0, where, torch.cat([audio.to(embeds) for audio in media]))


def _media_embeds(model: PreTrainedModel, groups: Sequence[TokenGroup | TrainGroup]) -> list[Tensor | None]:
    """One [N, H] a group, None where it has no media. The tower takes the raw media of all groups at once."""
    embeds: list[Tensor | None] = [
        torch.as_tensor(np.array(group.media_inputs["audio_embeds"]))
        if "audio_embeds" in group.media_inputs
        else None
        for group in groups
    ]
    encoded = [i for i, g in enumerate(groups) if "audio_states" in g.media_inputs]
    if encoded:
        states = [torch.as_tensor(np.array(groups[i].media_inputs["audio_states"])) for i in encoded]
        for i, projected in zip(encoded, project_media(model, states), strict=True):
            embeds[i] = projected
    raw = [i for i, g in enumerate(groups) if g.media_inputs and embeds[i] is None]
    if raw:
        audios = iter(embed_media(model, stacked([groups[i].media_inputs for i in raw])))
        for i in raw:
            num_audios = len(groups[i].media_inputs["input_features"])
            embeds[i] = torch.cat([next(audios) for _ in range(num_audios)])
    return embeds


def _token_logprobs(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    """Hidden states [N, H] and targets [N] to log-probabilities and entropies, float32 [N]."""
    head = model.get_output_embeddings()
    _switch_over(head)
    num_logits = LOGITS_PER_CHUNK if hidden.device.type == "cpu" else LOGITS_PER_CHUNK_ON_GPU
    size = max(1, num_logits // head.out_features)
    logprobs, entropies = head(hidden, targets, temperature, entropy_grad, size)
    return logprobs.float(), entropies.float()


def _switch_over(head: nn.Linear) -> None:
    """Lets the head be called with targets too, for good. As a module, and once: that is what gathers its
    weight under ZeRO-3, where ranks with more tokens than others must not ask for it more often."""
    if getattr(head, "takes_targets", False):
        return
    plain, head.takes_targets = head.forward, True

    def forward(hidden: Tensor, *scored: Any) -> Any:
        return HeadLogprobs.apply(hidden, head.weight, head.bias, *scored) if scored else plain(hidden)

    head.forward = forward


class HeadLogprobs(torch.autograd.Function):
    """Hidden states [N, H], the head's weight [V, H] and bias ([V] or None) and targets [N] to
    log-probabilities and entropies [N] of softmax(logits / temperature).

    `size` rows of logits exist at a time, in float32 or what is finer, and are computed again in the backward
    pass where there are more. The gradient is by hand: beside the logits one tensor of their size exists,
    where autograd's own formulas need four.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy_grad: bool,
        size: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.dtype = _compute_dtype(hidden, weight)
        ctx.temperature, ctx.entropy_grad, ctx.size = temperature, entropy_grad, size
        parts, kept = [], None
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
            for h_chunk, t_chunk in zip(h.split(size), targets.split(size), strict=True):
                logits = _logits(h_chunk, w, bias, temperature)
                log_total = logits.logsumexp(-1)
                # H = log Z - sum_v p_v logit_v
                probabilities = (logits - log_total[:, None]).exp_()
                entropies = log_total - torch.einsum("nv,nv->n", probabilities, logits)
                logprobs = logits.gather(-1, t_chunk[:, None])[:, 0] - log_total
                parts.append((logprobs, entropies, log_total))
                kept = logits if len(targets) <= size and any(ctx.needs_input_grad) else None
        logprobs, entropies, log_total = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, bias, targets, log_total, entropies, kept)
        if not entropy_grad:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropies: Tensor) -> tuple[Tensor | None, ...]:
        """d logprob / d logit_v = [v = target] - p_v;  d H / d logit_v = -p_v (log p_v + H)."""
        hidden, weight, bias, targets, log_total, entropies, kept = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if of_hidden else None
        grad_weight = torch.zeros_like(weight) if of_weight else None
        grad_bias = torch.zeros_like(bias) if of_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
            for start in range(0, len(targets), ctx.size):
                rows = slice(start, start + ctx.size)
                logits = _logits(h[rows], w, bias, ctx.temperature) if kept is None else kept
                log_probabilities = logits - log_total[rows, None]
                if ctx.entropy_grad:
                    probabilities = log_probabilities.exp()
                    scale = log_probabilities.add_(entropies[rows, None]).mul_(grad_entropies[rows, None])
                    grad = probabilities.mul_(scale.add_(grad_logprobs[rows, None]).neg_())
                else:
                    grad = log_probabilities.exp_().mul_(-grad_logprobs[rows, None])
                grad.scatter_add_(-1, targets[rows, None], grad_logprobs[rows, None])
                grad = grad.div_(ctx.temperature).to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = grad @ w
                if grad_weight is not None and grad_weight.dtype == grad.dtype:
                    grad_weight.addmm_(grad.t(), h[rows])
                elif grad_weight is not None:
                    grad_weight += grad.t() @ h[rows]
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Of the head's matrix products, as autocast would have them."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """[n, V] in float32, or in what is finer."""
    logits = nn.functional.linear(hidden, weight, None if bias is None else bias.to(weight.dtype))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1 else logits.div_(temperature)
