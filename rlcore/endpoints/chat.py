"""Chat completions of any OpenAI-compatible endpoint: pace, retries, secrets, tokens and what they cost.

Judges use this, and whatever else asks a language model over HTTP. A call blocks; callers that want many at
once call from threads. What is asked, and what an answer means, is not known here.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rlcore.endpoints.secrets import read_secret, redact
from rlcore.errors import ConfigError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_FIRST_PAUSE_S = 0.5
"""Seconds to wait before the second attempt; each further wait is twice as long."""

_WORTH_REPEATING = (408, 409, 429, 500, 502, 503, 504, 524)
_TIMED_OUT = (408, 504, 524)
"""Statuses of somebody on the way who gave up waiting; the model may have answered all the same."""
_PRICED = ("input", "output")
_MOST_TIMEOUT_S = 86400.0
"""Most seconds that a request may take: a day."""
_MOST_TOKENS = 10**9
"""More tokens than any model reads or writes: a count beyond is none."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one answer, as the endpoint counts them."""

    prompt_tokens: int
    completion_tokens: int


def check_limits(retries: int, timeout_s: float) -> None:
    """Refuses limits that no request could keep, before one is sent.

    Raises:
        ConfigError: a number of retries below 0, or a time-out that is not above 0 and at most a day.
    """
    if retries < 0:
        raise ConfigError(f"retries: got {retries}, must be 0 or more")
    if not 0 < timeout_s <= _MOST_TIMEOUT_S:
        raise ConfigError(
            f"timeout_s: got {timeout_s}, must be above 0 and at most {_MOST_TIMEOUT_S:g} seconds"
        )


class ChatEndpoint:
    """A chat endpoint, asked at a steady rate and again where that may help.

    Args:
        base_url: address of the endpoint, with `/v1`.
        api_key_env: environment variable that holds the key; null: none is sent.
        requests_per_minute: null: no limit.
        retries: of a request that was refused for a while (429), met a server error or nobody there, each
            after a growing pause or the one that the server asks for.
        repeat_unknown: retry as well where an answer may have been paid for: after a time-out, here or on
            the way (408, 504, 524), a broken connection, or an answer that `read` refuses.
        timeout_s: seconds that one request may take, at most a day.
        price: US dollars for a million `input` and `output` tokens.

    Raises:
        ConfigError: there is no key in the environment, or a proxy that cannot be used. `price` names
            anything else than `input` and `output`, or is negative. The rate is not positive, or
            `check_limits` refuses retries or time-out.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | None = "OPENAI_API_KEY",
        requests_per_minute: float | None = None,
        retries: int = 5,
        repeat_unknown: bool = True,
        timeout_s: float = 60.0,
        price: Mapping[str, float] | None = None,
    ):
        from rlcore.endpoints.client import open_client

        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self.price = dict(price or {})
        if not set(self.price) <= set(_PRICED):
            raise ConfigError(f"price: got {sorted(self.price)}; allowed are {', '.join(_PRICED)}")
        for kind, usd in self.price.items():
            if not 0 <= usd < math.inf:
                raise ConfigError(
                    f"price.{kind}: got {usd}, must be 0 or more US dollars for a million tokens"
                )
        check_limits(retries, timeout_s)
        self._secret = read_secret(api_key_env) if api_key_env else None
        headers = {"Authorization": f"Bearer {self._secret}"} if self._secret else {}
        self._client = open_client(self.url, timeout_s=timeout_s, headers=headers)
        self._attempts, self._pace = retries + 1, Pace(requests_per_minute)
        self._repeat_unknown = repeat_unknown

    def ask(self, body: Mapping[str, object], read: Callable[[Any], T]) -> T:
        """Sends a request and returns what `read` makes of the answer's JSON.

        Args:
            body: the request, with `model` and `messages`.
            read: raises ValueError for an answer that is worth asking for again.

        Raises:
            RuntimeError: the endpoint answered with an error, in its status or inside an answer.
            `never_sent()`: nobody is there, or the request could not be made.
            TimeoutError, ValueError, httpx.RequestError: an answer, if there was one, is lost.
        """
        import httpx

        from rlcore.endpoints.client import post

        failure: Exception = RuntimeError("never asked")
        for attempt in range(self._attempts):
            self._pace.wait()
            pause = min(30.0, _FIRST_PAUSE_S * 2**attempt)
            try:
                answer = post(self._client, self.url, body)
                status = answer.status_code
                if answer.is_success:
                    content = self._json(answer)
                    inside = _status_inside(content)
                    if inside is None:
                        return read(content)
                    status = inside
                reason = f"{self.url} answered {answer.status_code}: {self.redact(answer.text)[:500]}"
                is_unknown = status in _TIMED_OUT
                failure = TimeoutError(reason) if is_unknown else RuntimeError(reason)
                if status not in _WORTH_REPEATING or (is_unknown and not self._repeat_unknown):
                    break
                pause = _asked_pause(answer.headers.get("retry-after"), pause)
            except never_sent() as error:
                failure = error
            except (httpx.RequestError, ValueError) as error:
                failure = error
                if not self._repeat_unknown:
                    break
            if attempt + 1 < self._attempts:
                time.sleep(pause)
        raise failure

    def _json(self, answer: httpx.Response) -> Any:
        """Reads an answer; raises ValueError where it is no JSON, such as a proxy's page or half of one."""
        from rlcore.endpoints.client import read_json

        try:
            return read_json(answer)
        except ValueError as error:
            shown = self.redact(answer.text)[:200] or "(nothing)"
            raise ValueError(f"{self.url} answered no JSON ({error}): {shown}") from error

    def cost(self, usage: Usage) -> float:
        """Returns the US dollars that `usage` costs; what has no price costs 0."""
        spent = {"input": usage.prompt_tokens, "output": usage.completion_tokens}
        return sum(self.price.get(kind, 0.0) * tokens / 1e6 for kind, tokens in spent.items())

    def redact(self, text: str) -> str:
        """Returns `text` without the key."""
        return redact(text, [self._secret])


def _status_inside(answer: object) -> int | None:
    """Returns the status of an error that stands in place of a completion, or None where there is none.

    Routers answer 200 and an `error` where their upstream failed; some servers answer `object: error`. An
    error without a status passes for one of the server (500).
    """
    if not isinstance(answer, Mapping) or answer.get("choices"):
        return None  # tokens were made, and may have been paid for: `read` has the word
    error = answer if answer.get("object") == "error" else answer.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    is_status = str(code).isdecimal() and 400 <= int(str(code)) <= 599
    return int(str(code)) if is_status else 500


def never_sent() -> tuple[type[Exception], ...]:
    """Returns the errors that httpx raises before any of a request has reached the endpoint."""
    import httpx

    return (
        *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
        *(httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError),
    )


def content_of(answer: Any) -> str:
    """Returns the text of an answer's first choice.

    JSON can spell half of a surrogate pair, which no file in UTF-8 can hold: U+FFFD stands in its place.

    Raises:
        ValueError: the answer holds no text.
    """
    try:
        content = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError) as error:
        raise ValueError(f"the endpoint answered no completion: {str(answer)[:300]}") from error
    if not isinstance(content, str):
        raise ValueError(f"the endpoint answered no text: {str(answer)[:300]}")
    return _LONE_SURROGATE.sub("\ufffd", content)


def usage_of(answer: Any) -> Usage | None:
    """Returns the tokens that an answer counts, or None where it does not count both kinds.

    Every prompt and every completion has tokens: an endpoint that says 0, -1, null or 1e300 has not counted.

    Raises:
        ValueError: `usage` of the answer is no record.
    """
    usage = answer.get("usage") or {}
    if not isinstance(usage, Mapping):
        raise ValueError(f"the endpoint answered no usage: {str(usage)[:300]}")
    prompt, completion = (_count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
    return None if prompt is None or completion is None else Usage(prompt, completion)


def _count(value: object) -> int | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 1 <= value <= _MOST_TOKENS else None  # type: ignore[operator, call-overload]


def _asked_pause(retry_after: str | None, otherwise: float) -> float:
    """Returns the seconds of a Retry-After header; a date, which services may send too, is not waited for."""
    try:
        return min(120.0, max(0.0, float(retry_after or "")))
    except ValueError:
        return otherwise


class Pace:
    """Lets callers through at a steady rate; threads may share one."""

    def __init__(self, per_minute: float | None):
        if per_minute is not None and not per_minute > 0:  # NaN is not above 0 either
            raise ConfigError(f"requests_per_minute: got {per_minute}, must be above 0, or null")
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self) -> None:
        """Blocks until the caller's turn has come."""
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._seconds
        time.sleep(max(0.0, start - time.monotonic()))
