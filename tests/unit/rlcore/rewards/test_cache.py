from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from rlcore.rewards import cache
from rlcore.rewards.cache import ScoreCache
from rlcore.types import Completion, Group, Prompt, Score


def group(*texts: str, label: str = "a", audio: float = 0.0) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", media={"audio": np.full(3, audio)}, reference={"label": label})
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


class Asked:
    """Scores by length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []

    def __call__(self, groups: list[Group]) -> list[list[Score]]:
        self.texts += [[c.text for c in g.completions] for g in groups]
        return [
            [Score(float(len(c.text)), error="bad" if c.text == "bad" else None) for c in g.completions]
            for g in groups
        ]


def values(scores: list[list[Score]]) -> list[list[float]]:
    return [[score.value for score in row] for row in scores]


def test_only_new_completions_are_asked_for_and_put_in_their_places() -> None:
    asked, scores = Asked(), ScoreCache(by_group=False)
    assert values(scores.score([group("a", "bb"), group("ccc", label="b")], asked)) == [[1, 2], [3]]
    assert values(scores.score([group("xxxx", "bb", "a"), group("a")], asked)) == [[4, 2, 1], [1]]
    assert asked.texts == [["a", "bb"], ["ccc"], ["xxxx"]]


def test_prompt_media_and_reference_are_part_of_the_content() -> None:
    asked, scores = Asked(), ScoreCache(by_group=False)
    for each in (group("a"), group("a", label="b"), group("a", audio=1.0), group("a")):
        scores.score([each], asked)
    assert asked.texts == [["a"]] * 3


def test_by_group_the_others_count_too() -> None:
    asked, scores = Asked(), ScoreCache(by_group=True)
    for each in (group("a", "bb"), group("a", "cc"), group("a", "bb")):
        scores.score([each], asked)
    assert asked.texts == [["a", "bb"], ["a", "cc"]]


def test_failures_are_tried_again_and_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    asked, scores = Asked(), ScoreCache(by_group=False)
    for texts in (["bad", "a"], ["bad", "a"], ["b", "c"], ["a"]):
        scores.score([group(*texts)], asked)
    assert asked.texts == [["bad", "a"], ["bad"], ["b", "c"], ["a"]]


def test_recordings_that_print_alike_keep_their_own_scores() -> None:
    def of(media: object) -> Group:
        prompt = Prompt(id="p", text="", media={"audio": media})
        return replace(group("a"), prompt=prompt)

    waves = [torch.zeros(16000) for _ in range(2)]
    waves[1][8000] = 1.0
    asked, scores = Asked(), ScoreCache(by_group=False)
    for wave in (*waves, *waves):
        scores.score([of(wave)], asked)
    assert asked.texts == [["a"]] * 2


def test_what_cannot_be_compared_is_scored_each_time_and_said_once(caplog) -> None:
    each = replace(group("a", "b"), prompt=Prompt(id="p7", text="", media={"audio": object()}))
    asked, scores = Asked(), ScoreCache(by_group=False)
    for _ in range(2):
        assert values(scores.score([each], asked)) == [[1, 1]]
    assert asked.texts == [["a", "b"]] * 2
    assert [record.getMessage()[:40] for record in caplog.records] == [
        "prompt 'p7': its scores are not cached: "
    ]
