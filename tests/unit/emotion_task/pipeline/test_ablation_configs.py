"""Each ablation loads over quickstart.yaml and differs from it exactly where it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emotion_task.config import PipelineConfig
from rlcore.config import load_config

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).resolve().parents[4] / "emotion_task" / "configs"

DIFFERENCES: dict[str, dict[str, Any]] = {
    "v1": {
        "sft.label_fraction": 1.0,
        "sft.weights.reasoning": 0.4,
        "sft.weights.description": 0.0,
        "sft.full_label_steps": 0,
        "rl.train.num_steps": 0,
    },
    "v2": {"rl.rewards.reasoning": None, "rl.algorithm.ptr.reasoning": None},
    "v3": {"rl.rewards.reasoning.args.model_path": "RUN/sft/model"},
    "v4": {"rl.algorithm.ptr.trust": False},
    "v5": {"rl.algorithm.ptr.schedule": "constant"},
    "v6": {},
    "anneal": {"rl.algorithm.ptr.schedule": "anneal"},
    "a_t_0.25": {"rl.rewards.reasoning.weight": 0.25},
    "a_t_0.75": {"rl.rewards.reasoning.weight": 0.75},
    "a_t_1.0": {"rl.rewards.reasoning.weight": 1.0},
}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by dotted key."""
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    return {
        k: v for key, inner in value.items() for k, v in flat(inner, f"{path}.{key}" if path else key).items()
    }


def loaded(*files: Path) -> tuple[PipelineConfig, dict[str, Any]]:
    """The configuration, and its leaves with the run's folder named RUN."""
    config = load_config(files, [], PipelineConfig)
    leaves = flat(dataclasses.asdict(config))
    run_dir = config.run_dir
    return config, {k: v.replace(run_dir, "RUN") if isinstance(v, str) else v for k, v in leaves.items()}


def test_every_file_is_checked() -> None:
    assert sorted(DIFFERENCES) == sorted(path.stem for path in (CONFIGS / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(DIFFERENCES))
def test_an_ablation_differs_from_the_quickstart_where_it_says(name: str) -> None:
    base_config, base = loaded(CONFIGS / "quickstart.yaml")
    config, leaves = loaded(CONFIGS / "quickstart.yaml", CONFIGS / "ablations" / f"{name}.yaml")
    assert config.run_dir == f"runs/ablations/{name}"
    changed = {
        key: leaves.get(key) for key in base.keys() | leaves.keys() if base.get(key) != leaves.get(key)
    }
    if name == "v2":  # the reward is gone with all its keys
        changed = {
            key: value for key, value in changed.items() if not key.startswith("rl.rewards.reasoning.")
        }
        changed["rl.rewards.reasoning"] = None
        assert list(config.rl.rewards) == ["format", "outcome"]
    assert changed == DIFFERENCES[name]
    # The stages before reinforcement learning are the quickstart's: a copy of its folder is found finished.
    if name != "v1":
        for stage in ("seed", "base_model", "tiny", "corpus", "sft", "reward_model"):
            assert getattr(config, stage) == getattr(base_config, stage)
