"""The charts of a page: metrics under their headings. One that no chart names is drawn under "More"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from rlcore.records.files import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart shows one metric over the steps, a line for each run."""

    section: str
    pattern: str
    """Pattern of metrics, as `fnmatch` reads it; each metric that matches has a chart of its own."""
    title: str = ""
    """Title; by default the metric's name without what all names of the pattern begin with."""
    unit: str = ""
    kind: str = "line"
    """`line`, `step` (keeps its value until the next one) or `dots` (few values, joined)."""
    log: bool = False
    but_not: str = ""


CHARTS = (
    Chart(section="Held-out", pattern="eval/*", kind="dots", but_not="eval/*/*"),
    Chart(section="Rewards", pattern="reward/mean", title="mixed reward"),
    Chart(section="Rewards", pattern="reward/*", but_not="reward/*/*"),
    Chart(section="Trust and gate", pattern="ptr/gate", title="gate on the reasoning reward", kind="step"),
    Chart(section="Trust and gate", pattern="ptr/tau", title="trust weight \u03c4, mean"),
    Chart(section="Policy", pattern="kl", title="KL to the reference", unit="nats per token"),
    Chart(section="Policy", pattern="entropy", title="entropy", unit="nats per token"),
    Chart(section="Policy", pattern="grad_norm", title="gradient norm"),
    Chart(section="Policy", pattern="clip_fraction", title="clipped share of tokens"),
    Chart(section="Policy", pattern="loss"),
    Chart(section="Policy", pattern="lr", title="learning rate"),
    Chart(section="Answers", pattern="completion/tokens", title="tokens per answer"),
    Chart(section="Answers", pattern="completion/truncated", title="share cut at the token limit"),
    Chart(section="Answers", pattern="groups_without_signal", title="groups without signal"),
    Chart(
        section="Rollout against learner", pattern="logprob_*diff", unit="|\u0394 log-probability|", log=True
    ),
    Chart(section="Rollout against learner", pattern="staleness/mean", title="staleness", unit="versions"),
    Chart(section="Speed", pattern="seconds/*", unit="s per step"),
    Chart(section="Speed", pattern="tokens_per_second", title="learner", unit="tokens per second"),
    Chart(section="Parts of rewards", pattern="reward/*/*"),
    Chart(section="Parts of rewards", pattern="eval/*/*", kind="dots"),
)
_NO_CURVES = ("step", "time", "policy_version", "reward/masked", "skipped_steps")
"""Metrics that are counters, or have a place of their own."""


def charts_of(metrics: Iterable[str]) -> list[JsonObject]:
    """Returns the charts of a run's metrics, in the order in which a page shows them."""
    left = [name for name in metrics if name not in _NO_CURVES]
    found: list[JsonObject] = []
    for chart in CHARTS:
        matching = [name for name in left if _is_of(name, chart)]
        left = [name for name in left if name not in matching]
        found += _drawn(chart, matching)
    return found + list(_drawn(Chart(section="More", pattern="*"), sorted(left)))


def _is_of(name: str, chart: Chart) -> bool:
    return fnmatchcase(name, chart.pattern) and not (chart.but_not and fnmatchcase(name, chart.but_not))


def _drawn(chart: Chart, names: Iterable[str]) -> Iterator[JsonObject]:
    prefix = chart.pattern.split("*")[0] if chart.pattern.endswith("*") else ""
    for name in names:
        title = chart.title or name.removeprefix(prefix if prefix.endswith("/") else "").replace("_", " ")
        kept = {key: value for key, value in asdict(chart).items() if key not in ("pattern", "but_not")}
        yield {**kept, "metric": name, "title": title}
