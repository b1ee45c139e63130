"""A learner that brings two matrices of the same shape in each other's place, as a wrong order would."""

from __future__ import annotations

import torch

from rlcore.actors.learner_worker import LearnerWorker
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.sender import PushReport


class SwappingLearner(LearnerWorker):
    """Swaps gate and up of the first layer before it pushes."""

    def push_weights(self, push: Push) -> PushReport | None:
        mlp = self._engine.model.module.model.layers[0].mlp
        with torch.no_grad():
            gate = mlp.gate_proj.weight.clone()
            mlp.gate_proj.weight.copy_(mlp.up_proj.weight)
            mlp.up_proj.weight.copy_(gate)
        return super().push_weights(push)
