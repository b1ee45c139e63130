"""The forward pass that learner and reference share, in one precision, and the check that an architecture is
made for it.

This module knows how groups enter DeepSpeed's wrapper; not what is made of the log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines.head import multiply_in_float32
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup, completion_logprobs
from rlcore.errors import ConfigError
from rlcore.models.families import family_of
from rlcore.models.hf_model import load_model
from rlcore.types import TrainGroup

_TOLERANCE = {"float32": 0.01, "bfloat16": 0.5}
"""Largest difference, in nats, by the dtype of products. Architectures that do not pack are off by 2 to 5."""


def load_policy(config: ModelConfig, learner: LearnerConfig, *, device: str = "cpu") -> PreTrainedModel:
    """Loads the model that `learner` trains, or that it is compared with, in the learner's precision, onto
    `device` (`load_model`)."""
    if torch.cuda.is_available():
        # TensorFloat-32: float32 products at eight times the speed, of operands with 11 bits. Those of
        # bfloat16, such as `head_dtype: float32` multiplies, have 8: nothing is lost of them.
        torch.set_float32_matmul_precision("high")
    model = load_model(config.path, dtype=learner.weight_dtype, device=device)
    if config.head_dtype == "float32":
        multiply_in_float32(model.get_output_embeddings())
    return model


class Scorer(nn.Module):
    """The module that DeepSpeed wraps: groups in, completion logprobs out. Products are computed in
    `compute_dtype`."""

    def __init__(self, model: PreTrainedModel, compute_dtype: str = "float32"):
        super().__init__()
        self.model, self._is_narrow = model, compute_dtype == "bfloat16"

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
        device = self.model.get_input_embeddings().weight.device.type
        # With weights in bfloat16 too: adapters' sums are float32 (`AdaptedLinear`), and go on into layers.
        with torch.autocast(device, torch.bfloat16, enabled=self._is_narrow):
            if by_itself:
                rows = (self._own(group.prompt_token_ids, t) for group in groups for t in group.token_ids)
                return {str(number): row for number, row in enumerate(rows)}
            scored = completion_logprobs(
                self.model,
                groups,
                temperature=temperature,
                entropy_grad=entropy_grad,
                silent_media=silent_media,
            )
        return {"logprobs": scored.logprobs, "entropies": scored.entropies, "mask": scored.mask}

    def _own(self, prompt: np.ndarray, tokens: np.ndarray) -> Tensor:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.from_numpy(np.concatenate([prompt, tokens])).to(device)[None]
        logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        predicted = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return predicted.gather(-1, ids[0, len(prompt) :, None])[:, 0]


@torch.no_grad()
def check_packing(
    model: PreTrainedModel, score: Callable[..., dict[str, Tensor]], *, compute_dtype: str
) -> None:
    """Compares packed rows with what the model's own forward gives. Collective.

    What mixes tokens outside the attention (convolutions, recurrences) would mix completions, and what is
    done to logits after the head (scales, caps) would be left out, both without a sign. The models that hear
    or see are known to pack.

    Args:
        score: `Scorer(model)`, as DeepSpeed has wrapped it. It must not have scored yet, as the first packed
            row switches the attention over for good.

    Raises:
        ConfigError: they differ by more than rounding.
    """
    if family_of(model).media_modules:
        return
    rng, vocabulary = np.random.default_rng(0), model.get_input_embeddings().num_embeddings
    # Low ids are characters, and no media.
    prompt, *completions = (rng.integers(10, min(vocabulary, 250), size=size) for size in (6, 5, 4))
    group = TokenGroup(prompt_token_ids=prompt, token_ids=tuple(completions))
    own = [row.cpu().numpy() for row in score([group], by_itself=True).values()]
    packed = CompletionLogprobs(**score([group])).rows()
    difference = max(float(np.abs(a - b).max()) for a, b in zip(own, packed, strict=True))
    if difference > _TOLERANCE[compute_dtype]:
        raise ConfigError(
            f"model.path: {type(model).__name__} gives other log-probabilities for completions packed into "
            f"one row than for each by itself (up to {difference:.2g} nats apart), so it cannot be trained "
            "here: its layers mix tokens outside the attention, or its logits are scaled or capped; choose "
            "another architecture"
        )
