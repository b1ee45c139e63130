"""The reference policy as an actor: the frozen starting point that the KL penalty is measured from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlcore.algorithms.batching import consecutive
from rlcore.config import ModelConfig
from rlcore.engines.head import multiply_in_float32
from rlcore.engines.logprobs import TokenGroup, completion_logprobs, regrouped
from rlcore.models.device import own_device
from rlcore.models.hf_model import load_model
from rlcore.models.host_memory import give_back
from rlcore.models.media_modules import detach_media_modules
from rlcore.types import Group


class ReferenceWorker:
    """The reference model in plain transformers, in inference mode. `micro_batch_tokens` bounds a forward
    pass; `temperature` is the rollout's."""

    def __init__(self, model: ModelConfig, micro_batch_tokens: int, temperature: float = 1.0):
        self._micro_batch_tokens, self._temperature = micro_batch_tokens, temperature
        self._model = load_model(model.path, dtype=model.dtype, device=own_device())
        if model.head_dtype == "float32":
            multiply_in_float32(self._model.get_output_embeddings())
        if model.media == "embeds":
            detach_media_modules(self._model)
        self._model.requires_grad_(False)

    def ready(self) -> None:
        """Answers once the model is loaded."""

    @torch.inference_mode()
    def logprobs(self, groups: Sequence[Group]) -> list[list[np.ndarray]]:
        """Computes log-probabilities, [G][K] of float32 [T], in the groups' and completions' order."""
        tokens = list(map(TokenGroup.of, groups))
        rows: list[np.ndarray] = []
        for batch in consecutive(tokens, self._micro_batch_tokens):
            rows += completion_logprobs(self._model, batch, temperature=self._temperature).rows()
        give_back()
        return regrouped(rows, tokens)
