from __future__ import annotations

import pickle

import numpy as np
import pytest

from rlcore.errors import ConfigError, RewardError
from rlcore.rewards.policy import apply_error_policy
from rlcore.types import Completion, Group, Prompt, Score


def group(name: str, num: int = 2) -> Group:
    completion = Completion(token_ids=(1,), logprobs=(0.0,), text="", finish_reason="stop", policy_version=0)
    return Group(prompt=Prompt(id=name, text=""), prompt_token_ids=(1,), completions=(completion,) * num)


GROUPS = [group("a"), group("b")]
SCORES = [
    [Score(value=1.0), Score(value=0.25)],
    [Score(value=9.0, error="endpoint is down"), Score(value=0.0)],
]


def test_masked_failures_are_nan_and_the_rest_is_untouched() -> None:
    values = apply_error_policy("judge", GROUPS, SCORES, "mask")
    np.testing.assert_array_equal(values, [[1.0, 0.25], [np.nan, 0.0]])


def test_a_number_stands_in() -> None:
    np.testing.assert_array_equal(
        apply_error_policy("judge", GROUPS, SCORES, "-0.5"), [[1.0, 0.25], [-0.5, 0.0]]
    )


def test_abort_names_reward_prompt_and_reason() -> None:
    with pytest.raises(
        RewardError, match=r"rewards.judge: failed on completion 0 of prompt 'b': endpoint is down"
    ) as e:
        apply_error_policy("judge", GROUPS, SCORES, "abort")
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


def test_without_failures_every_policy_gives_the_values() -> None:
    for policy in ("abort", "mask", "0"):
        np.testing.assert_array_equal(apply_error_policy("x", GROUPS[:1], SCORES[:1], policy), [[1.0, 0.25]])


@pytest.mark.parametrize("policy", ["ignore", "nan", "inf", ""])
def test_another_policy_is_refused(policy: str) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.judge\.on_error: got"):
        apply_error_policy("judge", GROUPS, SCORES, policy)
