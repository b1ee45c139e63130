"""What is wrong with a line's later stages is said before its first is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.pipeline import Pipeline
from rlcore.config import load_config
from rlcore.errors import RLCoreError

CONFIGS = Path(__file__).resolve().parents[2] / "emotion_task" / "configs"
EMOTION_TASK = "emotion_task.task:EmotionTask"


def pipeline(tmp_path: Path, name: str, *overrides: str) -> Pipeline:
    files = [str(CONFIGS / "quickstart.yaml"), str(CONFIGS / f"{name}.yaml")]
    if name in ("quickstart", "small"):
        del files[0]
    config = load_config(files, [f"run_dir={tmp_path}", *overrides], schema=PipelineConfig)
    return Pipeline(config)


@pytest.mark.parametrize("name", ["quickstart", "ravdess", "small", "two_stages", "three_nodes"])
def test_the_ready_lines_pass(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    pipeline(tmp_path, name).check()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.weights.reasonin=0.5", r"unknown tasks \['reasonin'\]"),
        ("cold_start.weights.reasonin=0.5", r"unknown tasks \['reasonin'\]"),
        ("corpus.args.num_trian=10", r"does not take \['num_trian'\]; allowed are num_train"),
        ("corpus.name=ravdes", "corpus 'ravdes': not known; allowed are"),
        (
            "rl.rewards.outcome.target=emotion_task.rewards:Outcome",
            "rl.rewards.outcome.target: .* has no 'Outcome'",
        ),
        (f"rl.rewards.outcome.target={EMOTION_TASK}", "rl.rewards.outcome"),
        ("rl.rewards.outcome.args.weigth=1", "rl.rewards.outcome.args: .* 'weigth'"),
        ("rl.task.args.max_tran=3", "rl.task.args: .* 'max_tran'"),
        ("reward_model.graded=/no/such.jsonl", "/no/such.jsonl: no such file"),
        ("sft.text_data=/no/such.jsonl", "/no/such.jsonl: no such file"),
    ],
)
def test_mistakes_of_later_stages_are_found_first(tmp_path: Path, override: str, message: str) -> None:
    overrides = [override, *(["corpus.root=/data"] if "corpus.name" in override else [])]
    with pytest.raises(RLCoreError, match=message):
        pipeline(tmp_path, "quickstart", *overrides).check()
