"""Clients under proxies of the environment, against a real HTTP server of this machine."""

from __future__ import annotations

import pytest
from local_service import service

from rlcore.endpoints.chat import ChatEndpoint
from rlcore.endpoints.client import open_client
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
