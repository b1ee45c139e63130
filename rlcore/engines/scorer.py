"""The forward pass that the learner's ranks share, and the check that an architecture is made for it.

This module knows how groups enter DeepSpeed's wrapper; not what is made of the log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup, completion_logprobs
from rlcore.errors import ConfigError
from rlcore.models.families import CAUSAL_LM, family_of
from rlcore.types import TrainGroup

_TOLERANCE = {"none": 0.01, "bfloat16": 0.5}
"""Largest difference, in nats, by `learner.autocast`. Architectures that do not pack are off by 2 to 5."""


class Scorer(nn.Module):
    """The module that DeepSpeed wraps: groups in, completion logprobs out."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        groups: Sequence[TokenGroup | TrainGroup],
        *,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        silent_media: Mapping[str, np.ndarray] | None = None,
        by_itself: bool = False,
    ) -> dict[str, Tensor]:
        """Returns the fields of `CompletionLogprobs` by name, as ZeRO-3 looks for tensors in dictionaries
        only.

        `by_itself`: returns each completion's log-probabilities instead, by number, through the model's own
        forward.
        """
        if by_itself:
            rows = (self._own(group.prompt_token_ids, t) for group in groups for t in group.token_ids)
            return {str(number): row for number, row in enumerate(rows)}
        scored = completion_logprobs(
            self.model, groups, temperature=temperature, entropy_grad=entropy_grad, silent_media=silent_media
        )
        return {"logprobs": scored.logprobs, "entropies": scored.entropies, "mask": scored.mask}

    def _own(self, prompt: np.ndarray, tokens: np.ndarray) -> Tensor:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.from_numpy(np.concatenate([prompt, tokens])).to(device)[None]
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        predicted = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return predicted.gather(-1, ids[0, len(prompt) :, None])[:, 0]


@torch.no_grad()
def check_packing(model: PreTrainedModel, score: Callable[..., dict[str, Tensor]], *, autocast: str) -> None:
    """Compares packed rows with what the model's own forward gives. Collective.

    What mixes tokens outside the attention (convolutions, recurrences) would mix completions, and what is
    done to logits after the head (scales, caps) would be left out, both without a sign. The speech models
    are known to pack.

    Args:
        score: `Scorer(model)`, as DeepSpeed has wrapped it. It must not have scored yet, as the first packed
            row switches the attention over for good.

    Raises:
        ConfigError: they differ by more than rounding.
    """
    if family_of(model) is not CAUSAL_LM:
        return
    rng, vocabulary = np.random.default_rng(0), model.get_input_embeddings().num_embeddings
    # Low ids are characters, and no media.
    prompt, *completions = (rng.integers(10, min(vocabulary, 250), size=size) for size in (6, 5, 4))
    group = TokenGroup(prompt_token_ids=prompt, token_ids=tuple(completions))
    own = [row.cpu().numpy() for row in score([group], by_itself=True).values()]
    packed = CompletionLogprobs(**score([group])).rows()
    difference = max(float(np.abs(a - b).max()) for a, b in zip(own, packed, strict=True))
    if difference > _TOLERANCE[autocast]:
        raise ConfigError(
            f"model.path: {type(model).__name__} gives other log-probabilities for completions packed into "
            f"one row than for each by itself (up to {difference:.2g} nats apart), so it cannot be trained "
            "here: its layers mix tokens outside the attention, or its logits are scaled or capped; choose "
            "another architecture"
        )
