"""What a checkpoint's state of the controller must hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlcore.config import AlgorithmConfig, PTRConfig, RewardConfig, RunConfig
from rlcore.loop.saved_state import check_state
from rlcore.records.checkpoint import DamagedCheckpointError

CONFIG = RunConfig(
    rewards={"a": RewardConfig(target="a:A")},
    algorithm=AlgorithmConfig(ptr=PTRConfig(outcome="a", schedule="progressive")),
)
STATE: dict[str, Any] = {
    "step": 4,
    "policy_version": 4,
    "schedule": {"is_open": False, "history": [0.5]},
    "statistics": {"reward/a": 0.5},
    "rounds": {"next_position": 10, "open_rounds": {"4": [8, 9]}},
}


def test_a_state_of_ours_is_taken() -> None:
    check_state(CONFIG, STATE, Path("controller.json"))


@pytest.mark.parametrize("name", list(STATE))
def test_no_entry_may_be_missing(name: str) -> None:
    state = {key: value for key, value in STATE.items() if key != name}
    with pytest.raises(DamagedCheckpointError, match=rf"^controller\.json: lacks '{name}'; use an older"):
        check_state(CONFIG, state, Path("controller.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": "4"}, "step is '4', not a whole number"),
        ({"step": True}, "step is True"),
        ({"policy_version": -1}, "policy_version is -1"),
        ({"policy_version": 1.5}, "policy_version is 1.5"),
        ({"schedule": {}}, "lacks 'is_open'"),
        ({"schedule": None}, "no state to go on from"),
        ({"schedule": {"is_open": True, "history": ["x"]}}, "could not convert string to float"),
        ({"statistics": {"reward/a": "much"}}, "statistics.reward/a is 'much', not a number"),
        ({"statistics": 3}, "no state to go on from"),
        ({"rounds": {"next_position": 10}}, "lacks 'open_rounds'"),
        ({"rounds": {"open_rounds": {}}}, "lacks 'next_position'"),
        ({"rounds": []}, "no state to go on from"),
        ({"rounds": {"next_position": 10, "open_rounds": {"3": [8]}}}, "round 3 of the prompts [8] is none"),
        (
            {"rounds": {"next_position": 10, "open_rounds": {"4": [10]}}},
            "round 4 of the prompts [10] is",
        ),
        ({"rounds": {"next_position": 10, "open_rounds": {"x": []}}}, "invalid literal"),
        ({"rounds": {"next_position": 10, "open_rounds": {"4": 8}}}, "no state to go on from"),
    ],
)
def test_what_is_no_state_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DamagedCheckpointError, match=re.escape(said)):
        check_state(CONFIG, STATE | change, Path("controller.json"))
