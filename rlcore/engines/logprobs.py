"""Log-probabilities of completions under a Hugging Face model: the one function that the learner and the
reference share, so that a ratio or a KL can differ from zero only because the weights do.

It knows no loss and no optimiser. Several groups go through the decoder as one right-padded batch; logits are
made at completion positions only, in float32, a bounded number of tokens at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlcore.engines.hf_model import audio_token_id, decoder_of, embed_media
from rlcore.errors import DataError
from rlcore.types import Group, TrainGroup

LOGITS_PER_CHUNK = 64 * 1024 * 1024
"""Logits that exist at once (256 MB in float32); more are recomputed in the backward pass, chunk by chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """The tokens of a group. `TrainGroup` has the same fields and may be given in its place."""

    prompt_token_ids: np.ndarray
    """int64 [P]"""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]"""
    media_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """As in `rlcore.types.Group`."""

    @classmethod
    def of(cls, group: Group) -> TokenGroup:
        return cls(
            prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
            token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
            media_inputs=group.media_inputs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionLogprobs:
    """Rows are the groups' completions, groups in order, B of them; T is the longest completion's length."""

    logprobs: Tensor
    """float32 [B, T], 0 at padding; carries the gradient."""
    entropies: Tensor
    """float32 [B, T], nats, 0 at padding; detached."""
    mask: Tensor
    """bool [B, T], true at completion tokens."""

    def rows(self) -> list[np.ndarray]:
        """[B] of float32 [T_b], padding cut."""
        lengths = self.mask.sum(-1).tolist()
        logprobs = self.logprobs.detach().float().cpu().numpy()
        return [row[:n].copy() for row, n in zip(logprobs, lengths, strict=True)]


def completion_logprobs(
    model: PreTrainedModel, groups: Sequence[TokenGroup | TrainGroup]
) -> CompletionLogprobs:
    """Log-probability (temperature 1) and entropy of every completion token, given all before it.

    The media of a prompt are embedded once and shared by its completions, and only the prompt's placeholders
    are replaced: a placeholder token that a policy sampled stays a token. There is no attention mask, because
    right padding lies in every real token's future.

    Raises:
        DataError: a prompt's placeholders and its media embeddings differ in number.
    """
    device = model.get_input_embeddings().weight.device
    rows = [(group, tokens) for group in groups for tokens in group.token_ids]
    num_prompt = torch.tensor([len(group.prompt_token_ids) for group, _ in rows], device=device)  # [B]
    num_tokens = torch.tensor([len(tokens) for _, tokens in rows], device=device)  # [B]
    input_ids = _pad([np.concatenate([g.prompt_token_ids, t]) for g, t in rows]).to(device)  # [B, L]
    targets = _pad([tokens for _, tokens in rows]).to(device)  # [B, T]
    mask = torch.arange(targets.shape[1], device=device)[None, :] < num_tokens[:, None]  # [B, T]

    inputs_embeds = _embed(model, groups, input_ids)
    hidden = decoder_of(model)(inputs_embeds=inputs_embeds, use_cache=False).last_hidden_state  # [B, L, H]
    # The hidden state before a token predicts it: completion token t is at P + t, its predictor at P + t - 1.
    row, column = mask.nonzero(as_tuple=True)
    logprobs, entropies = _token_logprobs(model, hidden[row, num_prompt[row] + column - 1], targets[mask])
    empty = torch.zeros(mask.shape, dtype=torch.float32, device=device)
    return CompletionLogprobs(
        logprobs=empty.masked_scatter(mask, logprobs),
        entropies=empty.masked_scatter(mask, entropies),
        mask=mask,
    )


def _pad(rows: Sequence[np.ndarray]) -> Tensor:
    tensors = [torch.as_tensor(np.array(row, dtype=np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)


def _embed(model: PreTrainedModel, groups: Sequence[TokenGroup | TrainGroup], input_ids: Tensor) -> Tensor:
    """[B, L] to [B, L, H], with each prompt's media scattered at its placeholders."""
    embeds = model.get_input_embeddings()(input_ids)
    placeholder = audio_token_id(model.config)
    positions, media = [], []
    first_row = 0
    for index, (group, audio) in enumerate(zip(groups, _media_embeds(model, groups), strict=True)):
        if audio is not None:
            columns = np.flatnonzero(np.asarray(group.prompt_token_ids) == placeholder)
            if len(columns) != len(audio):
                raise DataError(
                    f"group {index} of this batch: its prompt has {len(columns)} media placeholders but its "
                    f"media_inputs give {len(audio)} embeddings; tokenise it with the model's own processor"
                )
            for row in range(first_row, first_row + len(group.token_ids)):
                positions.append(row * input_ids.shape[1] + torch.as_tensor(columns))
                media.append(audio)
        first_row += len(group.token_ids)
    if not media:
        return embeds
    flat = embeds.flatten(0, 1)
    where = torch.cat(positions).to(embeds.device)
    return flat.index_copy(0, where, torch.cat(media).to(flat)).view_as(embeds)


def _media_embeds(model: PreTrainedModel, groups: Sequence[TokenGroup | TrainGroup]) -> list[Tensor | None]:
    """One [N, H] a group, None where it has no media. The tower takes the raw media of all groups at once."""
    embeds: list[Tensor | None] = [
        torch.as_tensor(np.array(group.media_inputs["audio_embeds"]))
        if "audio_embeds" in group.media_inputs
        else None
        for group in groups
    ]
    raw = [i for i, g in enumerate(groups) if g.media_inputs and embeds[i] is None]
    if raw:
        stacked = {
            name: torch.cat([torch.as_tensor(np.array(groups[i].media_inputs[name])) for i in raw])
            for name in groups[raw[0]].media_inputs
        }
        audios = iter(embed_media(model, stacked))
        for i in raw:
            num_audios = len(groups[i].media_inputs["input_features"])
            embeds[i] = torch.cat([next(audios) for _ in range(num_audios)])
    return embeds


def _token_logprobs(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [N, H] and targets [N] to log-probabilities [N] and detached entropies [N]."""
    head = model.get_output_embeddings()

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = head(hidden).float().log_softmax(-1)  # [n, V]
        with torch.no_grad():
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        return logprobs.gather(-1, targets[:, None])[:, 0], entropy

    size = max(1, LOGITS_PER_CHUNK // head.out_features)
    if len(targets) <= size:
        return score(hidden, targets)
    chunks = [
        checkpoint(score, h, t, use_reentrant=False)
        for h, t in zip(hidden.split(size), targets.split(size), strict=True)
    ]
    return torch.cat([c[0] for c in chunks]), torch.cat([c[1] for c in chunks])
