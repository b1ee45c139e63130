from __future__ import annotations

import pytest

from emotion_task.rewards import FormatReward, OutcomeReward, dimension_weights
from rlcore.errors import ConfigError
from rlcore.rewards.base import Reward
from rlcore.rewards.rules import ExactMatch, RegexFormat
from rlcore.types import Completion, Group, Prompt, RewardContext, Score


def group(*texts: str, **reference: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", reference=reference)
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


def values(reward: Reward, of: Group) -> list[float]:
    return [score.value for score in reward.score(of, RewardContext())]


def test_the_whole_completion_must_match() -> None:
    reward = RegexFormat(r"<a>.+</a>")
    assert values(reward, group("<a>x\ny</a>", "<a>x</a>.", "", "<a></a>")) == [1, 0, 0, 0]


def test_the_last_extracted_answer_counts() -> None:
    reward = ExactMatch("label", extract=r"<a>(.*?)</a>", aliases={"angry": ["anger", "mad"]})
    of = group("<a>sad</a> <a>Anger </a>", "<a>MAD</a>", "<a>sad</a>", "angry", "<a></a>", label="angry")
    assert values(reward, of) == [1, 1, 0, 0, 0]
    assert values(ExactMatch("label"), group(" Angry\n", "anger", label="angry")) == [1, 0]


def test_a_prompt_without_the_reference_is_an_error_not_a_zero() -> None:
    (score,) = ExactMatch("label").score(group("x", emotion="sad"), RewardContext())
    assert score.error == "prompt 'p' has no reference 'label'; it has ['emotion']"


def test_patterns_are_checked_when_the_reward_is_built() -> None:
    with pytest.raises(ConfigError, match="pattern: '\\(' is not a regular expression"):
        RegexFormat("(")
    with pytest.raises(ConfigError, match="has no group"):
        ExactMatch("label", extract="x")


def test_the_emotion_rewards() -> None:
    good, wrong = "<think>a</think><answer>Sadness</answer>", "<think>a</think><answer>happy</answer>"
    of = group(good, wrong, "sad", "<answer>sad</answer>", emotion="sad")
    assert values(FormatReward(), of) == [1, 1, 0, 0]
    assert values(OutcomeReward(), of) == [1, 0, 0, 0]
    assert OutcomeReward(labels=("happy",)).score(of, RewardContext())[0] == Score(value=0.0)


def test_weights_of_dimensions_come_in_the_order_of_the_grades() -> None:
    """The reward model writes one grade a position: an order of the user's own would swap their meanings."""
    assert list(dimension_weights({"fluency": 3, "factual": 1}).items()) == [
        ("factual", 1.0),
        ("interpretation", 0.0),
        ("completeness", 0.0),
        ("fluency", 3.0),
    ]
    assert sum(dimension_weights(None).values()) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"\['facts'\] are no dimensions"):
        dimension_weights({"facts": 1.0})
