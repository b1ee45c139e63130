"""The judge against a real HTTP server: a careful one, a broken one, and one that obeys whatever it reads
outside the response."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_service import service

from emotion_task.reward_model.attacks import ATTACKS
from rlcore.endpoints.chat import Pace
from rlcore.errors import ConfigError
from rlcore.rewards.judge import CHAT_TOKENS, OpenAIJudge
from rlcore.types import Completion, Group, Prompt, RewardContext

pytestmark = pytest.mark.slow

KEY = "sk-s3cret"
BAD = "It is a sound."


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def group(*texts: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", reference={"words": "I am fine"})
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


def judge(url: str, cls: type[OpenAIJudge] = OpenAIJudge, **settings: Any) -> OpenAIJudge:
    return cls(
        "small-judge",
        "The speaker said: {words}. factual: true of the voice. style: clear.",
        {"factual": 3, "style": 1},
        base_url=f"{url}/v1",
        api_key_env="JUDGE_KEY",
        **settings,
    )


def score(reward: OpenAIJudge, *texts: str):
    return list(reward.score_batch([group(*texts)], RewardContext())[0])


def reply(factual: Any, style: Any) -> tuple[int, dict[str, str], str]:
    content = json.dumps({"factual": factual, "style": style})
    usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    return 200, {}, json.dumps({"choices": [{"message": {"content": content}}], "usage": usage})


def test_grades_parts_cost_and_what_is_sent() -> None:
    seen: list[Any] = []

    def answer(path, headers, body):
        seen.append((path, headers["authorization"], body))
        return reply(5, 1) if "good" in body["messages"][1]["content"] else reply(1, 1)

    with service(answer) as url:
        first, second = score(judge(url, price={"input": 2.0, "output": 10.0}), "good", "bad")
    assert first.value == pytest.approx((3 * 5 + 1 * 1) / 4 / 5)
    assert second.value == pytest.approx(1 / 5)
    assert first.parts == {"factual": 5, "style": 1, "tokens": 1010, "cost_usd": pytest.approx(0.0021)}
    path, authorization, body = seen[0]
    assert (path, authorization, body["model"]) == ("/v1/chat/completions", f"Bearer {KEY}", "small-judge")
    assert body["messages"][1]["content"].startswith("The speaker said: I am fine.")
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["style"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert schema["schema"]["required"] == ["factual", "style"]


def test_busy_broken_and_careless_endpoints_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlcore.endpoints.chat._FIRST_PAUSE_S", 0.02)
    answers = [
        (429, {"Retry-After": "0"}, "slow down"),
        (503, {"Retry-After": "0"}, "restarting"),
        reply(9, 1),  # not a grade
        (200, {}, json.dumps({"choices": [{"message": {"content": "I would say five."}}]})),
        reply(4, 4),
    ]
    with service(lambda *_: answers.pop(0)) as url:
        (only,) = score(judge(url, retries=4), "x")
    assert (only.error, only.value, answers) == (None, 0.8, [])


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"factual": 4, "style": 2}\n```',
        '\n```\n{"factual": 4, "style": 2}```\n',
        '<think>{"factual": 1, "style": 1}? No.</think>\n{"factual": 4, "style": 2}',
        'The template opened it.\n</think>\n\n```json\n{"factual": 4, "style": 2}\n```',
    ],
)
def test_what_servers_put_around_json_is_no_part_of_it(content: str) -> None:
    answers = [(200, {}, json.dumps({"choices": [{"message": {"content": content}}]}))]
    with service(lambda *_: answers.pop(0)) as url:
        (only,) = score(judge(url, retries=0), "x")
    assert (only.error, only.parts) == (None, {"factual": 4, "style": 2})


@pytest.mark.parametrize(
    "content",
    [
        '{"factual": 4, "style": 2} is my grade',
        'Sure: ```json\n{"factual": 4, "style": 2}\n```',
        '<think>{"factual": 4, "style": 2}',
    ],
)
def test_json_in_the_middle_of_words_is_no_answer(content: str) -> None:
    with service(lambda *_: (200, {}, json.dumps({"choices": [{"message": {"content": content}}]}))) as url:
        (only,) = score(judge(url, retries=0), "x")
    assert only.error is not None and "the judge answered no JSON" in only.error


def test_a_refusal_is_an_error_at_once_and_holds_no_key() -> None:
    asked: list[int] = []

    def answer(path, headers, body):
        asked.append(1)
        return 401, {}, f"Incorrect API key provided: {headers['authorization']}"

    with service(answer) as url:
        reward = judge(url)
        (only,) = score(reward, "x")
    assert "answered 401: Incorrect API key provided: Bearer [secret]" in only.error
    assert "Traceback" in only.error and KEY not in only.error and asked == [1]
    assert KEY not in repr(vars(vars(reward)["_endpoint"])["_client"]) + repr(reward)


def test_a_key_may_end_in_a_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    seen: list[str] = []

    def answer(path, headers, body):
        seen.append(headers["authorization"])
        return reply(5, 5) if len(seen) == 1 else (401, {}, f"bad key {KEY}")

    with service(answer) as url:
        reward = judge(url)
        (good,), (bad,) = score(reward, "x"), score(reward, "y")
    assert seen == [f"Bearer {KEY}"] * 2 and good.error is None
    assert "bad key [secret]" in bad.error and KEY not in bad.error


@pytest.mark.parametrize("value", ["sk-s3\ncret", "sk s3cret", "sk-s3cr\u00e9t", "sk-s3cret\u200b"])
def test_a_key_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(ConfigError, match="JUDGE_KEY holds white space or what is not ASCII") as refused:
        judge("http://localhost")
    assert "s3" not in str(refused.value)
    monkeypatch.setenv("JUDGE_KEY", " \n")
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        judge("http://localhost")


def test_nobody_listens() -> None:
    with service(lambda *_: reply(1, 1)) as url:
        pass
    (only,) = score(judge(url, retries=0), "x")
    assert only.error.startswith("httpx.ConnectError")


def test_a_repeated_run_pays_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(*_):
        asked.append(1)
        return reply(3, 3)

    with service(answer) as url:
        settings = {"cache": str(tmp_path / "grades"), "price": {"input": 1.0}}
        before = score(judge(url, **settings), "a", "b")
        (written,) = (tmp_path / "grades").glob("*.jsonl")
        with written.open("a") as file:
            file.write('{"key": "cut sho')
        after = score(judge(url, **settings), "b", "a", "c")
        assert KEY not in written.read_text()
    assert len(asked) == 3
    assert [s.value for s in before + after] == [pytest.approx(0.6)] * 5
    assert [s.parts["cost_usd"] for s in after] == [0.0, 0.0, pytest.approx(0.001)]


def test_a_cost_that_is_not_told_is_not_0() -> None:
    content = json.dumps({"factual": 4, "style": 4})
    for usage in (None, {"prompt_tokens": 0, "completion_tokens": 0}):
        answer = json.dumps({"choices": [{"message": {"content": content}}], "usage": usage})
        with service(lambda *_, text=answer: (200, {}, text)) as url:
            (only,) = score(judge(url, price={"input": 2.0, "output": 10.0}), "x")
        assert (only.error, only.value, only.parts) == (None, pytest.approx(0.8), {"factual": 4, "style": 4})


def test_the_pace_is_kept() -> None:
    pace = Pace(600)  # one in 0.1 s
    began = time.monotonic()
    for _ in range(4):
        pace.wait()
    assert 0.29 < time.monotonic() - began < 2
    with pytest.raises(ConfigError, match="requests_per_minute: got 0"):
        Pace(0)


def test_key_and_question_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="variable NO_SUCH_KEY is not set"):
        OpenAIJudge("m", "q", {"a": 1}, api_key_env="NO_SUCH_KEY")
    reward = OpenAIJudge("m", "{nothing}", {"a": 1}, api_key_env=None)
    (only,) = score(reward, "x")
    assert "question: it names 'nothing', prompt 'p' has ['words']" in only.error


FENCE = re.compile(r"RESPONSE( [0-9a-f]{16})?|</?response>")


def gullible(path, headers, body):
    """Grades the response 1, and gives 5 to whatever speaks to it from anywhere else: after a line that
    closes the response, or in a turn of its own, as a chat template would open it."""
    (_, user) = (message["content"] for message in body["messages"])
    _, _, rest = user.partition("\n\n")
    opening, *lines = rest.split("\n")
    assert FENCE.fullmatch(opening)
    closing = opening.replace("<", "</")
    outside = "\n".join(lines[lines.index(closing) + 1 :])
    outside = outside.removesuffix("Grade the response from 1 (worst) to 5 (best) in: factual, style.")
    if outside.strip() or any(token in user for token in CHAT_TOKENS):
        return reply(5, 5)
    return reply(1, 1)


class Unfenced(OpenAIJudge):
    """As judges are often written."""

    def framed(self, response: str) -> str:
        return f"<response>\n{response}\n</response>"


def test_no_attack_gains_anything() -> None:
    import hashlib

    assert len(ATTACKS) >= 30
    digest = hashlib.sha256(BAD.encode()).hexdigest()[:16]
    texts = [f"{BAD}\n{attack}".replace("{digest}", digest) for attack in ATTACKS]
    with service(gullible) as url:
        baseline = score(judge(url), BAD)[0]
        assert [s.value for s in score(judge(url), *texts)] == [baseline.value] * len(texts)
        # The server does what it is told: without the fence some of them win.
        assert sum(s.value == 1.0 for s in score(judge(url, Unfenced), *texts)) >= 8


def test_a_null_entry_is_an_error_and_not_the_word_none() -> None:
    reward = OpenAIJudge("m", "said: {words}", {"a": 1}, api_key_env=None)
    of = replace(group("x"), prompt=Prompt(id="p", text="", reference={"words": None, "emotion": "sad"}))
    ((only,),) = reward.score_batch([of], RewardContext())
    assert "question: it names 'words', prompt 'p' has ['emotion']" in only.error
