"""A run's metrics on Ray's metrics endpoint, where Prometheus finds them beside the cluster's own;
cluster/grafana/rlcore.json draws them. This module knows names and numbers, not what a metric means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ray.util.metrics import Gauge


def series(metric: str) -> tuple[str, str]:
    """Returns the name and label of a metric in Prometheus: `seconds/rollout` is
    `rlcore_seconds{name="rollout"}`."""
    family, _, name = metric.partition("/")
    return "rlcore_" + re.sub(r"\W", "_", family), name


class RayMetrics:
    """Gauges of one run, labelled `run` and `name`. Ray prefixes `ray_`, adds labels of its own, and exports
    the gauges about every ten seconds."""

    def __init__(self, run: str):
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sets the gauges to the latest values; NaN and infinity are left out."""
        for metric, value in {"step": float(step), **metrics}.items():
            if math.isfinite(value):
                family, name = series(metric)
                if family not in self._gauges:
                    text = f"{metric.partition('/')[0]} of the latest step (docs/guides/runs.md)"
                    self._gauges[family] = Gauge(family, description=text, tag_keys=("run", "name"))
                self._gauges[family].set(value, tags={"run": self._run, "name": name})
