"""Generates EmotionCoT: a language model writes a reasoning trace for each annotated utterance; rules check
it.

    out/requests.jsonl     every request and answer, as it happens; a later run pays for none of them again
    out/manifest.jsonl     the utterances whose trace passed, with the trace
    out/rejected.jsonl     id, attempt, reasons and text of every trace that did not
    out/statistics.json    counts, words, tokens, cost

The last three follow from the first: a run that finds every answer there asks for nothing and writes the
other files again, with other checks where the configuration has changed. Of utterances that a run is not
given, or gets no answer for, the folder keeps what it holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from emotion_task.cot.checks import check_trace
from emotion_task.cot.earlier import Earlier, trace_of
from emotion_task.cot.ledger import KILLED, Budget, Ledger, Row
from emotion_task.cot.request import trace_messages, unfit
from emotion_task.cot.statistics import describe
from emotion_task.records import Utterance, write_manifest
from rlcore.config.io import check
from rlcore.endpoints.chat import ChatEndpoint, Usage, check_limits, content_of, never_sent, usage_of
from rlcore.errors import DataError, RLCoreError
from rlcore.records.files import write_json, write_rows
from rlcore.records.progress import Progress

OPENAI = "https://api.openai.com/v1"
_NO_ANSWER = ("refused", "lost", "budget")
"""Reasons for which an utterance has no trace, and no answer that could tell."""


class EndpointError(RLCoreError, RuntimeError):
    """Raised when too many requests in a row got no answer from the endpoint."""


@dataclass(frozen=True, kw_only=True)
class CotConfig:
    """Configures how traces are asked for, checked and paid for."""

    model: str
    """Name of the model, as the endpoint knows it."""
    base_url: str = OPENAI
    """Address of any OpenAI-compatible endpoint, with `/v1`; for a local `vllm serve`,
    http://localhost:8000/v1."""
    api_key_env: str | None = None
    """Environment variable that holds the key. None means OPENAI_API_KEY at OpenAI, and no key elsewhere."""
    concurrency: int = 16
    """Number of requests at once."""
    requests_per_minute: float | None = None
    retries: int = 5
    """Number of times a request is repeated that was refused for a while or met a server error. A request
    that timed out, here or on the way (408, 504), is not repeated: its answer may have been paid for."""
    timeout_s: float = 120.0
    """Timeout of one request, in seconds."""
    attempts: int = 2
    """Most traces asked for per utterance until one passes the checks; each is a request of its own."""
    price: Mapping[str, float] = field(default_factory=dict)
    """US dollars for a million `input` and `output` tokens."""
    max_usd: float | None = None
    """Cap on the folder's whole cost, in US dollars: no request is sent that could exceed it. The cap needs
    both prices and a limit of tokens."""
    min_words: int = 50
    max_words: int = 200
    max_tokens: int = 600
    """Most tokens of one answer."""
    temperature: float = 0.9
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request; null removes a field (`max_tokens: null` where an endpoint refuses
    it)."""
    ask_lost: bool = False
    """True asks again for answers that were lost: under way when an earlier run was killed, timed out, or no
    JSON. These may be paid twice."""

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        is_http = address.scheme in ("http", "https") and bool(address.hostname)
        check(
            is_http, "base_url", self.base_url, "an http or https address, such as http://localhost:8000/v1"
        )
        for name in ("concurrency", "attempts", "min_words", "max_tokens"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check_limits(self.retries, self.timeout_s)
        check(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more")
        for name in ("max_tokens", "max_completion_tokens", "n"):
            value = self.extra.get(name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            check(value is None or is_count, f"extra.{name}", value, "a whole number of at least 1, or null")
        check(
            not self.extra.get("stream"), "extra.stream", self.extra.get("stream"), "false: answers are whole"
        )
        check(_is_json(self.extra), "extra", self.extra, "JSON, which has no NaN and no infinity")
        check(self.max_words >= self.min_words, "max_words", self.max_words, "at least min_words")
        if self.max_usd is not None:
            check(self.max_usd >= 0, "max_usd", self.max_usd, "0 or more, or null")
            is_priced = {"input", "output"} <= set(self.price)
            check(is_priced, "max_usd", self.max_usd, "null without `price` of input and output")
            is_limited = self.extra.get("max_tokens", self.max_tokens) or self.extra.get(
                "max_completion_tokens"
            )
            allowed = "null where extra.max_tokens is null and extra.max_completion_tokens is not given"
            check(bool(is_limited), "max_usd", self.max_usd, allowed)

    @property
    def key_variable(self) -> str | None:
        return self.api_key_env or ("OPENAI_API_KEY" if self.base_url == OPENAI else None)


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class CotReport:
    """Counts the folder's utterances: each has a trace, or is counted under one reason in `left_out`."""

    manifest: Path
    num_utterances: int
    """Number of utterances of this run, and of those that earlier runs were given and decided."""
    num_accepted: int
    """Number of traces in the manifest."""
    num_kept: int
    """Number of those that are an earlier run's, of utterances that this run was not given or got no answer
    for."""
    num_requests: int
    """Number of requests that this run sent."""
    no_answer: str | None
    """Reason of the last failure where none of this run's requests got an answer; else None."""
    left_out: dict[str, int]
    """Number of utterances without a trace by reason: the kind of the last attempt's first failed check,
    `refused`, `lost`, `budget`, or `unfit`."""
    cost_usd: float
    """Cost of the folder in US dollars, all runs together, as far as prices are given."""
    lost: dict[str, int]
    """Number of the folder's lost answers by the reason of their loss."""
    num_uncounted: int
    """Number of the folder's answers whose tokens the endpoint did not count; the cost holds what was set
    aside for each, which is the most that the answer can have cost."""


class _Rejected(TypedDict):
    """Holds a line of rejected.jsonl."""

    id: str
    attempt: int
    reasons: list[str]
    text: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    utterance: Utterance
    """The utterance, with its trace where one passed."""
    left_out: str | None
    rejected: tuple[_Rejected, ...] = ()


def generate(
    utterances: Sequence[Utterance], out_folder: str | Path, config: CotConfig, *, progress: bool = True
) -> CotReport:
    """Asks for the traces that the folder does not hold yet, checks all traces, and writes the data set.

    Args:
        utterances: annotated utterances; those without an emotion or a measured voice are left out.
        out_folder: folder of the module's four files.
        progress: whether a progress bar is shown.

    Raises:
        ConfigError: There is no key in the environment, or a setting is out of range.
        DataError: Two utterances share an id, or another run writes the folder.
        EndpointError: The endpoint refuses everything; what was answered before is kept.
    """
    _check_ids(utterances)
    out = Path(out_folder)
    ledger = Ledger(out / "requests.jsonl")
    try:
        writer = _Writer(config, ledger)
        bar = Progress(total=len(utterances), desc="traces", unit="trace", disable=not progress)
        with ThreadPoolExecutor(config.concurrency) as pool, bar:
            futures = [pool.submit(writer.outcome, utterance) for utterance in utterances]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BaseException:
                # What is under way is let finish: it is paid for.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return _write(out, [future.result() for future in futures], writer, ledger)
    finally:
        ledger.close()


def _check_ids(utterances: Iterable[Utterance]) -> None:
    twice = [id for id, count in Counter(u.id for u in utterances).items() if count > 1]
    if twice:
        raise DataError(f"the manifest has {len(twice)} ids more than once: {', '.join(twice[:10])}")


def _write(out: Path, outcomes: Sequence[_Outcome], writer: _Writer, ledger: Ledger) -> CotReport:
    earlier = Earlier.read(out, ledger)
    found = [_or_earlier(each, earlier.traces.get(each.utterance.id), writer.config) for each in outcomes]
    others = earlier.without({each.utterance.id for each in outcomes})
    accepted = [each.utterance for each in found if each.left_out is None] + list(others.traces.values())
    rejected = [row for each in found for row in each.rejected] + others.rejected
    left_out = Counter(each.left_out for each in found if each.left_out is not None) + others.left_out()
    num_new = sum(each.left_out is None for each in outcomes)
    write_manifest(out / "manifest.jsonl", accepted)
    write_rows(out / "rejected.jsonl", rejected)
    answers = ledger.answers.values()
    report = CotReport(
        manifest=out / "manifest.jsonl",
        num_utterances=len(accepted) + left_out.total(),
        num_accepted=len(accepted),
        num_kept=len(accepted) - num_new,
        num_requests=writer.num_requests,
        no_answer=writer.no_answer,
        left_out=dict(left_out.most_common()),
        cost_usd=sum(row["cost_usd"] for row in answers),
        lost=dict(Counter(row.get("reason", KILLED) for row in ledger.open.values()).most_common()),
        num_uncounted=sum(row["prompt_tokens"] is None for row in answers),
    )
    statistics = {
        "model": writer.config.model,
        "num_utterances": report.num_utterances,
        "left_out": report.left_out,
        "rejected_traces": _by_kind(rejected),
        "prompt_tokens": sum(row["prompt_tokens"] or 0 for row in answers),
        "completion_tokens": sum(row["completion_tokens"] or 0 for row in answers),
        "num_uncounted": report.num_uncounted,
        "cost_usd": report.cost_usd,
        **describe(accepted),
    }
    write_json(out / "statistics.json", statistics)
    return report


def _or_earlier(outcome: _Outcome, earlier: Utterance | None, config: CotConfig) -> _Outcome:
    """Returns the outcome, or in the place of none the trace that an earlier run left: where this run got no
    answer, or where that trace passes this run's checks."""
    if outcome.left_out is None or earlier is None or earlier.trace is None:
        return outcome
    if outcome.left_out in _NO_ANSWER:
        return replace(outcome, utterance=earlier, left_out=None)
    bounds = {"min_words": config.min_words, "max_words": config.max_words}
    if check_trace(earlier.trace, outcome.utterance, **bounds):
        return outcome
    return replace(outcome, utterance=replace(outcome.utterance, trace=earlier.trace), left_out=None)


def _by_kind(rejected: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Counts the rejected traces by kind of check; a trace may count under several kinds."""
    kinds = ({reason.split(":")[0] for reason in row["reasons"]} for row in rejected)
    return dict(Counter(kind for each in kinds for kind in each).most_common())


class _Writer:
    """Asks for traces, from many threads."""

    def __init__(self, config: CotConfig, ledger: Ledger):
        self.config, self._ledger = config, ledger
        self._endpoint = ChatEndpoint(
            config.base_url,
            api_key_env=config.key_variable,
            requests_per_minute=config.requests_per_minute,
            retries=config.retries,
            repeat_unknown=False,
            timeout_s=config.timeout_s,
            price=config.price,
        )
        self._budget = Budget(config.max_usd, ledger.spent())
        self._lost = frozenset() if config.ask_lost else frozenset(ledger.open)
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self.num_requests = 0
        self.no_answer: str | None = None

    def outcome(self, utterance: Utterance) -> _Outcome:
        """Asks for one utterance's traces and returns the first that passes, or why there is none."""
        if unfit(utterance):
            return _Outcome(utterance, "unfit")
        rejected: list[_Rejected] = []
        left_out = ""
        for attempt in range(self.config.attempts):
            answer = self._answer(self._body(utterance, attempt), utterance.id, attempt)
            if isinstance(answer, str):
                left_out = answer
                break
            text = trace_of(answer["text"])
            reasons = check_trace(
                text, utterance, min_words=self.config.min_words, max_words=self.config.max_words
            )
            if not reasons:
                return _Outcome(replace(utterance, trace=text), None, tuple(rejected))
            rejected.append({"id": utterance.id, "attempt": attempt, "reasons": reasons, "text": text})
            left_out = reasons[0].split(":")[0]
        return _Outcome(utterance, left_out, tuple(rejected))

    def _body(self, utterance: Utterance, attempt: int) -> dict[str, Any]:
        config = self.config
        messages = trace_messages(
            utterance, min_words=config.min_words, max_words=config.max_words, seed=config.seed
        )
        body = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            # Attempts must differ, also at an endpoint that answers the same to the same.
            "seed": config.seed + attempt,
            **config.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _answer(self, body: dict[str, Any], id: str, attempt: int) -> Row | str:
        """Returns the ledger's line of the answer, found or new, or why there is none."""
        import httpx

        described = json.dumps([id, attempt, body], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(described.encode()).hexdigest()[:32]
        if key in self._ledger.answers:
            return self._ledger.answers[key]
        if key in self._lost:
            return "lost"
        # No tokenizer makes more tokens than there are bytes.
        most_tokens = max(body.get(name, 0) for name in ("max_tokens", "max_completion_tokens"))
        most_tokens = (most_tokens or self.config.max_tokens) * body.get("n", 1)
        at_most = self._endpoint.cost(Usage(len(described.encode()), most_tokens))
        if not self._budget.reserve(at_most):
            return "budget"
        self._ledger.write(key, "asked", id=id, at_most_usd=at_most)
        try:
            text, usage = self._endpoint.ask(body, lambda answer: (content_of(answer), usage_of(answer)))
        except RuntimeError as error:
            return self._refused(key, at_most, error)
        except never_sent() as error:
            return self._refused(key, at_most, error)
        except (TimeoutError, ValueError, httpx.RequestError) as error:
            reason = self._endpoint.redact(f"{type(error).__name__}: {error}")[:500]
            self._ledger.write(key, "lost", reason=reason)
            self._count(reason, answered=False)
            return "lost"
        # Unknown is not free: the answer may have cost all that was set aside for it.
        cost = at_most if usage is None else self._endpoint.cost(usage)
        self._budget.settle(at_most, cost)
        self._count("", answered=True)
        return self._ledger.write(
            key,
            "answered",
            id=id,
            text=text,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            cost_usd=cost,
        )

    def _refused(self, key: str, at_most: float, error: Exception) -> str:
        reason = self._endpoint.redact(f"{type(error).__name__}: {error}")[:500]
        self._ledger.write(key, "refused", reason=reason)
        self._budget.settle(at_most, 0.0)
        self._count(reason, answered=False)
        return "refused"

    def _count(self, reason: str, *, answered: bool) -> None:
        """Counts a request, and raises EndpointError after too many in a row without an answer."""
        with self._lock:
            self.num_requests += 1
            self._failed_in_a_row = 0 if answered else self._failed_in_a_row + 1
            self.no_answer = reason if self._failed_in_a_row == self.num_requests else None
            if self._failed_in_a_row > 2 * self.config.concurrency:
                raise EndpointError(
                    f"{self._endpoint.url}: {self._failed_in_a_row} requests in a row got no answer; "
                    f"the last: {reason}. What was answered is kept, and the same command goes on."
                )
