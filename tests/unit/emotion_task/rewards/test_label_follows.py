from __future__ import annotations

from pathlib import Path

import pytest

from emotion_task.parsing import format_response
from emotion_task.records import Utterance, write_manifest
from emotion_task.rewards import LabelFollowsClaimsReward
from rlcore.errors import ConfigError
from rlcore.rewards.samples import completion_of
from rlcore.types import Group, Prompt, RewardContext, Score

LOUD = "The voice is loud."


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    rows = [("quarrel", "high", "train")] * 8 + [("agreement", "low", "train")] * 8
    rows += [("agreement", "high", "eval")] * 50  # the held-out split teaches nothing
    utterances = [
        Utterance(id=str(i), audio="a.wav", emotion=emotion, energy_level=level, split=split)
        for i, (emotion, level, split) in enumerate(rows)
    ]
    write_manifest(tmp_path / "manifest.jsonl", utterances)
    return str(tmp_path / "manifest.jsonl")


def scores(reward: LabelFollowsClaimsReward, *texts: str) -> list[Score]:
    prompt = Prompt(id="p", text="")
    group = Group(prompt=prompt, prompt_token_ids=(0,), completions=tuple(map(completion_of, texts)))
    return reward.score(group, RewardContext())


def test_a_label_is_worth_what_the_claims_make_it(manifest: str) -> None:
    reward = LabelFollowsClaimsReward(manifest)
    follows, does_not, unknown, broken, silent = scores(
        reward,
        format_response(LOUD, "quarrel"),
        format_response(LOUD, "Agreement."),
        format_response(LOUD, "sad"),
        LOUD,
        format_response("I wonder.", "quarrel"),
    )
    assert follows.value == pytest.approx((9 / 11) / (9 / 11 + 1 / 11))
    assert follows.value + does_not.value == pytest.approx(1)
    assert follows.parts == {"is_best": 1.0, "num_claims": 1.0}
    assert does_not.parts == {"is_best": 0.0, "num_claims": 1.0}
    assert (unknown.value, broken.value, silent.value) == (0.0, 0.0, 0.0)
    assert silent.parts == {"is_best": 0.0, "num_claims": 0.0}


def test_an_answer_without_claims_is_worth_what_is_set_or_an_error(manifest: str) -> None:
    silent = format_response("I wonder.", "quarrel")
    (score,) = scores(LabelFollowsClaimsReward(manifest, no_claims=-0.5), silent)
    assert score.value == -0.5 and score.error is None
    (score,) = scores(LabelFollowsClaimsReward(manifest, no_claims=None), silent)
    assert score.error == "the reasoning claims nothing of the voice"


def test_labels_that_cannot_be_learned_are_refused(manifest: str) -> None:
    with pytest.raises(ConfigError, match=r"has the emotion \['sarcasm'\]; .* \['agreement', 'quarrel'\]"):
        LabelFollowsClaimsReward(manifest, labels=["quarrel", "sarcasm"])
    with pytest.raises(ConfigError, match=r"labels: got 'quarrel'; it is a list"):
        LabelFollowsClaimsReward(manifest, labels="quarrel")
