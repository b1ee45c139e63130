from __future__ import annotations

import logging
from types import ModuleType

import pytest
import torch

from rlcore.engines.vllm_plugin import register


def test_layers_that_a_push_leaves_as_they_are_alarm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.model_loader import reload
    from vllm.model_executor.model_loader.reload import layerwise

    register()
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(layerwise.logger.name)
    monkeypatch.setattr(logger, "handlers", [handler])
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    reload.record_metadata_for_reloading(model)
    kept, pushed = model[1].weight.detach().clone(), torch.ones(2, 2)
    reload.initialize_layerwise_reload(model)
    model[0].weight.weight_loader(model[0].weight, pushed)
    reload.finalize_layerwise_reload(model, ModuleType("no model_config"))
    assert torch.equal(model[0].weight, pushed) and torch.equal(model[1].weight, kept)
    logger.warning("%s: something else", "Linear")
    assert seen == ["Linear: something else"]
