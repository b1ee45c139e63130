from __future__ import annotations

import pytest

from emotion_task.parsing import format_response
from emotion_task.rewards import OutcomeReward
from rlcore.errors import ConfigError
from rlcore.rewards.samples import completion_of
from rlcore.types import Group, Prompt, RewardContext


def test_a_set_of_labels_of_ones_own_is_what_an_answer_may_be() -> None:
    reward = OutcomeReward(labels=["sarcasm", "mild doubt"])
    answers = [format_response("It is loud.", text) for text in ("Mild doubt.", "sarcasm", "sad")]

    def scores(emotion: str) -> list[tuple[float, bool]]:
        prompt = Prompt(id="p", text="", reference={"emotion": emotion})
        completions = tuple(map(completion_of, answers))
        found = reward.score(
            Group(prompt=prompt, prompt_token_ids=(0,), completions=completions), RewardContext()
        )
        return [(score.value, score.error is None) for score in found]

    assert scores("mild doubt") == [(1.0, True), (0.0, True), (0.0, True)]
    assert scores("sad") == [(0.0, False)] * 3  # no answer could be right, so none is wrong
    with pytest.raises(ConfigError, match=r"labels: \['Sarcasm'\]: labels are words in small letters"):
        OutcomeReward(labels=["Sarcasm"])
