"""configs/small.yaml loads, and its stages fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.sft.tasks import MixtureConfig
from rlcore.config import load_config

SMALL = Path(__file__).resolve().parents[2] / "emotion_task" / "configs" / "small.yaml"


def test_small_config_trains_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    config = load_config([str(SMALL)], ["run_dir=RUN"], schema=PipelineConfig)
    assert config.corpus.root == "/data/ravdess"
    for stage in (config.alignment, config.sft):
        MixtureConfig(weights=stage.weights)
        assert stage.train.media_cache == config.rl.model.media_cache == "RUN/media_cache"
        assert "audio_tower" in stage.train.freeze
    # The projector learns to hear before any emotion is named, and goes on learning beside the adapters.
    assert not {"reasoning", "description"} & set(config.alignment.weights)
    assert config.alignment.train.learner.lora.rank == 0
    assert config.sft.train.learner.lora.also_train == ("multi_modal_projector",)
    assert config.rl.learner.lora.also_train == ()
    assert config.rl.model.path == "RUN/sft/model"
    assert {task for task, share in config.sft.weights.items() if share} == {"reasoning", "profile"}
