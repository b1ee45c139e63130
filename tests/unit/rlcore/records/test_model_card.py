from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from rlcore.config import AlgorithmConfig, ModelConfig, RewardConfig, RunConfig, TargetConfig
from rlcore.records.model_card import model_card

SUMMARY = {
    "steps": 12,
    "before": {"accuracy": 0.5, "reward/outcome": 0.51234567},
    "after": {"accuracy": 0.625, "reward/outcome": 0.75, "new": 3},
    "versions": {"rlcore": "0.1.0"},
}


def config_of(base: str) -> RunConfig:
    return RunConfig(
        run_dir="runs/tuesday",
        model=ModelConfig(path=base),
        task=TargetConfig(target="a.b:C", args={"rows": "/data/secret_calls.jsonl"}),
        rewards={"judge": RewardConfig(target="my.judges:Judge", weight=0.25)},
        algorithm=AlgorithmConfig(advantage="maxrl"),
    )


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(model_card(config_of("Qwen/Qwen2-Audio-7B"), SUMMARY))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "Qwen/Qwen2-Audio-7B" and card.data.library_name == "transformers"
    assert "maxrl" in card.data.tags
    for row in (
        "| accuracy | 0.5 | 0.625 |",
        "| reward/outcome | 0.5123 | 0.75 |",
        "| new | - | 3 |",
        "| judge | my.judges:Judge | 0.25 |",
        "| rlcore | 0.1.0 |",
    ):
        assert row in card.content
    assert "12 steps of 16 prompts with 8 answers each, seed 0" in card.content
    assert "  advantage: maxrl\n" in card.content


def test_no_folder_of_this_machine_is_told(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    text = model_card(config_of(str(tmp_path / "own" / "model")), {"steps": 1})
    assert str(tmp_path) not in text and "/data" not in text and "base_model" not in text
    assert "# tuesday\n\nmodel, trained by" in text and "None were measured." in text
