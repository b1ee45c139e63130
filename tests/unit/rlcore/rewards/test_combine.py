from __future__ import annotations

import pytest

from rlcore.actors.reward_worker import RewardWorker
from rlcore.config import RewardConfig
from rlcore.errors import ConfigError
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

RULES = "rlcore.rewards.rules"
FORMAT = {"target": f"{RULES}:TagFormat", "args": {"tags": ["a"]}}
MATCH = {"target": f"{RULES}:ExactMatch", "args": {"key": "label", "extract": "<a>(.*?)</a>"}}


def group(*texts: str, **reference: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", reference=reference)
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


def score(kind: str, *groups: Group, **args):
    config = RewardConfig(target=f"rlcore.rewards.combine:{kind}", args=args)
    return RewardWorker("mix", config).score(groups, RewardContext())


def test_a_weighted_sum_shows_its_parts() -> None:
    rewards = {"form": {**FORMAT, "weight": 0.5}, "match": {**MATCH, "weight": 2}}
    (row,) = score("WeightedSum", group("<a>x</a>", "<a>y</a>", "!<a>x</a>", label="x"), rewards=rewards)
    assert [s.value for s in row] == [2.5, 0.5, 2.0]
    assert row[1].parts == {"form": 1.0, "match": 0.0}


def test_a_product_of_sums_nests() -> None:
    inner = {"target": "rlcore.rewards.combine:WeightedSum", "args": {"rewards": {"match": MATCH}}}
    (row,) = score(
        "Product", group("<a>x</a>", "!<a>x</a>", label="x"), rewards={"form": FORMAT, "sum": inner}
    )
    assert [s.value for s in row] == [1.0, 0.0]
    assert row[0].parts == {"form": 1.0, "sum": 1.0, "sum/match": 1.0}


def test_what_does_not_pass_the_gate_is_never_shown() -> None:
    # Behind the gate, a missing reference is an error: those that do not pass never get there.
    rows = score("Gate", group("!", "<a>x</a>"), group("?"), gate=FORMAT, reward=MATCH, otherwise=-1.0)
    assert [(s.value, s.error is None) for s in rows[0]] == [(-1.0, True), (0.0, False)]
    assert rows[0][1].error.startswith("reward: prompt 'p' has no reference 'label'")
    assert rows[1][0].value == -1.0 and rows[1][0].parts == {"gate": 0.0}
    (row,) = score("Gate", group("<a>x</a>", label="x"), gate=FORMAT, reward=MATCH)
    assert (row[0].value, row[0].parts) == (1.0, {"gate": 1.0, "reward": 1.0})


def judge_first_token(completion: Completion) -> Score:
    return Score(1.0, token_values={0: 0.5})


def teach_first_token(completion: Completion) -> Score:
    return Score(1.0, token_advantages=(0.5,))


@pytest.mark.parametrize(
    ("name", "kind"), [("judge_first_token", "token_values"), ("teach_first_token", "token_advantages")]
)
def test_what_judges_single_tokens_is_not_combined(name: str, kind: str) -> None:
    (row,) = score("WeightedSum", group("x"), rewards={"steps": {"target": f"{__name__}:{name}"}})
    assert row[0].error == f"steps gives {kind}: name it in `rewards` by itself"


def test_a_part_that_fails_fails_the_whole_by_name() -> None:
    (row,) = score("WeightedSum", group("<a>x</a>"), rewards={"form": FORMAT, "match": MATCH})
    assert row[0].error.startswith("match: prompt 'p' has no reference 'label'")


@pytest.mark.parametrize(
    ("rewards", "message"),
    [({}, "rewards: got none"), ({"x": {"args": {}}}, "x: got"), ({"x": {**MATCH, "num_gpus": 1}}, "x: got")],
)
def test_sections_are_checked(rewards: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score("Product", rewards=rewards)
