"""The service's figures for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class ServeMetrics:
    """Counts requests and times answers, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "emotion_requests", "Answered requests", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "emotion_request_seconds",
            "Seconds from a recording's arrival to its answer, refusals included",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._waiting = Gauge(
            "emotion_requests_waiting", "Recordings that are worked on or wait", registry=self._registry
        )
        self._audio = Counter("emotion_audio_seconds", "Seconds of explained audio", registry=self._registry)
        self._tokens = Counter("emotion_tokens", "Tokens of answers", registry=self._registry)
        self._labels = Counter("emotion_labels", "Answers by label", ("label",), registry=self._registry)
        self._claims = Counter("emotion_claims", "Claims by verdict", ("verdict",), registry=self._registry)

    def count(self, path: str, status: int) -> None:
        """Counts an answered request."""
        self._requests.labels(path, str(status)).inc()

    def time(self, seconds: float) -> None:
        """Adds the time that a recording's request took."""
        self._seconds.observe(seconds)

    def waiting(self, number: int) -> None:
        """Sets the number of recordings that are there now."""
        self._waiting.set(number)

    def explained(self, explained: dict[str, Any]) -> None:
        """Counts what an explanation holds."""
        self._audio.inc((explained["measured"] or {}).get("duration_s", 0.0))
        self._tokens.inc(explained["tokens"]["completion"])
        self._labels.labels(explained["label"] or "none").inc()
        for claim in explained["claims"]:
            self._claims.labels(claim["verdict"]).inc()

    def page(self) -> tuple[bytes, str]:
        """Returns the figures as Prometheus reads them, and their content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
