"""Log-probabilities of completions under a Hugging Face model: the one function that the learner and the
reference share, so that a ratio or a KL can differ from zero only because the weights do.

This module knows no loss and no optimiser. Groups go through the decoder packed (`rlcore.engines.packing`):
without padding, and a prompt once for all of its completions. Logits are made only where they predict a
completion token (`rlcore.engines.head`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlcore.engines.head import token_logprobs
from rlcore.engines.packing import PackedLayout, packed_hidden_states
from rlcore.errors import DataError
from rlcore.models.families import family_of
from rlcore.models.families.base import PICTURES
from rlcore.models.hf_model import decoder_of, embed_media, placeholder_id, project_media, stacked
from rlcore.models.media_modules import to_encode
from rlcore.types import Group, TrainGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """The tokens of one prompt and its completions. `TrainGroup` has these fields too, but for
    `token_weights`, and is scored in the same way."""

    prompt_token_ids: np.ndarray
    """int64 [P]"""
    token_ids: tuple[np.ndarray, ...]
    """[K] of int64 [T]"""
    media_inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Model inputs beside tokens, without a batch dimension, as in `rlcore.types.Group`."""
    token_weights: tuple[np.ndarray, ...] = ()
    """[K] of float32 [T], the weight of each token in a supervised loss; empty: 1 per token."""

    @classmethod
    def of(cls, group: Group) -> TokenGroup:
        """Takes the tokens and media of a rollout's group."""
        return cls(
            prompt_token_ids=np.asarray(group.prompt_token_ids, dtype=np.int64),
            token_ids=tuple(np.asarray(c.token_ids, dtype=np.int64) for c in group.completions),
            media_inputs=group.media_inputs,
        )


_ONE_TOKEN = np.zeros(1, dtype=np.int64)
TWO_TOKENS = TokenGroup(prompt_token_ids=_ONE_TOKEN, token_ids=(_ONE_TOKEN,))
"""The group of a rank that has nothing left to compute, while others have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionLogprobs:
    """Log-probabilities and entropies of B completions: those of all groups, in order. T is the length of the
    longest completion."""

    logprobs: Tensor
    """float32 [B, T], 0 at padding; carries the gradient."""
    entropies: Tensor
    """float32 [B, T], nats, 0 at padding; carries the gradient where it was asked for."""
    mask: Tensor
    """bool [B, T], true at completion tokens."""

    def rows(self) -> list[np.ndarray]:
        """Returns the log-probabilities of each completion without padding: [B] of float32 [T_b]."""
        lengths = self.mask.sum(-1).tolist()
        logprobs = self.logprobs.detach().float().cpu().numpy()
        return [row[:n].copy() for row, n in zip(logprobs, lengths, strict=True)]


def regrouped(rows: Sequence[np.ndarray], groups: Sequence[TokenGroup]) -> list[list[np.ndarray]]:
    """Sorts rows, one per completion of all groups in order, by group: [sum of K] to [G][K]."""
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
    """Computes log-probability and entropy of every completion token under softmax(logits / `temperature`),
    given all tokens before that one. Sampled at this temperature, tokens came from this distribution.

    The media of a prompt are embedded once and shared by its completions. Only the prompt's placeholders are
    replaced: a placeholder token that a policy sampled stays a token. `entropy_grad` lets the entropies carry
    a gradient too, for an entropy bonus. Where no group has media for a tower or projector, `silent_media`
    (as a group's `media_inputs`) goes through them in their place, to no effect but a gradient of 0: other
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
    layout = replace(layout, position_ids=_positions(model, groups, prompts, fed, rows, layout))
    if silent_media and not any(to_encode(group.media_inputs) for group in groups):
        silence = TokenGroup(prompt_token_ids=prompts[0], token_ids=(), media_inputs=silent_media)
        (audio,) = _media_embeds(model, [silence])
        assert audio is not None, sorted(silent_media)
        embeds = embeds + 0.0 * audio.sum().to(embeds)
    hidden = packed_hidden_states(decoder_of(model), embeds, layout)  # [N, H]

    predictors = torch.from_numpy(_predictors(prompts, rows)).to(device)
    targets = torch.from_numpy(np.concatenate([tokens for _, tokens in rows]).astype(np.int64)).to(device)
    predicting = hidden.index_select(0, predictors)
    head = model.get_output_embeddings()
    logprobs, entropies = token_logprobs(head, predicting, targets, temperature, entropy_grad)
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
    """Returns where in the packed row the hidden state lies that predicts each completion token. For the
    first that is the prompt's last token, then the token before."""
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
    """Returns the packed row [N] as embeddings [N, H], with each prompt's media at its placeholders."""
    token_ids = torch.from_numpy(np.concatenate([*prompts, *completions]).astype(np.int64)).to(device)
    embeds = model.get_input_embeddings()(token_ids)
    positions, media, start = [], [], 0
    for index, (prompt, audio) in enumerate(zip(prompts, _media_embeds(model, groups), strict=True)):
        for kind, embedded in _by_kind(groups[index], audio).items():
            columns = np.flatnonzero(prompt == placeholder_id(model.config, kind))
            if len(columns) != len(embedded):
                raise DataError(
                    f"group {index} of this batch: its prompt has {len(columns)} {kind} placeholders but its "
                    f"media_inputs give {len(embedded)} embeddings; tokenise it with the model's own "
                    "processor"
                )
            positions.append(start + columns)
            media.append(embedded)
        start += len(prompt)
    if not media:
        return embeds
    where = torch.from_numpy(np.concatenate(positions)).to(device)
    return embeds.index_copy(0, where, torch.cat([embedded.to(embeds) for embedded in media]))


def _by_kind(group: TokenGroup | TrainGroup, audio: Tensor | None) -> dict[str, Tensor]:
    """Returns the embeddings [N, H] of a group's audio and pictures, by kind."""
    pictures = {kind: group.media_inputs.get(f"{kind}_embeds") for kind in PICTURES}
    of_pictures = {kind: torch.as_tensor(np.array(p)) for kind, p in pictures.items() if p is not None}
    return of_pictures if audio is None else {"audio": audio, **of_pictures}


def _positions(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup | TrainGroup],
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    rows: Sequence[tuple[int, np.ndarray]],
    layout: PackedLayout,
) -> Tensor:
    """Returns `PackedLayout.position_ids`: the layout's own where no group has pictures."""
    vision = family_of(model).vision
    if vision is None or not any(_by_kind(group, None) for group in groups):
        return layout.position_ids
    own = [vision.positions(model.config, p, g.media_inputs) for p, g in zip(prompts, groups, strict=True)]
    after = [
        np.tile(own[g].max() + 1 + np.arange(len(tokens)), (len(own[g]), 1))
        for (g, _), tokens in zip(rows, completions, strict=True)
    ]
    return torch.from_numpy(np.concatenate([*own, *after], axis=1)[:, None]).to(layout.position_ids)


def _media_embeds(model: PreTrainedModel, groups: Sequence[TokenGroup | TrainGroup]) -> list[Tensor | None]:
    """Returns one [N, H] per group, None for a group without audio. The tower takes the raw audio of all
    groups at once."""
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
    raw = [i for i, g in enumerate(groups) if to_encode(g.media_inputs) and embeds[i] is None]
    if raw:
        rows = iter(embed_media(model, stacked([to_encode(groups[i].media_inputs) for i in raw])))
        for i in raw:
            num_rows = len(groups[i].media_inputs["input_features"])
            embeds[i] = torch.cat([next(rows) for _ in range(num_rows)])
    return embeds
