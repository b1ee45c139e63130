"""A reward of somebody else's, one file outside the project: from a YAML to scores, without a line of rlcore
changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlcore.config import load_config
from rlcore.errors import ConfigError
from rlcore.rewards.loading import build_reward, check_reward, record_of
from rlcore.rewards.samples import completion_of
from rlcore.types import Group, Prompt, RewardContext, Score

SOURCE = """
from rlcore.rewards import Reward, Score


class Brevity(Reward):
    def __init__(self, limit: int):
        self.limit = limit

    def score(self, group, context):
        words = [len(completion.text.split()) for completion in group.completions]
        return [Score(min(1.0, self.limit / n), parts={"words": n}) for n in words]


def agrees(prompt, completion):
    return prompt.reference["label"] in completion.text
"""
YAML = """
model: {path: anything}
task: {target: 'a.task:Task'}
rewards:
  brevity: {target: 'a_reward_from_outside:Brevity', args: {limit: 2}, weight: 0.5}
  agrees: {target: 'a_reward_from_outside:agrees'}
"""
GROUP = Group(
    prompt=Prompt(id="p", text="Which emotion?", reference={"label": "sad"}),
    prompt_token_ids=(0,),
    completions=tuple(completion_of(text) for text in ("sad", "sad and slow", "not that at all")),
)


@pytest.fixture
def run_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a_reward_from_outside.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    path = tmp_path / "run.yaml"
    path.write_text(YAML)
    return path


def test_one_file_outside_is_all_that_a_reward_needs(run_yaml: Path) -> None:
    sections = load_config([run_yaml]).rewards
    rewards = {name: build_reward(section, where=f"rewards.{name}") for name, section in sections.items()}
    scores = {name: reward.score_batch([GROUP], RewardContext()) for name, reward in rewards.items()}
    assert scores == {
        "brevity": [
            [Score(1.0, parts={"words": 1}), Score(2 / 3, parts={"words": 3}), Score(0.5, parts={"words": 4})]
        ],
        "agrees": [[Score(1.0), Score(1.0), Score(0.0)]],
    }
    record = record_of(sections["brevity"])
    assert (record["target"], record["args"]) == ("a_reward_from_outside:Brevity", {"limit": 2})
    assert record["package"] is None and len(str(record["sha256"])) == 64


def test_its_arguments_are_checked_before_a_run(run_yaml: Path) -> None:
    section = load_config([run_yaml], ["rewards.brevity.args={limits: 2}"]).rewards["brevity"]
    with pytest.raises(ConfigError, match=r"rewards\.brevity"):
        check_reward(section, where="rewards.brevity")
