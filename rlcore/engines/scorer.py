"""The forward that the learner's ranks share, and the question whether an architecture is made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup, completion_logprobs
from rlcore.errors import ConfigError
from rlcore.models.families import CAUSAL_LM, family_of

_TOLERANCE = {"none": 0.01, "bfloat16": 0.5}
"""Nats, by `learner.autocast`. Architectures that do not pack are off by 2 to 5."""


class Scorer(nn.Module):
    """What DeepSpeed wraps: groups in, completion logprobs out."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, groups: Sequence[Any], *, by_itself: bool = False, **settings: Any) -> dict[str, Any]:
        """The fields of `CompletionLogprobs`, as ZeRO-3 looks for tensors in dictionaries only; `by_itself`:
        `rows`, each completion through the model's own forward."""
        if by_itself:
            return {
                "rows": [self._own(group.prompt_token_ids, t) for group in groups for t in group.token_ids]
            }
        scored = completion_logprobs(self.model, groups, **settings)
        return {"logprobs": scored.logprobs, "entropies": scored.entropies, "mask": scored.mask}

    def _own(self, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.from_numpy(np.concatenate([prompt, tokens])).to(device)[None]
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        predicted = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return predicted.gather(-1, ids[0, len(prompt) :, None])[:, 0].cpu().numpy()


@torch.no_grad()
def check_packing(model: PreTrainedModel, score: Callable[..., dict[str, Any]], *, autocast: str) -> None:
    """Whether packed rows give what the model's own forward gives. Collective.

    What mixes tokens outside the attention (convolutions, recurrences) would mix completions, and what is
    done to logits after the head (scales, caps) would be left out, both without a sign. The speech models
    are known to pack.

    Args:
        score: `Scorer(model)`, as DeepSpeed has wrapped it. It must not have scored yet, as the first packed
            row switches the attention over for good.

    Raises:
        ConfigError: it is not so.
    """
    if family_of(model) is not CAUSAL_LM:
        return
    rng, vocabulary = np.random.default_rng(0), model.get_input_embeddings().num_embeddings
    # Low ids are characters, and no media.
    prompt, *completions = (rng.integers(10, min(vocabulary, 250), size=size) for size in (6, 5, 4))
    group = TokenGroup(prompt_token_ids=prompt, token_ids=tuple(completions))
    own = score([group], by_itself=True)["rows"]
    packed = CompletionLogprobs(**score([group])).rows()
    difference = max(float(np.abs(a - b).max()) for a, b in zip(own, packed, strict=True))
    if difference > _TOLERANCE[autocast]:
        raise ConfigError(
            f"model.path: {type(model).__name__} gives other log-probabilities for completions packed into "
            f"one row than for each by itself (up to {difference:.2g} nats apart), so it cannot be trained "
            "here: its layers mix tokens outside the attention, or its logits are scaled or capped; choose "
            "another architecture"
        )
