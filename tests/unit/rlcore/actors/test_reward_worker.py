from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from rlcore.actors.reward_worker import RewardWorker
from rlcore.config import RewardConfig
from rlcore.errors import ConfigError
from rlcore.rewards.protocol import Reward
from rlcore.types import Completion, Group, Prompt, RewardContext, Score


def group(*texts: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    return Group(prompt=Prompt(id="p", text=""), prompt_token_ids=(1,), completions=completions)


class Length(Reward):
    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def score(self, group, context):
        return [Score(value=self.scale * len(c.text)) for c in group.completions]


class Scripted(Reward):
    """Answers by the completions' text: what authors get wrong."""

    def score(self, group, context):
        texts = [c.text for c in group.completions]
        if texts[0] == "raise":
            raise KeyError("no such key")
        if texts[0] == "raise half":
            raise RuntimeError("\ud800")
        if texts[0] == "short":
            return [Score(value=1.0)]
        bad = {
            "nan": Score(value=float("nan")),
            "none": Score(value=None),
            "plain": 1.0,
            "part": Score(value=1.0, parts={"facts": float("inf")}),
            "beyond": Score(value=1.0, token_values={1: 0.5}),
            "infinite": Score(value=1.0, token_values={0: float("inf")}),
            "many": Score(value=1.0, token_advantages=(0.5, 0.5)),
            "lost": Score(value=1.0, token_advantages=[np.float32("nan")]),
            "number": Score(value=1.0, token_advantages=0.5),
            "teacher": Score(value=1.0, token_advantages=np.array([0.5])),
            "own": Score(value=0.0, error="its own reason"),
            "huge": Score(value=10**400),
            "list": Score(value=1.0, parts=[1]),
            "raised": Score(value=0.0, error=ValueError("as it is")),
            "half": Score(value=0.0, error="\ud800 went wrong" + "!" * 20_000),
            "names": Score(value=1.0, parts={("a", 1): np.float32(0.5), "\ud800": 2}),
        }
        return [bad.get(text, Score(value=1.0)) for text in texts]


def num_words(prompt: Prompt, completion: Completion, scale: int = 1) -> int:
    return scale * len(completion.text.split())


def huge(completion: Completion) -> int:
    return 10**400 if completion.text == "huge" else 1


def both(group: Group, completion: Completion) -> int:
    return 1


def wrong_kind(group: Group) -> object:
    answers = {"none": None, "words": ["a", "b"], "few": [1.0], "array": np.array([1.0, 0.0])}
    answers |= {"dict": {1.0: "x", 0.0: "y"}, "set": {1.0, 0.0}, "text": "10", "bytes": b"10"}
    return answers[group.completions[0].text]


class WithoutOrder(Reward):
    def score(self, group, context):
        return dict.fromkeys(("a", "b"), Score(1.0))


class BatchWithoutOrder(Reward):
    def score_batch(self, groups, context):
        return {group.prompt.id: [Score(1.0), Score(0.0)] for group in groups}


@pytest.fixture(autouse=True)
def module():
    name = "rewards_of_a_user"
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(
        Length=Length,
        Scripted=Scripted,
        num_words=num_words,
        huge=huge,
        both=both,
        wrong_kind=wrong_kind,
        WithoutOrder=WithoutOrder,
        BatchWithoutOrder=BatchWithoutOrder,
        number=3,
        Plain=dict,
    )
    yield
    del sys.modules[name]


def worker(attribute: str, **kwargs) -> RewardWorker:
    return RewardWorker("mine", RewardConfig(target=f"rewards_of_a_user:{attribute}", **kwargs))


def test_a_class_is_built_with_its_arguments_and_scores_groups_in_order() -> None:
    scores = worker("Length", args={"scale": 2.0}).score(
        [group("a", "bb"), group("ccc", "")], RewardContext()
    )
    assert [[s.value for s in row] for row in scores] == [[2.0, 4.0], [6.0, 0.0]]


def test_a_plain_function_is_a_reward() -> None:
    (row,) = worker("num_words").score([group("a b", "")], RewardContext())
    assert [s.value for s in row] == [2.0, 0.0]
    (row,) = worker("num_words", args={"scale": 3}).score([group("a b", "")], RewardContext())
    assert [s.value for s in row] == [6.0, 0.0]


def test_an_exception_is_data_for_its_group() -> None:
    scores = worker("Scripted").score([group("fine", "fine"), group("raise", "x")], RewardContext())
    assert [s.value for s in scores[0]] == [1.0, 1.0]
    assert [(s.error or "").splitlines()[0] for s in scores[1]] == ["KeyError: 'no such key'"] * 2


def test_what_a_group_function_returns_is_checked() -> None:
    groups = [group("none", "x"), group("words", "x"), group("few", "x")]
    none, words, few = worker("wrong_kind").score(groups, RewardContext())
    assert none[0].error == "returned NoneType where one value a completion is due"
    assert words[1].error == "value is 'b'; it must be a finite number"
    assert few[0].error == "returned 1 scores for 2 completions"
    (row,) = worker("wrong_kind").score([group("array", "x")], RewardContext())
    assert row == [Score(1.0), Score(0.0)]


@pytest.mark.parametrize("kind", ["dict", "set", "text", "bytes"])
def test_what_has_no_order_is_no_list_of_scores(kind: str) -> None:
    (row,) = worker("wrong_kind").score([group(kind, "x")], RewardContext())
    assert [s.error for s in row] == [
        f"returned {kind.replace('text', 'str')} where one value a completion is due"
    ] * 2


def test_what_a_class_returns_without_order_is_no_list_either() -> None:
    (row,) = worker("WithoutOrder").score([group("a", "b")], RewardContext())
    assert [s.error for s in row] == ["returned dict where one Score a completion is due"] * 2
    (row,) = worker("BatchWithoutOrder").score([group("a", "b")], RewardContext())
    assert (row[0].error or "").startswith(
        "ValueError: score_batch returned dict where a list a group is due"
    )


def test_a_wrong_count_is_data_for_its_group() -> None:
    first, second = worker("Scripted").score([group("short", "x"), group("a", "b")], RewardContext())
    assert [s.error for s in first] == ["returned 1 scores for 2 completions"] * 2
    assert [s.value for s in second] == [1.0, 1.0]


def test_a_useless_value_is_data_for_its_completion() -> None:
    (row,) = worker("Scripted").score(
        [group("x", "nan", "none", "plain", "part", "beyond", "infinite", "own")], RewardContext()
    )
    assert [s.error for s in row] == [
        None,
        "value is nan; it must be a finite number",
        "value is None; it must be a finite number",
        "returned float where a Score is due",
        "facts is inf; it must be a finite number",
        "token_values names token 1; the completion has 1",
        "token_values[0] is inf; it must be a finite number",
        "its own reason",
    ]


def test_advantages_of_tokens_are_one_number_a_token() -> None:
    (row,) = worker("Scripted").score([group("many", "lost", "number", "teacher")], RewardContext())
    assert [s.error for s in row] == [
        "token_advantages are 2; the completion has 1 tokens",
        "token_advantages[0] is np.float32(nan); it must be a finite number",
        "token_advantages are 0.5; they must be a list",
        None,
    ]
    assert row[3].token_advantages == (0.5,)


def test_what_is_written_down_is_plain_whatever_the_reward_answered() -> None:
    asked = group("x", "huge", "list", "raised", "half", "names")
    (row,) = worker("Scripted").score([asked], RewardContext())
    fine, huge, of_list, raised, half, names = row
    assert fine.error is None
    assert (huge.error or "").startswith("value is 1000") and "finite number" in (huge.error or "")
    assert of_list.error == "parts is [1]; it must be a mapping"
    assert raised.error == "ValueError('as it is')"
    assert (half.error or "").startswith("? went wrong!!") and len(half.error or "") == 10_000
    assert (names.error, names.parts) == (None, {"('a', 1)": 0.5, "?": 2.0})
    (row,) = worker("Scripted", retries=0).score([group("raise half")], RewardContext())
    assert (row[0].error or "").startswith("RuntimeError: ?\n")
    (row,) = worker("huge").score([group("x", "huge")], RewardContext())
    assert [score.error is None for score in row] == [True, False]


def test_what_is_no_reward_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rewards.mine.target: .*:Plain is no subclass"):
        worker("Plain")
    with pytest.raises(ConfigError, match="neither a Reward class nor a function"):
        worker("number")
    with pytest.raises(ConfigError, match=r"rewards.mine: num_words was given \['limit'\]"):
        worker("num_words", args={"limit": 3})
    with pytest.raises(ConfigError, match="takes either `group` or `completion`"):
        worker("both")
