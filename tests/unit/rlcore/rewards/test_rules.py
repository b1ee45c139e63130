from __future__ import annotations

from dataclasses import replace

import pytest

from emotion_task.rewards.ptr import FormatReward, OutcomeReward, dimension_weights
from rlcore.errors import ConfigError
from rlcore.rewards.protocol import Reward
from rlcore.rewards.rules import ExactMatch, Length, RegexFormat, RegexMatch, Repetition, TagFormat
from rlcore.types import Completion, Group, Prompt, RewardContext


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
    other = OutcomeReward(labels=("happy",)).score(of, RewardContext())  # no answer could be right
    assert all(
        score.error == "prompt 'p': its emotion 'sad' is none of args.labels ('happy',)" for score in other
    )


def test_weights_of_dimensions_come_in_the_order_of_the_grades() -> None:
    """The reward model writes one grade a position: an order of the user's own would swap their meanings."""
    assert list(dimension_weights({"fluency": 3, "factual": 1}).items()) == [
        ("factual", 1.0),
        ("interpretation", 0.0),
        ("completeness", 0.0),
        ("fluency", 3.0),
        ("structure", 0.0),
    ]
    assert sum(dimension_weights(None).values()) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"\['facts'\] are no dimensions"):
        dimension_weights({"facts": 1.0})


def test_tags_each_once_in_order_and_with_text() -> None:
    reward = TagFormat(["think", "answer"])
    good = " <think>a <b>\n c</think>\n<answer>x</answer>\n"
    bad = (
        "<think>a</think><answer> </answer>",
        "<think></think><answer>x</answer>",
        "<answer>x</answer><think>a</think>",
        "<think>a<think>b</think></think><answer>x</answer>",
        "<think>a</think><answer>x</answer><answer>y</answer>",
        "<think>a</think>so <answer>x</answer>",
        "<think>a</think><answer>x",
        "",
    )
    assert values(reward, group(good, *bad)) == [1, *[0] * len(bad)]
    with pytest.raises(ConfigError, match="tags: got"):
        TagFormat(["think>"])


def test_the_reference_may_be_a_pattern() -> None:
    reward = RegexMatch("label", extract=r"<a>(.*?)</a>")
    of = group("<a>3.14</a>", "<a> 3.1 </a>", "<a>13.1</a>", "3.1", label=r"3\.1\d*")
    assert values(reward, of) == [1, 1, 0, 0]


def test_length_falls_to_zero_over_the_slack() -> None:
    reward = Length(maximum=4, minimum=2, slack=3, unit="words")
    texts = ["a", "a b", "a b c d", "a b c d e", "a b c d e f", " ".join("abcdefgh"), ""]
    assert values(reward, group(*texts)) == pytest.approx([0.75, 1, 1, 0.75, 0.5, 0, 0.5])
    assert values(Length(maximum=1), group("one token, many words")) == [1]
    for bad in ({"maximum": 1, "minimum": 2}, {"maximum": 1, "unit": "letters"}):
        with pytest.raises(ConfigError):
            Length(**bad)


def test_repeated_n_grams_cost_their_share() -> None:
    # "a b a b a b" has five pairs, of which two are new.
    assert values(Repetition(n=2), group("a b A b a b", "a b c", "a", "")) == pytest.approx([0.4, 1, 1, 1])
    with pytest.raises(ConfigError, match="n: got 0"):
        Repetition(n=0)


@pytest.mark.parametrize("null", [None, float("nan")])
@pytest.mark.parametrize("reward", [ExactMatch("label"), RegexMatch("label")])
def test_a_null_reference_is_an_error_and_not_the_word_none(reward: ExactMatch, null: float | None) -> None:
    of = replace(group("None", "nan"), prompt=Prompt(id="p", text="", reference={"label": null}))
    errors = [score.error for score in reward.score(of, RewardContext())]
    assert errors == ["prompt 'p': its reference 'label' is null; no answer is right"] * 2


def test_composed_and_decomposed_letters_are_equal() -> None:
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    for reward in (ExactMatch("label"), RegexMatch("label")):
        assert values(reward, group(nfc, nfd, "cafe", label=nfc)) == [1, 1, 0]
        assert values(reward, group(nfc, nfd, "cafe", label=nfd)) == [1, 1, 0]


def test_no_answer_is_right_where_the_emotion_is_null() -> None:
    of = replace(group("nothing in form"), prompt=Prompt(id="p", text="", reference={"emotion": None}))
    assert (
        OutcomeReward().score(of, RewardContext())[0].error == "prompt 'p': its reference 'emotion' is null"
    )
