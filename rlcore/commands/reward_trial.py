"""Runs one reward in its actors, without a run, and prints what comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from rlcore.actors.reward_pool import RewardPool, open_pool
from rlcore.actors.session import ray_session
from rlcore.config import ClusterConfig, RewardConfig
from rlcore.errors import DataError
from rlcore.records.files import write_rows
from rlcore.rewards.check import Finding, check_reward
from rlcore.rewards.samples import read_groups
from rlcore.types import Group, RewardContext


def check(config: RewardConfig, groups: Sequence[Group]) -> bool:
    """Prints a line for each finding on a reward that scores `groups` (at least one), and returns whether all
    are good."""
    all_ok = True
    # A cache would answer in the place of the reward.
    with _pool(replace(config, cache="none")) as (pool, seconds):
        (record, *_) = pool.call("ready", timeout_s=60)
        package = f"{record['package']} {record['version']}" if record["package"] else "no installed package"
        print(f"{record['target']} ({package}, sha256 {str(record['sha256'])[:12]})")
        _show(
            Finding("starts", True, f"built from pickled settings in a process of its own in {seconds:.1f} s")
        )
        for finding in check_reward(pool, groups, timeout_s=config.timeout_s):
            _show(finding)
            all_ok = all_ok and finding.ok
        # What was tried again got its scores: without this line nobody would know what it cost.
        for reason, count in pool.lost_calls.items():
            all_ok = False
            _show(Finding("lost calls", False, f"{count}: {reason}"))
        if pool.lost_calls:
            return False  # what its actors held has gone with them
        memory = [mib for mib in pool.call("gpu_memory", timeout_s=60) if mib is not None]
        used = ", ".join(f"{mib:.0f} MiB" for mib in memory)
        _show(Finding("GPU memory", True, used or "none used by torch in its process"))
    return all_ok


def score(config: RewardConfig, *, samples: str, out: str | None) -> bool:
    """Scores a finished run and returns whether every completion got a score.

    Args:
        out: file for JSON lines of step, split, prompt, sample and score; None: only the summary is printed.
    """
    recorded = read_groups(samples)
    if not recorded:
        raise DataError(f"{samples}: it holds no samples")
    with _pool(config) as (pool, _):
        scores = pool.score([group for _, group in recorded], RewardContext())
    rows = [
        {
            **{name: first[name] for name in ("step", "split", "prompt", "policy_version")},
            "sample": k,
            **({"error": each.error} if each.error else {"value": each.value, "parts": dict(each.parts)}),
        }
        for (first, _), row in zip(recorded, scores, strict=True)
        for k, each in enumerate(row)
    ]
    if out is not None:
        write_rows(out, rows)
    return _summarise(rows)


def _summarise(rows: list[dict[str, Any]]) -> bool:
    made = np.array([row["value"] for row in rows if "value" in row])
    failed = [row for row in rows if "error" in row]
    print(f"{len(rows)} completions, {len(failed)} failed")
    if made.size:
        print(f"value: mean {made.mean():.4g}, std {made.std():.4g}, {made.min():.4g} to {made.max():.4g}")
    for part in sorted({part for row in rows for part in row.get("parts", {})}):
        print(f"{part}: mean {np.mean([r['parts'][part] for r in rows if part in r.get('parts', {})]):.4g}")
    if failed:
        first = failed[0]
        print(
            f"the first failure: completion {first['sample']} of prompt {first['prompt']!r}: {first['error']}"
        )
    return not failed


@contextmanager
def _pool(config: RewardConfig) -> Iterator[tuple[RewardPool, float]]:
    """The reward's actors, and the seconds that they took to start."""
    cluster = ClusterConfig()
    with ray_session(cluster):
        began = time.perf_counter()
        placement_s, startup_s = cluster.placement_timeout_s, cluster.startup_timeout_s
        with open_pool(
            config.target, config, placement_timeout_s=placement_s, startup_timeout_s=startup_s
        ) as pool:
            yield pool, time.perf_counter() - began


def _show(finding: Finding) -> None:
    print(f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.name:<21}{finding.detail}", flush=True)
