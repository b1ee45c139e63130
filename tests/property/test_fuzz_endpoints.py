"""Answers as endpoints break them: each is a text or a score that the service did write, or an error with its
reason, within the deadline."""

from __future__ import annotations

import copy
import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_service import raw_service
from trees import places

from rlcore.actors.reward_worker import checked_scores
from rlcore.endpoints.chat import ChatEndpoint, content_of, usage_of
from rlcore.rewards.http_service import HTTPReward
from rlcore.rewards.judge import OpenAIJudge
from rlcore.types import Completion, Group, Prompt, RewardContext

TIMEOUT_S = 2.0
GRADES = {"clear": 4, "true": 5}
GROUP = Group(
    prompt=Prompt(id="p", text="hi"),
    prompt_token_ids=(1,),
    completions=tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in ("one", "two")
    ),
)
CONTEXT = RewardContext(step=0, num_steps=1)

CHAT = {
    "id": "x",
    "object": "chat.completion",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(GRADES)}}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
SERVICE = {"scores": [[{"value": 0.25, "parts": {"a": 1.0}}, {"value": 0.75, "error": None}]]}

VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        0.5,
        7,
        10**400,
        float("nan"),
        float("inf"),
        "",
        "x",
        "0.5",
        "4",
        "\ud800",
        "null",
    ),
    *(
        [],
        [[]],
        {},
        {"error": "busy"},
        {"value": None},
        {"code": 429},
        {"code": "9" * 5000},
        [{"value": True}],
    ),
    *('{"clear": 4}', '{"clear": 6, "true": 5}', '{"clear": "4", "true": 5}', '{"clear": 4, "true": 5.0}'),
    *('{"clear": true, "true": 5}', '{"clear": 4, "true": 5, "more": 1}', "```json\n{}\n```", "[" * 3000),
    *('{"clear": 1, "clear": 5, "true": 5}',),
)
WRITTEN = (0.25, 0.75, *(v for v in VALUES if isinstance(v, int | float) and not isinstance(v, bool)))
"""Values that the service may have written for a score."""
HEADERS = (
    *(
        "Content-Type: application/json",
        "Content-Type: text/html; charset=utf-16",
        "Content-Type: x; charset=base64",
    ),
    *(
        "Content-Type: application/json; charset=nonsense",
        "Content-Type: ;;;=",
        "Retry-After: nan",
        "X: \xff",
    ),
    *(
        "Content-Encoding: gzip",
        "Content-Encoding: br",
        "Content-Encoding: deflate",
        "Transfer-Encoding: chunked",
    ),
    *("Content-Length: 5", "Content-Length: 999999", "Content-Length: -1", "Location: http://127.0.0.1:1/"),
)
STATUSES = ("200 OK",) * 12 + (
    "204 None",
    "206 Part",
    "302 Found",
    "400 Bad",
    "429 Slow",
    "500 X",
    "503 Y",
    "999 Z",
    "abc",
    "",
)
BODIES = (
    b"",
    b"<html>busy</html>",
    b"null",
    b"[]",
    b"{}",
    b"NaN",
    b"[" * 100_000,
    b"\xff\xfe{\x00}\x00",
    b'{"choices": []}',
    b'{"error": {"code": 503}}',
    b'"error"',
    b"0",
    b'{"a":' * 50_000,
    b"\x1f\x8b\x00",
)


@st.composite
def trees(draw: st.DrawFn, tree: Any) -> bytes:
    """Draws the answer with entries that are dropped, replaced or added, and then cut or changed in bytes."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(0, 2))):
        *to_parent, name = draw(st.sampled_from(list(places(tree)) or [("none",)]))
        parent = tree
        for step in to_parent:
            parent = parent[step]
        match draw(st.sampled_from(("drop", "replace", "replace", "add"))):
            case "drop" if name != "none":
                del parent[name]
            case "replace":
                parent[name] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            case "add":
                name = draw(st.sampled_from(("error", "object", "usage", "choices", "scores")))
                tree[name] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    data = json.dumps(tree).encode()
    match draw(st.sampled_from(("whole", "whole", "whole", "whole", "cut", "put in", "utf-16", "twice"))):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "put in":
            at = draw(st.integers(0, len(data)))
            data = (
                data[:at]
                + draw(st.sampled_from((b"\x00", b"\xff", b"\xed\xa0\x80", b"NaN", b"}", b'"')))
                + data[at:]
            )
        case "utf-16":
            data = data.decode().encode("utf-16")
        case "twice":
            data *= 2
    return data


@st.composite
def answers(draw: st.DrawFn, tree: Any) -> list[bytes]:
    """Draws an answer as it goes over the wire, in pieces that come one after the other."""
    body = draw(st.one_of(trees(tree), trees(tree), trees(tree), st.sampled_from(BODIES)))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2))
    if draw(st.booleans()) and "Content-Encoding: gzip" in headers:
        body = gzip.compress(body)
    if not any(header.startswith(("Content-Length", "Transfer")) for header in headers) and draw(
        st.booleans()
    ):
        headers.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"HTTP/1.1 {draw(st.sampled_from(STATUSES))}", *headers, "Connection: close", "", ""])
    data = head.encode("latin-1") + body
    at = draw(st.integers(0, len(data)))
    return draw(st.sampled_from(([data], [data], [data[:at], data[at:]], [data[:at]])))


class Served(NamedTuple):
    """What answers, and who asks."""

    now: list[bytes]
    """Pieces of the next answer."""
    endpoint: ChatEndpoint
    judge: OpenAIJudge
    reward: HTTPReward


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    now: list[bytes] = []
    with raw_service(lambda: list(now)) as url:
        settings: dict[str, Any] = {"api_key_env": None, "retries": 0, "timeout_s": TIMEOUT_S}
        yield Served(
            now,
            ChatEndpoint(f"{url}/v1", **settings),
            OpenAIJudge("m", "Grade.", dict.fromkeys(GRADES, 1.0), base_url=f"{url}/v1", **settings),
            HTTPReward(f"{url}/score", timeout_s=TIMEOUT_S),
        )


@contextmanager
def in_time() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10 * TIMEOUT_S


@given(pieces=answers(CHAT))
@settings(max_examples=300)
def test_a_chat_answer_is_its_text_or_an_error(served: Served, pieces: list[bytes]) -> None:
    served.now[:] = pieces
    with in_time():
        try:
            text, usage = served.endpoint.ask(
                {"model": "m", "messages": []}, lambda answer: (content_of(answer), usage_of(answer))
            )
        except (RuntimeError, TimeoutError, ValueError, httpx.RequestError) as error:
            assert type(error) is not RecursionError and str(error)
            return
    assert b"".join(pieces).startswith(b"HTTP/1.1 2")
    assert isinstance(text, str) and text.encode() is not None
    assert usage is None or (usage.prompt_tokens >= 1 and usage.completion_tokens >= 1)


@given(pieces=answers(CHAT))
@settings(max_examples=300)
def test_a_judge_grades_as_it_answered_or_says_why_not(served: Served, pieces: list[bytes]) -> None:
    served.now[:] = pieces
    with in_time():
        (row,) = served.judge.score_batch([GROUP], CONTEXT)
    for score in checked_scores(GROUP, row):
        if score.error is None:
            assert score.value == pytest.approx(0.9)
            assert {name: score.parts[name] for name in GRADES} == GRADES
        else:
            assert score.value == 0 and len(score.error) > 10


@given(pieces=answers(SERVICE))
@settings(max_examples=300)
def test_a_service_scores_as_it_answered_or_says_why_not(served: Served, pieces: list[bytes]) -> None:
    served.now[:] = pieces
    with in_time():
        try:
            (row,) = served.reward.score_batch([GROUP], CONTEXT)
        except (RuntimeError, ValueError) as error:
            assert type(error) is not RecursionError and str(error)
            return
    for score in checked_scores(GROUP, row):
        assert score.error or score.value in WRITTEN
