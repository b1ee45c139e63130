"""The settings that each stage's result depends on, beside the stages before it.

A stage is run again where these values change, and only there: how many processes work, where a cache lies or
how often a checkpoint is written changes no result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emotion_task.config import (
    AlignmentConfig,
    ColdStartConfig,
    CorpusConfig,
    PipelineConfig,
    RewardModelConfig,
    SFTConfig,
)
from rlcore.config import RunConfig
from rlcore.config.io import plain
from rlcore.records.checkpoint import run_settings


def corpus_args(config: CorpusConfig) -> dict[str, Any]:
    """Returns the corpus' arguments without those that a null takes back."""
    return {name: value for name, value in config.args.items() if value is not None}


def stage_settings(config: PipelineConfig) -> Mapping[str, object]:
    """Returns the settings of each stage by its name, JSON-ready after `rlcore.config.io.plain`."""
    corpus, sft = replace(config.corpus, num_workers=1), config.sft
    validates = sft.num_validation > 0
    # Without it the stage leaves that reference out; once it is installed, it is run again.
    labels = [] if config.labels is None else [config.labels]
    has_opensmile = config.egemaps and importlib.util.find_spec("opensmile") is not None
    return {
        "corpus": [corpus, config.seed],
        "annotate": corpus,
        "reference": [config.egemaps, has_opensmile, *labels],
        "base_model": [config.base_model, config.tiny, *labels],
        "alignment": _alignment(config.alignment, sft),
        "sft": _lasting(sft, validates=validates),
        "cold_start": _lasting(config.cold_start, validates=validates),
        "perception": config.perception,
        "reward_model": _lasting(config.reward_model),
        # A run that may be resumed elsewhere, or with other deadlines, is the same run.
        "rl": run_settings(config.rl),
        "full_label_sft": sft.full_label_steps,
    }


def extendable(config: RunConfig) -> dict[str, object]:
    """Returns the settings of a run that goes on from its last checkpoint where it has another length."""
    settings = run_settings(config)
    del settings["train"]["num_steps"]
    return settings


def _alignment(config: AlignmentConfig, sft: SFTConfig) -> list[object]:
    settings = [_lasting(config), sft.quote_rate, sft.text_data]
    # A fit sees the emotions that SFT may see.
    return [*settings, sft.label_fraction, sft.without_speakers] if config.fit else settings


def _lasting(
    config: AlignmentConfig | SFTConfig | ColdStartConfig | RewardModelConfig, *, validates: bool = False
) -> dict[str, object]:
    """Returns a supervised stage's settings, without those that do not change its model.

    Where the stage validates, its model is the best of its checkpoints, so their times count.
    """
    fields = plain(config, lasting=True)
    if not validates:
        del fields["train"]["checkpoint_every"]
    fields.pop("full_label_steps", None)  # of a stage of its own
    return fields
