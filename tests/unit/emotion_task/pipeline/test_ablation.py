"""The ablation command: each variant's configuration over any line, and the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emotion_task.pipeline import ablation_table
from emotion_task.pipeline.ablation import _variant, run_ablation
from emotion_task.pipeline.ablation_table import Answered, Column, unweighted_accuracy, write_table
from emotion_task.pipeline.inputs import named_inputs
from rlcore.errors import ConfigError

pytestmark = pytest.mark.slow

SMALL = Path(__file__).resolve().parents[4] / "emotion_task" / "configs" / "small.yaml"


@pytest.fixture(autouse=True)
def ravdess_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")


def test_variants_share_the_lines_models(tmp_path: Path) -> None:
    def variant(name: str, seed: int = 0):
        return _variant(name, seed, [str(SMALL)], ["run_dir=RUN"], "RUN", tmp_path)

    v2, v3, v4, v5 = map(variant, ("v2", "v3", "v4", "v5"))
    full = variant("v6", seed=3)
    assert (full.run_dir, full.seed, full.model.path) == (str(tmp_path / "v6-seed3"), 3, "RUN/sft/model")
    assert full.rewards["reasoning"].args["model_path"] == "RUN/reward_model/model"
    assert v3.rewards["reasoning"].args["model_path"] == "RUN/sft/model"
    assert "reasoning" not in v2.rewards
    assert not v4.algorithm.ptr.trust and full.algorithm.ptr.trust
    assert v5.algorithm.ptr.schedule == "constant"
    assert {v.model.path for v in (v2, v3, v4, v5)} == {full.model.path}


def test_another_reward_model_makes_other_runs(tmp_path: Path) -> None:
    config = _variant("v6", 0, [str(SMALL)], [f"run_dir={tmp_path}"], str(tmp_path), tmp_path)
    weights = tmp_path / "reward_model" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    (weights.parent / "config.json").write_text("{}")
    weights.write_bytes(b"a")
    before = named_inputs(config, "rl")
    assert list(before) == ["rl.rewards.reasoning.args.model_path"]
    weights.write_bytes(b"ab")
    assert named_inputs(config, "rl") != before


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"v9.*allowed are base, sft, v2"):
        run_ablation([str(SMALL)], [f"run_dir={tmp_path}"], variants=["base", "v9"])


def answers(path: Path, labels: list[tuple[str, str]]) -> str:
    rows = [
        {
            "step": 0,
            "split": "eval",
            "prompt": str(i),
            "text": f"<think>A voice.</think><answer>{answer}</answer>",
            "reference": {"emotion": truth},
        }
        for i, (truth, answer) in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_table_has_a_row_a_variant_with_seeds_put_together(tmp_path: Path) -> None:
    right, wrong = ("sad", "sad"), ("sad", "happy")
    metrics = {"accuracy": 0.5, "format_rate": 1.0, "faithfulness/precision": 0.7}
    first = answers(tmp_path / "a.jsonl", [right, right, right, wrong, ("happy", "happy")] * 8)
    second = answers(tmp_path / "b.jsonl", [right, wrong, wrong, wrong, ("happy", "sad")] * 8)
    base = Answered(variant="base", seed=None, metrics=metrics, samples=second)
    sft = replace(base, variant="sft")
    seeds = [
        Answered(
            variant="v6",
            seed=seed,
            metrics={**metrics, "reward/reasoning": 0.6 + 0.2 * seed},
            samples=samples,
            cpu_hours=1.5,
            tokens=1000,
        )
        for seed, samples in ((0, first), (1, second))
    ]
    # Recalls: 3/4 and 1 with seed 0, 1/4 and 0 with seed 1.
    estimated = unweighted_accuracy(seeds)
    assert estimated.value == pytest.approx((0.875 + 0.125) / 2)
    assert estimated.low < estimated.value < estimated.high
    table = write_table([base, sft, *seeds], tmp_path / "out", seed=0).read_text()
    assert "| base model | 1 | 12.5 [" in table and "| - | 0.700 | 0.00 | 0 |" in table
    assert "| GRPO-PTR (V6) | 2 | 50.0 [" in table and "| 3.50 | 0.700 | 1.50 | 1,000 |" in table
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 1000
    written = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert len(written["runs"]) == 4
    assert written["rows"]["base"]["over_sft"] is None and "| +37.5 [" in table
    # Seed 0 is right where SFT is and more, seed 1 is SFT again: every resample gains.
    gain = written["rows"]["v6"]["over_sft"]
    assert 0 < gain["low"] < gain["value"] == pytest.approx(0.375)


def test_a_column_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = Column("F1", "macro_f1", ".1f", lambda group: group.mean("macro_f1"))
    monkeypatch.setattr(ablation_table, "COLUMNS", (*ablation_table.COLUMNS, column))
    samples = answers(tmp_path / "a.jsonl", [("sad", "sad"), ("happy", "sad")])
    base = Answered(variant="base", seed=None, metrics={"macro_f1": 0.25}, samples=samples)
    table = write_table([base, replace(base, variant="sft", metrics={})], tmp_path, seed=0).read_text()
    head, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    assert head.endswith("| tokens | F1 |")
    assert [row.split("|")[-2].strip() for row in rows] == ["0.2", "-"]
    written = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert [row["macro_f1"] for row in written.values()] == [0.25, None]
