"""Clients under proxies of the environment, against a real HTTP server of this machine."""

from __future__ import annotations

import httpx
import pytest
from local_service import raw_service, service

from rlcore.endpoints.chat import ChatEndpoint
from rlcore.endpoints.client import open_client, post, read_json
from rlcore.errors import ConfigError
from rlcore.rewards.http_service import HTTPReward

PROXIES = ["socks5://127.0.0.1:9", "socks://127.0.0.1:9", "http://127.0.0.1:port", "http://127.0.0.1:9"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("proxy", PROXIES)
def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with service(lambda *_: (200, {}, "here")) as url:
        assert open_client(url, timeout_s=5).post(url, json={}).text == "here"


@pytest.mark.parametrize("proxy", PROXIES[:3])
def test_a_proxy_that_cannot_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    for client in (ChatEndpoint, HTTPReward):
        settings = {"api_key_env": None} if client is ChatEndpoint else {}
        with pytest.raises(
            ConfigError, match=r"https://judge.test/.* a proxy that cannot be used .*NO_PROXY"
        ):
            client("https://judge.test/v1", **settings)
    monkeypatch.setenv("NO_PROXY", "other.test, .test")
    HTTPReward("https://judge.test/v1")
    assert "pip install 'httpx[socks]'" in _refusal(monkeypatch)


def _refusal(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(ConfigError) as refused:
        HTTPReward("https://judge.test/v1")
    return str(refused.value)


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_a_drip_of_bytes_meets_the_deadline_of_the_whole() -> None:
    """Each read is quick, and there are a thousand of them."""
    slow = pytest.raises(httpx.ReadTimeout, match=r"the answer was not whole after 0\.2 s")
    with raw_service(lambda: [HEAD, *[b" "] * 1000], pause_s=0.02) as url, slow:
        post(open_client(url, timeout_s=0.2), url, {})


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlcore.endpoints.client.MAX_BYTES", 1 << 20)
    huge = pytest.raises(ValueError, match="answered more than 1 MiB")
    with raw_service(lambda: [HEAD, *[b"x" * (1 << 16)] * 1000], pause_s=0) as url, huge:
        post(open_client(url, timeout_s=5), url, {})


@pytest.mark.parametrize("charset", ["base64", "rot13", "nonsense", "utf-16"])
def test_a_charset_that_is_none_is_passed_over(charset: str) -> None:
    head = f"HTTP/1.1 500 X\r\nContent-Type: text/html; charset={charset}\r\nConnection: close\r\n\r\n"
    with raw_service(lambda: [head.encode() + b"busy"]) as url:
        assert post(open_client(url, timeout_s=5), url, {}).text == "busy"


def test_json_that_is_nested_too_deeply_is_no_answer() -> None:
    deep = pytest.raises(ValueError, match="nested too deeply")
    with raw_service(lambda: [HEAD + b"[" * 100_000]) as url, deep:
        read_json(post(open_client(url, timeout_s=5), url, {}))
