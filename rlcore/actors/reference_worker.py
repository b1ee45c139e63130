"""The reference policy as an actor: the frozen starting point that the KL penalty is measured from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from rlcore.algorithms.batching import consecutive
from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup, regrouped
from rlcore.engines.scorer import Scorer, load_policy
from rlcore.engines.trainable import add_lora
from rlcore.models.device import own_device
from rlcore.models.hf_model import multiplied_weights
from rlcore.models.host_memory import give_back
from rlcore.models.media_modules import detach_media_modules
from rlcore.types import Group


class ReferenceWorker:
    """The reference model in plain transformers, in inference mode: to the bit what `learner` computes before
    its first update. `micro_batch_tokens` bounds a forward pass; `temperature` is the rollout's."""

    def __init__(
        self,
        model: ModelConfig,
        micro_batch_tokens: int,
        temperature: float = 1.0,
        learner: LearnerConfig | None = None,
    ):
        self._model, self._learner = model, learner or LearnerConfig()
        self._micro_batch_tokens, self._temperature = micro_batch_tokens, temperature
        self.load(model.path)

    def load(self, path: str) -> None:
        """Takes on the weights of another folder of the same model."""
        self._score: Scorer | None = None  # there may be no room for two
        give_back()
        model, learner = replace(self._model, path=path), self._learner
        is_narrow = learner.compute_dtype == "bfloat16"
        # What is narrowed here might not fit on the GPU before.
        is_narrowed = is_narrow and learner.weight_dtype == "float32"
        policy = load_policy(model, learner, device="cpu" if is_narrowed else own_device())
        if is_narrow:
            if learner.lora.rank:
                # They add nothing, in float32: what follows them is then rounded as the learner's is.
                add_lora(policy, replace(learner.lora, dropout=0.0), model.freeze)
            for weight in multiplied_weights(policy):
                weight.data = weight.data.bfloat16()  # as autocast would, with every product
        if model.media == "embeds":
            detach_media_modules(policy)
        policy.to(own_device()).requires_grad_(False)
        self._score = Scorer(policy, learner.compute_dtype)

    def ready(self) -> None:
        """Answers once the model is loaded."""

    @torch.inference_mode()
    def logprobs(self, groups: Sequence[Group]) -> list[list[np.ndarray]]:
        """Computes log-probabilities, [G][K] of float32 [T], in the groups' and completions' order."""
        tokens = list(map(TokenGroup.of, groups))
        assert self._score is not None
        rows: list[np.ndarray] = []
        for batch in consecutive(tokens, self._micro_batch_tokens):
            rows += CompletionLogprobs(**self._score(batch, temperature=self._temperature)).rows()
        give_back()
        return regrouped(rows, tokens)
