"""Rewards by a service: groups go out as JSON, scores come back. docs/guides/rewards.md has the schema."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx

from rlcore.endpoints.client import LOOPBACK, open_client, post, read_json
from rlcore.endpoints.secrets import read_secret, redact
from rlcore.errors import ConfigError
from rlcore.rewards.protocol import Reward
from rlcore.types import Group, RewardContext, Score

SCHEMA_VERSION = 1


class HTTPReward(Reward):
    """Posts the groups of every call to `url` and reads their scores. Certificates are verified.

    Args:
        url: `https://...`; plain `http` is allowed to this machine, and elsewhere where no token is sent.
        token_env: environment variable of the actor's process whose value goes out as a bearer token.
        ca_file: certificates to trust instead of the system's, for a service with one of its own.
        timeout_s: deadline of one request.

    Raises:
        ConfigError: a token would travel unencrypted or is not in the environment, or the environment's proxy
            cannot be used.
    """

    def __init__(
        self, url: str, token_env: str | None = None, ca_file: str | None = None, timeout_s: float = 60.0
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url: got {url!r}, must be an http or https address")
        if parts.username or parts.password:
            raise ConfigError("url: it holds a password; put a token into the environment and name token_env")
        if token_env and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigError(f"url: got {url!r} with a token; it would travel unencrypted, use https")
        self._url, self._token = url, read_secret(token_env) if token_env else None
        self._client = open_client(
            url,
            timeout_s=timeout_s,
            verify=ssl.create_default_context(cafile=ca_file),
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
        )

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        return self.score_batch([group], context)[0]

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        try:
            answer = post(self._client, self._url, request_of(groups, context))
        except httpx.RequestError as error:
            # Without its cause: a log of the whole chain would show what is redacted here.
            reason = redact(f"{type(error).__name__}: {error}", [self._token])
            raise RuntimeError(f"{self._url}: {reason}") from None
        text = redact(answer.text, [self._token])
        if not answer.is_success:
            raise RuntimeError(f"{self._url} answered {answer.status_code}: {text[:500]}")
        try:
            body = read_json(answer)
        except ValueError as error:
            raise ValueError(f"{self._url} answered no JSON ({error}): {text[:200] or '(nothing)'}") from None
        rows = body.get("scores") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise ValueError(f"{self._url} answered no `scores`, a list of lists: {text[:200]}")
        return [[_read(score, self._token) for score in row] for row in rows]


def request_of(groups: Sequence[Group], context: RewardContext) -> dict[str, object]:
    """Returns the body of a request, as JSON-ready values."""
    return {
        "version": SCHEMA_VERSION,
        "step": context.step,
        "num_steps": context.num_steps,
        "groups": [
            {
                "prompt": {
                    "id": group.prompt.id,
                    "text": group.prompt.text,
                    "media": _plain(group.prompt.media),
                    "reference": _plain(group.prompt.reference),
                },
                "completions": [
                    {"text": c.text, "num_tokens": c.num_sampled, "finish_reason": c.finish_reason}
                    for c in group.completions
                ],
            }
            for group in groups
        ],
    }


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """What JSON can say: arrays are left out, paths are sent as they are."""
    return {name: value for name, value in values.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, (str, int, float, bool))


def _read(score: object, token: str | None) -> Score:
    if not isinstance(score, dict) or not {"value", "error"} & set(score):
        reason = f"the service answered {score!r} where {{value, parts, error}} is due"
        return Score(0.0, error=redact(reason, [token]))
    error = redact(str(score.get("error") or ""), [token])  # an empty one is none
    value = 0.0 if error else score.get("value", float("nan"))
    return Score(value, parts=score.get("parts") or {}, error=error or None)
