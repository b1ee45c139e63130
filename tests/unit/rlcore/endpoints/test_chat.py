"""The client of chat endpoints against a real HTTP server. Keys and pace are tried with the judge."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from local_service import service

from rlcore.endpoints.chat import ChatEndpoint, Usage, content_of, usage_of
from rlcore.errors import ConfigError

pytestmark = pytest.mark.slow

USAGE = {"prompt_tokens": 7, "completion_tokens": 1}
OK = 200, {}, json.dumps({"choices": [{"message": {"content": "yes"}}], "usage": USAGE})
BODY = {"model": "m", "messages": []}


def endpoint(url: str, **settings) -> ChatEndpoint:
    return ChatEndpoint(f"{url}/v1/", **{"api_key_env": None, **settings})


def test_a_refusal_is_repeated_after_the_pause_that_was_asked_for():
    answers = [(503, {"Retry-After": "0.2"}, ""), (429, {"Retry-After": "0"}, ""), OK]
    paths = []

    def answer(path, headers, body):
        paths.append(path)
        return answers[len(paths) - 1]

    with service(answer) as url:
        began = time.monotonic()
        assert endpoint(url).ask(BODY, content_of) == "yes"
        assert time.monotonic() - began > 0.2
    assert paths == ["/v1/chat/completions"] * 3


@pytest.mark.parametrize(("repeat_unknown", "requests"), [(True, 2), (False, 1)])
def test_what_may_have_been_paid_for_is_repeated_only_where_allowed(monkeypatch, repeat_unknown, requests):
    monkeypatch.setattr("rlcore.endpoints.chat._FIRST_PAUSE_S", 0.02)
    asked = []

    def slow(path, headers, body):
        asked.append(body)
        time.sleep(2.0)
        return OK

    with service(slow) as url:
        client = endpoint(url, retries=1, timeout_s=1.0, repeat_unknown=repeat_unknown)
        with pytest.raises(httpx.ReadTimeout):
            client.ask(BODY, content_of)
    assert len(asked) == requests
    with service(lambda *_: (asked.append(1), (200, {}, '{"choices": []}'))[1]) as url:
        client = endpoint(url, retries=1, repeat_unknown=repeat_unknown)
        with pytest.raises(ValueError, match="no completion"):
            client.ask(BODY, content_of)
    assert len(asked) == 2 * requests


@pytest.mark.parametrize("status", [408, 504, 524])
@pytest.mark.parametrize(("repeat_unknown", "requests"), [(True, 3), (False, 2)])
def test_a_time_out_on_the_way_is_no_refusal(monkeypatch, status, repeat_unknown, requests):
    monkeypatch.setattr("rlcore.endpoints.chat._FIRST_PAUSE_S", 0.02)
    answers = [(503, {}, ""), (status, {}, "upstream"), (status, {}, "upstream")]
    with service(lambda *_: answers.pop(0)) as url:
        client = endpoint(url, retries=2, repeat_unknown=repeat_unknown)
        with pytest.raises(TimeoutError, match=f"answered {status}: upstream"):
            client.ask(BODY, content_of)
    assert len(answers) == 3 - requests


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.PoolTimeout, httpx.ProxyError])
def test_what_was_never_sent_may_be_repeated(monkeypatch, error):
    monkeypatch.setattr("rlcore.endpoints.chat._FIRST_PAUSE_S", 0.02)
    send, failures = httpx.Client.send, [error("busy")]

    def send_later(client, *args, **settings):
        if failures:
            raise failures.pop()
        return send(client, *args, **settings)

    monkeypatch.setattr(httpx.Client, "send", send_later)
    with service(lambda *_: OK) as url:
        assert endpoint(url, retries=1, repeat_unknown=False).ask(BODY, content_of) == "yes"
    assert not failures


UPSTREAM = {"error": {"code": 502, "message": "upstream overloaded"}, "choices": None}


@pytest.mark.parametrize(
    "inside",
    [
        *(UPSTREAM, {"error": "overloaded"}, {"error": {"code": "server_overloaded", "message": "later"}}),
        *({"object": "error", "message": "later", "code": 503}, {"error": {"code": "429"}, "choices": []}),
    ],
)
def test_an_error_inside_an_answer_is_repeated_as_its_status_says(monkeypatch, inside):
    monkeypatch.setattr("rlcore.endpoints.chat._FIRST_PAUSE_S", 0.02)
    answers = [(200, {}, json.dumps(inside)), OK]
    with service(lambda *_: answers.pop(0)) as url:
        # Nothing was made, so nothing was paid for: it is a refusal.
        assert endpoint(url, retries=1, repeat_unknown=False).ask(BODY, content_of) == "yes"


@pytest.mark.parametrize(
    ("inside", "error"),
    [
        ({"error": {"code": 401, "message": "no such user"}}, RuntimeError),
        ({"error": {"code": 504, "message": "upstream"}}, TimeoutError),
        # Tokens were made.
        ({"error": {"code": 502}, "choices": [{"message": {"content": None}}]}, ValueError),
    ],
)
def test_an_error_inside_an_answer_is_told_and_not_always_repeated(inside, error):
    asked = []
    with (
        service(lambda *_: (asked.append(1), (200, {}, json.dumps(inside)))[1]) as url,
        pytest.raises(error, match="message"),
    ):
        endpoint(url, retries=3, repeat_unknown=False).ask(BODY, content_of)
    assert asked == [1]


def test_an_error_holds_no_part_of_the_key(monkeypatch):
    monkeypatch.setenv("CHAT_KEY", "sk-s3cret")
    with (
        service(lambda *_: (401, {}, "x" * 495 + "sk-s3cret")) as url,
        pytest.raises(RuntimeError, match=r"answered 401: x{495}\[secr$"),
    ):
        endpoint(url, api_key_env="CHAT_KEY").ask(BODY, content_of)


def test_text_can_be_written_as_utf_8():
    answer = json.loads(r'{"choices": [{"message": {"content": "abc \ud83d, \ud83d\ude00"}}]}')
    assert content_of(answer) == "abc \ufffd, \U0001f600"


def test_tokens_and_what_they_cost():
    with service(lambda *_: OK) as url:
        client = endpoint(url, price={"input": 2.0, "output": 10.0})
        assert client.ask(BODY, usage_of) == Usage(7, 1)
    assert client.cost(Usage(1000, 100)) == pytest.approx(0.003)
    with pytest.raises(ConfigError, match=r"price: got \['out'\]; allowed are input, output"):
        endpoint("http://localhost", price={"out": 1.0})
    with pytest.raises(ConfigError, match=r"price.input: got nan, must be 0 or more"):
        endpoint("http://localhost", price={"input": float("nan")})
    with pytest.raises(ValueError, match="no text"):
        content_of({"choices": [{"message": {"content": None}}]})


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, {"prompt_tokens": 7}, {"prompt_tokens": None, "completion_tokens": None}),
        *({"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 7, "completion_tokens": -1}),
        *(
            {"prompt_tokens": 1e300, "completion_tokens": 1},
            {"prompt_tokens": 7, "completion_tokens": 10**300},
        ),
        *({"total_tokens": 1500}, {"prompt_tokens": {}, "completion_tokens": 1}),
    ],
)
def test_an_endpoint_that_does_not_count_tokens_tells_no_usage(usage):
    assert usage_of({"usage": usage}) is None


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("timeout_s", (0, -1, float("nan"), float("inf"), 1e30)),
        ("requests_per_minute", (0, -1, float("nan"))),
        ("retries", (-1,)),
    ],
)
def test_limits_that_no_request_can_keep_are_refused(key, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"{key}: got {re.escape(str(value))}, must be"):
            endpoint("http://localhost", **{key: value})


def test_a_usage_that_is_no_record_is_refused():
    with pytest.raises(ValueError, match="no usage: many"):
        usage_of({"usage": "many"})
