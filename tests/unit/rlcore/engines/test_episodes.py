"""Turns on an engine that says what it is told to: which requests it gets, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from rlcore.config import EnvironmentConfig
from rlcore.engines.episodes import Episodes
from rlcore.engines.sampling import EngineRequest, Sampling, sampling_seed
from rlcore.environments import Episode, Reply
from rlcore.models.media import EncodedPrompt
from rlcore.types import Completion, Prompt

PLACEHOLDER = "\N{SPEAKER}"


class SayingEngine:
    """A character is a token. Each request is finished by hand."""

    max_model_len = 100

    def __init__(self) -> None:
        self.requests: dict[str, tuple[EngineRequest, Sampling, Any]] = {}
        self.log: list[tuple[str, str, int | None, int]] = []
        self.version = 0

    def submit(self, key: str, request: EngineRequest, sampling: Sampling, prompt: Any = None) -> None:
        assert key not in self.requests
        self.requests[key] = (request, sampling, prompt)
        self.log.append((key, "".join(map(chr, request.begun)), request.seed, sampling.max_tokens))

    def cancel(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.requests.pop(key, None)

    def encode(self, text: str) -> tuple[int, ...] | None:
        return None if PLACEHOLDER in text else tuple(map(ord, text))

    def say(self, key: str, text: str, reason: str = "stop") -> dict[str, tuple[Completion, ...]]:
        self.requests.pop(key)
        spans = ((self.version, len(text) - 1), (self.version + 1, 1)) if reason == "pushed" else ()
        turn = Completion(
            token_ids=tuple(map(ord, text)),
            logprobs=tuple(-float(ord(c)) for c in text),
            text=text,
            finish_reason="stop" if reason == "pushed" else reason,
            policy_version=self.version,
            version_spans=spans,
        )
        return {key: (turn,)}


class Scene:
    """Episodes, their engine, and what the environment was asked."""

    def __init__(self, *, stop: tuple[str, ...] = (")",), **limits: Any):
        self.engine = SayingEngine()
        self.asked: list[tuple[Episode, Callable[[Reply], None]]] = []
        self.whole: dict[str, tuple[Completion, ...]] = {}
        config = EnvironmentConfig(target="a:B", **limits)
        self.episodes: Episodes[SayingEngine] = Episodes(config, stop, self.asked.extend, self._resume)

    def _resume(self, function: Callable[[SayingEngine], Mapping[str, tuple[Completion, ...]]]) -> None:
        self.whole |= function(self.engine)

    def begin(self, key: str = "7", n: int = 1, max_tokens: int = 40, seed: int | None = 5) -> None:
        encoded = EncodedPrompt(prompt_token_ids=(1, 2, 3), media_inputs={}, media={})
        request = EngineRequest(id="p", text="p", encoded=encoded, seed=seed)
        sampling = Sampling(n=n, max_tokens=max_tokens, stop=("!",))
        self.episodes.begin(self.engine, key, Prompt(id="p", text="p"), request, sampling, "rendered")

    def say(self, key: str, text: str, reason: str = "stop") -> None:
        self.whole |= self.episodes.finished(self.engine, self.engine.say(key, text, reason))

    def answer(self, text: str | None = None, error: str | None = None) -> None:
        self.asked.pop(0)[1](Reply(text=text, error=error))


def test_an_episode_is_one_sequence_whose_observations_are_told_apart() -> None:
    scene = Scene()
    scene.begin()
    scene.say("7/0", "(a)")
    assert scene.asked[0][0] == Episode(prompt=Prompt(id="p", text="p"), turns=("(a)",), observations=())
    scene.answer("[1]")
    scene.say("7/0", "b(c)")
    assert scene.asked[0][0].turns == ("(a)", "b(c)") and scene.asked[0][0].observations == ("[1]",)
    scene.answer("[23]")
    scene.say("7/0", "d")
    (completion,) = scene.whole["7"]
    assert "".join(map(chr, completion.token_ids)) == "(a)[1]b(c)[23]d" == completion.transcript
    assert completion.text == "(a)b(c)d" and completion.finish_reason == "stop"
    assert completion.is_sampled.tolist() == [c not in "[123]" for c in completion.transcript]
    assert completion.num_sampled == 8
    expected = [0.0 if c in "[123]" else -float(ord(c)) for c in completion.transcript]
    assert list(completion.logprobs) == expected
    # The first turn is the sample that there would be without an environment; the others have own seeds.
    assert scene.engine.log == [
        ("7/0", "", 5, 40),
        ("7/0", "(a)[1]", sampling_seed(5, 1), 34),
        ("7/0", "(a)[1]b(c)[23]", sampling_seed(5, 2), 26),
    ]
    assert scene.episodes.num_unfinished == 0 and scene.engine.requests == {}


def test_samples_go_on_by_themselves_and_come_back_together() -> None:
    scene = Scene()
    scene.begin(n=3)
    assert [(key, seed) for key, _, seed, _ in scene.engine.log] == [("7/0", 5), ("7/1", 6), ("7/2", 7)]
    _, sampling, rendered = scene.engine.requests["7/1"]
    assert (sampling.n, sampling.stop, rendered) == (1, ("!", ")"), "rendered")
    scene.say("7/2", "last")
    scene.say("7/0", "(x)")
    scene.say("7/1", "(y)")
    (_, hear_x), (episode, hear_y) = scene.asked
    assert episode.turns == ("(y)",)
    hear_y(Reply(text="2"))  # the second call is answered first
    scene.say("7/1", "done")
    assert scene.whole == {}
    hear_x(Reply(text=None))
    assert [c.text for c in scene.whole["7"]] == ["(x)", "(y)done", "last"]
    assert [c.transcript for c in scene.whole["7"]] == ["(x)", "(y)2done", "last"]


def test_each_turns_tokens_have_the_versions_that_wrote_them() -> None:
    scene = Scene()
    scene.begin()
    scene.engine.version = 3
    scene.say("7/0", "ab)")
    scene.answer("??")
    scene.engine.version = 4
    scene.say("7/0", "cde)", "pushed")
    scene.engine.version = 5
    scene.answer("?")
    scene.say("7/0", "f")
    (completion,) = scene.whole["7"]
    assert completion.policy_version == 3
    # "ab)" and its observation; "cde" at 4; ")", written after a push, its observation and "f" at 5.
    assert completion.version_spans == ((3, 5), (4, 3), (5, 3))
    assert completion.token_versions.tolist() == [3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert np.flatnonzero(~completion.is_sampled).tolist() == [3, 4, 9]


@pytest.mark.parametrize(
    ("limits", "turns", "reason", "text"),
    [
        ({"max_turns": 1}, ["(a)"], "length", "(a)"),
        ({"max_turns": 2}, ["(a)", "(b)"], "length", "(a)[1](b)"),
        ({"max_turns": 2}, ["(a)", "b"], "stop", "(a)[1]b"),
        ({}, ["(a)", "!"], "stop", "(a)[1]!"),  # ended by a stop text that calls nobody
        ({}, ["(a)x" * 9], "stop", "(a)x" * 9),
    ],
)
def test_turns_are_bounded(limits: dict[str, Any], turns: list[str], reason: str, text: str) -> None:
    scene = Scene(**limits)
    scene.begin()
    for turn in turns:
        scene.say("7/0", turn)
        if scene.asked:
            scene.answer("[1]")
    (completion,) = scene.whole["7"]
    assert (completion.finish_reason, completion.transcript) == (reason, text)


def test_tokens_are_bounded_per_turn_and_in_all() -> None:
    scene = Scene(max_turn_tokens=8)
    scene.begin(max_tokens=12)
    scene.say("7/0", "(abc)")
    scene.answer("[1]")
    assert [limit for *_, limit in scene.engine.log] == [8, 4]
    scene.say("7/0", "abcd", "length")
    assert scene.whole["7"][0].finish_reason == "length"
    scene.begin("8", max_tokens=8)
    scene.say("8/0", "(abc)")
    scene.answer("[1]")  # leaves no room for an answer, so that it is not even read
    assert (scene.whole["8"][0].transcript, scene.whole["8"][0].finish_reason) == ("(abc)", "length")
    scene.engine.max_model_len = 3 + 8
    scene.begin("9")
    scene.say("9/0", "(abc)")
    scene.answer("[1]")
    assert (scene.whole["9"][0].transcript, scene.whole["9"][0].finish_reason) == ("(abc)", "length")


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (None, "it hung", "it hung"),
        ("x" * 9, None, "the observation has 9 tokens, rollout.environment.max_observation_tokens is 8"),
        (f"a{PLACEHOLDER}", None, "media placeholder"),
    ],
)
def test_a_failed_call_costs_its_own_sample_by_policy(
    text: str | None, error: str | None, reason: str
) -> None:
    for policy in ("mask", "abort", "?!"):
        scene = Scene(max_observation_tokens=8, on_error=policy)
        scene.begin(n=2)
        scene.say("7/0", "(a)")
        scene.answer(text, error)
        scene.say("7/1", "fine")
        if policy == "?!":
            scene.say("7/0", "on")
            assert [c.transcript for c in scene.whole["7"]] == ["(a)?!on", "fine"]
            assert [c.error for c in scene.whole["7"]] == [None, None]
        else:
            failed, fine = scene.whole["7"]
            assert failed.error is not None and reason in failed.error and fine.error is None
            assert (failed.transcript, fine.transcript) == ("(a)", "fine")


def test_what_is_cancelled_is_not_heard_of_again() -> None:
    scene = Scene()
    scene.begin(n=2)
    scene.begin("8")
    scene.say("7/0", "(a)")
    scene.episodes.cancel(scene.engine, ["7", "unknown"])
    assert set(scene.engine.requests) == {"8/0"} and scene.episodes.num_unfinished == 1
    scene.answer("[1]")
    assert set(scene.engine.requests) == {"8/0"} and scene.whole == {}
    scene.begin("7")  # under the same key, it is another
    scene.say("7/0", "new")
    assert [c.text for c in scene.whole["7"]] == ["new"]


def test_an_engine_that_gave_up_fails_the_job() -> None:
    scene = Scene()
    scene.begin()
    scene.say("7/0", "(a)")
    scene.answer("[1]")
    scene.say("7/0", "", "error")
    assert scene.whole["7"][0].has_failed


def test_without_stop_texts_every_turn_is_answered_that_the_policy_ends() -> None:
    scene = Scene(stop=())
    scene.begin(seed=None)
    scene.say("7/0", "hello")
    scene.answer(" and? ")
    scene.say("7/0", "cut", "length")
    (completion,) = scene.whole["7"]
    assert (completion.transcript, completion.finish_reason) == ("hello and? cut", "length")
    assert [seed for _, _, seed, _ in scene.engine.log] == [None, None]
