"""docs/guides/preferences.md as it stands, KTO on two ranks that train adapters, and a reward model: losses
that fall, and held-out preferences that the exported models have."""

from __future__ import annotations

import json
import math
import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_task import cli as emotion
from rlcore import cli as rlcore
from rlcore.actors.session import ray_session
from rlcore.config import ClusterConfig, LearnerConfig, LoRAConfig, load_config
from rlcore.config.offline import PreferConfig
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.hf_model import load_model
from rlcore.offline.prefer import prefer
from rlcore.offline.recipe import PreferenceRecipe, Ranked
from rlcore.records.files import read_rows
from rlcore.rewards.samples import completion_of
from rlcore.rewards.verdict import Verdict
from rlcore.types import Group, Prompt, RewardContext

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("engine_process"),
]
PROJECT = Path(__file__).resolve().parents[2]
GUIDE = (PROJECT / "docs" / "guides" / "preferences.md").read_text(encoding="utf-8")


def margins(config: PreferConfig, model: str) -> list[float]:
    """What the exported policy prefers of the held-out pairs, against the base, by a forward pass of its
    own."""
    recipe = PreferenceRecipe(config)
    rows = [Ranked(**row) for row in read_rows(Path(config.run_dir) / "validation.jsonl")]  # type: ignore[typeddict-item]
    groups = recipe._groups(rows, np.zeros((len(rows), 2)))
    policy, base = (
        completion_logprobs(load_model(path), groups).logprobs.sum(-1) for path in (model, config.model.path)
    )
    ratios = (policy - base).view(len(groups), 2)
    return (config.beta * (ratios[:, 0] - ratios[:, 1])).tolist()


def test_preferences_of_a_file_become_the_policys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = r"^```(?:python|yaml)\n(# \S+\.(?:py|yaml)\n.*?)^```$"
    for text in re.findall(whole, GUIDE, re.DOTALL | re.MULTILINE):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    runpy.run_path("make_pairs.py")
    assert emotion.main(["tiny-model", "runs/tiny", "--texts", "data/pairs.jsonl"]) == 0
    with ray_session(ClusterConfig(num_cpus=2)):
        assert rlcore.main(["prefer", "--config", "dpo.yaml"]) == 0
        assert "runs/dpo: finished" in capsys.readouterr().out
        assert len(Path("data/bad_pairs.jsonl").read_text().splitlines()) == 1
        config = load_config(["dpo.yaml"], [], PreferConfig)
        check_dpo(config)
        check_kto(replace(config, run_dir="runs/kto", loss="kto"))
        check_reward_model(replace(config, run_dir="runs/judge", loss="bradley_terry"))


def check_dpo(config: PreferConfig) -> None:
    rows = list(read_rows("runs/dpo/metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, 21))
    first, last = rows[0], rows[-1]
    # The reference is the policy before its first step, to rounding.
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and abs(first["margin"]) < 1e-3
    assert last["loss"] < 0.2 and last["validation_loss"] < 0.2 and last["validation_accuracy"] == 1
    found = margins(config, "runs/dpo/model")
    assert np.mean(found) == pytest.approx(last["validation_margin"], rel=1e-3)


def check_kto(config: PreferConfig) -> None:
    """Adapters, on two ranks under ZeRO-3."""
    learner = LearnerConfig(num_ranks=2, num_cpus=0.9, lr=3e-3, zero_stage=3, lora=LoRAConfig(rank=4))
    ended = prefer(replace(config, train=replace(config.train, num_steps=10, learner=learner)))
    rows = list(read_rows("runs/kto/metrics.jsonl"))
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-4) and rows[0]["kl"] < 1e-3
    assert ended["validation_accuracy"] > 0.9 and ended["validation_loss"] < 0.4
    assert len(json.loads(Path("runs/kto/reference.jsonl").read_text().splitlines()[0])["logprobs"]) == 2


def check_reward_model(config: PreferConfig) -> None:
    """What was trained is what the reward gives, recordings and all."""
    ended = prefer(config)
    assert ended["validation_accuracy"] == 1 and ended["validation_loss"] < 0.2
    task = {"task": config.task.target, "task_args": {**config.task.args, "quarantine": "data/bad.jsonl"}}
    reward = Verdict(ended["model"], **task, engine={"max_model_len": 256})
    rows = [Ranked(**row) for row in read_rows("runs/judge/validation.jsonl")]  # type: ignore[typeddict-item]
    groups = [
        Group(
            prompt=Prompt(id=row["id"], text=row["prompt"], media=row["media"]),
            prompt_token_ids=(0,),
            completions=tuple(map(completion_of, row["answers"])),
        )
        for row in rows
    ]
    scores = [[score.value for score in row] for row in reward.score_batch(groups, RewardContext())]
    assert all(0 < rejected < 0.5 < chosen < 1 for chosen, rejected in scores)
    odds = [math.log(p / (1 - p)) for row in scores for p in row]
    assert sum(odds[0::2]) - sum(odds[1::2]) == pytest.approx(
        len(rows) * ended["validation_margin"], rel=1e-3
    )
