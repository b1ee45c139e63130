from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest
from local_service import service

from rlcore.actors.reward_worker import RewardWorker
from rlcore.config import RewardConfig
from rlcore.errors import ConfigError
from rlcore.rewards.http_service import HTTPReward
from rlcore.types import Completion, Group, Prompt, RewardContext

pytestmark = pytest.mark.slow


def group(*texts: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1, 2), logprobs=(0.0, 0.0), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    media = {"audio": "a.wav", "wave": np.zeros(3)}
    prompt = Prompt(id="p", text="question", media=media, reference={"label": "sad", "stress": ["no"]})
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


def worker(url: str, **args) -> RewardWorker:
    return RewardWorker(
        "remote", RewardConfig(target="rlcore.rewards.http_service:HTTPReward", args={"url": url, **args})
    )


def test_the_documented_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "t0ken")
    seen: list = []

    def answer(path, headers, body):
        seen.append((path, headers.get("authorization"), body))
        rows = [
            [{"value": 0.5, "parts": {"length": len(c["text"])}}, {"error": "too short"}]
            for g in body["groups"]
            for c in g["completions"][:1]
        ]
        return 200, {}, json.dumps({"scores": rows})

    with service(answer) as url:
        reward = worker(f"{url}/score", token_env="REWARD_TOKEN")
        scores = reward.score([group("abc", "x"), group("", "y")], RewardContext(step=4, num_steps=9))
    assert [[(s.value, s.error) for s in row] for row in scores] == [[(0.5, None), (0.0, "too short")]] * 2
    assert [row[0].parts for row in scores] == [{"length": 3}, {"length": 0}]
    ((path, authorization, body),) = seen
    assert (path, authorization) == ("/score", "Bearer t0ken")
    assert body["groups"][0] == {
        "prompt": {
            "id": "p",
            "text": "question",
            "media": {"audio": "a.wav"},
            "reference": {"label": "sad", "stress": ["no"]},
        },
        "completions": [
            {"text": "abc", "num_tokens": 2, "finish_reason": "stop"},
            {"text": "x", "num_tokens": 2, "finish_reason": "stop"},
        ],
    }
    assert {k: v for k, v in body.items() if k != "groups"} == {"version": 1, "step": 4, "num_steps": 9}


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (500, "out of memory", "answered 500: out of memory"),
        (403, "bad token t0ken", "answered 403: bad token [secret]"),
        (403, "x" * 497 + "t0ken", "xx[se"),
        (200, '{"bad token": "t0ken"}', 'a list of lists: {"bad token": "[secret]"}'),
        (200, '{"scores": [[{"error": "bad token t0ken"}, {"value": 1}]]}', "bad token [secret]"),
        (200, '{"scores": [["bad token t0ken", {"value": 1}]]}', "answered 'bad token [secret]' where"),
        (200, '{"scores": [[{"value": NaN, "error": ""}, {"value": 1}]]}', "value is nan"),
        (200, '{"score": 1}', "answered no `scores`"),
        (200, '{"scores": [[{"value": NaN}, {"value": 1}]]}', "value is nan"),
        (200, '{"scores": [[{"value": 1}]]}', "returned 1 scores for 2 completions"),
        (200, '{"scores": [[{"parts": {}}, {"value": 1}]]}', "where {value, parts, error} is due"),
        (200, '{"scores": []}', "returned 0 lists for 1 groups"),
        (200, "<html>", "answered no JSON (Expecting value: line 1 column 1 (char 0)): <html>"),
    ],
)
def test_what_a_service_gets_wrong_is_named(
    status: int, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "t0ken")
    with service(lambda *_: (status, {}, text)) as url:
        (row,) = worker(url, token_env="REWARD_TOKEN").score([group("a", "b")], RewardContext())
    assert message in (row[0].error or "") and "t0ken" not in (row[0].error or "")


def test_what_no_file_could_hold_costs_its_completion_alone() -> None:
    answer = (
        '{"scores": [[{"error": "\\ud800 went wrong"}, {"value": %s}, {"value": 1, "parts": [1]}, '
        '{"value": 1, "parts": {"\\ud800": 1}}]]}' % (10**400)
    )
    with service(lambda *_: (200, {}, answer)) as url:
        (row,) = worker(url).score([group("a", "b", "c", "d")], RewardContext())
    assert row[0].error == "? went wrong"
    assert "must be a finite number" in (row[1].error or "") and "must be a mapping" in (row[2].error or "")
    assert (row[3].error, row[3].parts) == (None, {"?": 1.0})


@pytest.mark.parametrize("error", ['""', "null"])
def test_an_empty_error_is_none(error: str) -> None:
    with service(lambda *_: (200, {}, f'{{"scores": [[{{"value": 0.5, "error": {error}}}]]}}')) as url:
        ((score,),) = worker(url).score([group("a")], RewardContext())
    assert (score.value, score.error) == (0.5, None)


def test_a_broken_exchange_holds_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "t0ken\n")

    def answer(path, headers, body):
        return 200, {"no header": headers["authorization"]}, "{}"

    with service(answer) as url:
        rows = worker(url, token_env="REWARD_TOKEN").score([group("a"), group("b")], RewardContext())
    for (score,) in rows:
        assert f"{url}: RemoteProtocolError" in (score.error or "") and "[secret]" in (score.error or "")
    assert "t0ken" not in f"{rows}{caplog.text}" and "RemoteProtocolError" in caplog.text


def test_certificates_are_verified(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=60)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with service(lambda *_: (200, {}, '{"scores": [[{"value": 1}]]}'), tls=tls) as url:
        ((known,),) = worker(url, ca_file=str(certificate)).score([group("a")], RewardContext())
        ((stranger,),) = worker(url).score([group("a")], RewardContext())
    assert known.value == 1 and known.error is None
    assert "CERTIFICATE_VERIFY_FAILED" in (stranger.error or "")


def test_tokens_do_not_travel_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "t0ken")
    with pytest.raises(ConfigError, match="it would travel unencrypted, use https"):
        HTTPReward("http://judge.example/score", token_env="REWARD_TOKEN")
    with pytest.raises(ConfigError, match="put a token into the environment"):
        HTTPReward("https://me:pass@judge.example/score")
    with pytest.raises(ConfigError, match="must be an http or https address"):
        HTTPReward("judge.example/score")
    with pytest.raises(ConfigError, match="REWARD_TOKEN_2 is not set"):
        HTTPReward("https://judge.example", token_env="REWARD_TOKEN_2")
