from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from rlcore.config import RewardConfig
from rlcore.config.env_values import EnvStr
from rlcore.errors import ConfigError
from rlcore.rewards import loading
from rlcore.rewards.loading import build_reward, check_rewards, record_of
from rlcore.rewards.rules import RegexFormat


def test_an_entry_point_names_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        metadata.EntryPoint("tags", "rlcore.rewards.rules:RegexFormat", loading.ENTRY_POINTS),
        metadata.EntryPoint("two", "a:A", loading.ENTRY_POINTS),
        metadata.EntryPoint("two", "b:B", loading.ENTRY_POINTS),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "rlcore.rewards" else [])
    reward = build_reward(RewardConfig(target="tags", args={"pattern": "x"}), where="rewards.form")
    assert isinstance(reward, RegexFormat)
    with pytest.raises(
        ConfigError,
        match=r"rewards.form.target: no installed package has an entry point 'tag' .* \['tags', 'two'\]",
    ):
        build_reward(RewardConfig(target="tag"), where="rewards.form")
    with pytest.raises(ConfigError, match=r"several packages name a reward 'two': \['a:A', 'b:B'\]"):
        build_reward(RewardConfig(target="two"), where="rewards.form")


@pytest.mark.parametrize(
    ("target", "args", "message"),
    [
        ("emotion_task.rewards:FormatRewrd", {}, "rewards.a.target: module .* has no 'FormatRewrd'; it has"),
        (
            "emotion_task.rewrds:FormatReward",
            {},
            "rewards.a.target: module 'emotion_task.rewrds' of .*cannot",
        ),
        ("rlcore.rewards.rules:TagFormat", {"tgas": []}, r"rewards.a.args: .* was given \['tgas'\]"),
        ("rlcore.rewards:__all__", {}, "rewards.a.target: .* is neither a Reward class nor a function"),
        ("broken_reward:One", {}, "rewards.a.target: module 'broken_reward' .* fails when it is imported"),
        (
            "rlcore.rewards.combine:WeightedSum",
            {"rewards": {"b": {"target": "rlcore.rewards.rules:TagFormatt"}}},
            "rewards.a.args.rewards.b.target: module .* has no 'TagFormatt'",
        ),
    ],
)
def test_a_misspelt_reward_is_told_where_its_package_is_here(
    target: str, args: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_reward.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for environment in ({}, {"env_vars": {"A": "1"}}):
        with pytest.raises(ConfigError, match=message):
            check_rewards({"a": RewardConfig(target=target, args=args, runtime_env=environment)})
    # The nodes may have another version of it.
    check_rewards({"a": RewardConfig(target=target, args=args, runtime_env={"pip": ["it"]})})


def test_a_reward_that_only_the_nodes_have_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import a_library_of_the_nodes")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("on_the_nodes.rewards:Reward", "entry_point_of_the_nodes", "needs_more:Reward"):
        check_rewards({"a": RewardConfig(target=target)})


def test_the_record_says_which_code_and_arguments_without_their_secrets() -> None:
    args = {"pattern": "x", "token": EnvStr("s3cret", "${oc.env:TOKEN}")}
    record = record_of(RewardConfig(target="rlcore.rewards.rules:RegexFormat", args=args))
    source = Path(loading.__file__).with_name("rules.py").read_bytes()
    assert record == {
        "target": "rlcore.rewards.rules:RegexFormat",
        "package": "rlcore",
        "version": metadata.version("rlcore"),
        "sha256": hashlib.sha256(source).hexdigest(),
        "args": {"pattern": "x", "token": "${oc.env:TOKEN}"},
    }


def test_a_reward_of_the_working_directory_has_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loose_reward.py").write_text("def one(completion):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    record = record_of(RewardConfig(target="loose_reward:one"))
    assert (record["package"], record["version"], len(record["sha256"])) == (None, None, 64)
