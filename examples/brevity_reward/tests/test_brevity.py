from brevity_reward import Brevity

from rlcore.rewards import RewardContext
from rlcore.rewards.samples import completion_of
from rlcore.types import Group, Prompt


def test_few_words_are_worth_more():
    answers = ["one two", "one two three", "one two three four", ""]
    group = Group(
        prompt=Prompt(id="p", text=""),
        prompt_token_ids=(),
        completions=tuple(map(completion_of, answers)),
    )
    scores = Brevity(limit=2).score(group, RewardContext())
    assert [score.value for score in scores] == [1.0, 0.5, 0.0, 1.0]
    assert [score.parts["words"] for score in scores] == [2, 3, 4, 0]
