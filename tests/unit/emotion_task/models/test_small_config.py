"""configs/small.yaml loads, and its stages fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.sft.tasks import MixtureConfig
from rlcore.config import load_config

SMALL = Path(__file__).resolve().parents[4] / "emotion_task" / "configs" / "small.yaml"


def test_small_config_trains_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    config = load_config([str(SMALL)], ["run_dir=RUN"], schema=PipelineConfig)
    assert config.corpus.root == "/data/ravdess"
    MixtureConfig(weights=config.sft.weights)
    # The projector is fitted, and what the stages after it train is the language model's adapters alone.
    assert config.alignment.fit and not config.alignment.weights
    for stage in (config.sft, config.reward_model):
        assert stage.train.media_cache == config.rl.model.media_cache == "RUN/media_cache"
        assert {"audio_tower", "multi_modal_projector"} <= set(stage.train.freeze)
        assert stage.train.learner.lora.rank and stage.train.learner.lora.also_train == ()
    assert config.rl.learner.lora.also_train == ()
    assert config.rl.model.path == "RUN/sft/model"
    assert {task for task, share in config.sft.weights.items() if share} == {"reasoning", "profile"}
