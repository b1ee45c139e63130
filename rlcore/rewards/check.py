"""Tries a reward on real groups before a run depends on it, and lists findings, each good or bad."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Protocol

import numpy as np

from rlcore.rewards.samples import completion_of
from rlcore.types import Group, RewardContext, Score

TOLERANCE = 1e-3
"""Two values closer than this are the same: what a GPU computes depends on how a batch was put together."""

BATCH_SIZES = (1, 8, 32)

ODD_ANSWERS = (
    "",
    " \n\t",
    "word " * 4000,
    "\x00\x1b[31m \ud7ff \U0001f600",
    "<think><think></answer>",
    "\uff15" * 50,
)


class Scorer(Protocol):
    """A scorer is a pool of reward actors, or anything that scores as one does."""

    def score(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding is one property of a reward, and whether it is as it should be."""

    name: str
    ok: bool
    detail: str


def check_reward(scorer: Scorer, groups: Sequence[Group], *, timeout_s: float) -> Iterator[Finding]:
    """Yields findings one after the other, the slow ones last.

    Args:
        groups: at least one, of recorded or generated completions.
        timeout_s: the reward's own deadline for one call.
    """
    context = RewardContext(step=0, num_steps=1)
    scores = scorer.score(groups, context)
    yield _scored(groups, scores)
    values = _values(scores)
    made = values[np.isfinite(values)]
    if not made.size:
        return  # nothing to compare
    constant = "; all are equal: such a reward teaches nothing" if made.size > 1 and not np.ptp(made) else ""
    span = f"{made.min():.4g} to {made.max():.4g}, mean {made.mean():.4g}, std {made.std():.4g}{constant}"
    yield Finding("range", True, span)
    yield _same("deterministic", values, _values(scorer.score(groups, context)), "the same call again")
    mirrored = [replace(group, completions=group.completions[::-1]) for group in groups]
    turned = [row[::-1] for row in scorer.score(mirrored, context)]
    yield _same("order of completions", values, _values(turned), "each group turned around")
    turned = scorer.score(groups[::-1], context)[::-1]
    yield _same("order of groups", values, _values(turned), "the groups turned around")
    yield _alone(scorer, groups, values, context)
    yield _odd(scorer, groups[0], context)
    yield _bare(scorer, groups[0], context)
    yield from _speed(scorer, groups, context, timeout_s)


def _scored(groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> Finding:
    failed = [
        f"completion {k} of prompt {group.prompt.id!r}: {score.error}"
        for group, row in zip(groups, scores, strict=True)
        for k, score in enumerate(row)
        if score.error is not None
    ]
    count = sum(map(len, scores))
    if failed:
        return Finding("scores", False, f"{len(failed)} of {count} failed; the first: {failed[0]}")
    return Finding("scores", True, f"{count} finite scores for {count} completions of {len(groups)} groups")


def _values(scores: Sequence[Sequence[Score]]) -> np.ndarray:
    """All values in a row, with those of their tokens; NaN for what failed."""
    rows = [score for row in scores for score in row]
    of_tokens = [sum(s.token_values.values()) + sum(s.token_advantages) for s in rows]
    values = zip(rows, of_tokens, strict=True)
    return np.array([nan if s.error is not None else s.value + extra for s, extra in values])


def _same(name: str, values: np.ndarray, again: np.ndarray, what: str) -> Finding:
    difference = _difference(values, again)
    return Finding(name, difference <= TOLERANCE, f"{what}: largest difference {difference:.2g}")


def _difference(values: np.ndarray, again: np.ndarray) -> float:
    """Infinite where one of two failed."""
    if (np.isfinite(values) != np.isfinite(again)).any():
        return float("inf")
    return float(np.nanmax(np.abs(values - again), initial=0.0))


def _alone(scorer: Scorer, groups: Sequence[Group], values: np.ndarray, context: RewardContext) -> Finding:
    """No fault either way, but the cache's setting follows from it."""
    single = [replace(group, completions=(c,)) for group in groups for c in group.completions]
    difference = _difference(values, _values(scorer.score(single, context)))
    if difference <= TOLERANCE:
        return Finding(
            "alone", True, "a completion scores the same without its group: `cache: completion` is safe"
        )
    reason = f"differs by {difference:.2g} from its group: if at all, `cache: group`"
    return Finding("alone", True, f"a completion alone {reason}")


def _odd(scorer: Scorer, group: Group, context: RewardContext) -> Finding:
    """What a policy writes sooner or later."""
    odd = replace(group, completions=tuple(completion_of(text) for text in ODD_ANSWERS))
    (row,) = scorer.score([odd], context)
    failed = [f"{ODD_ANSWERS[k][:12]!r}: {s.error}" for k, s in enumerate(row) if s.error is not None]
    if not failed:
        return Finding(
            "odd answers", True, "empty, blank, very long, unprintable and broken answers are scored"
        )
    return Finding("odd answers", False, f"{len(failed)} of {len(row)} failed; the first: {failed[0]}")


def _bare(scorer: Scorer, group: Group, context: RewardContext) -> Finding:
    """A prompt without media and reference: an error is right, and so is a score; a dead actor is not."""
    bare = replace(group, prompt=replace(group.prompt, media={}, reference={}))
    ((first, *_),) = scorer.score([bare], context)
    if first.error is None:
        return Finding("bare prompt", True, "scored without media and reference")
    reason = first.error.splitlines()[0]
    lost = "timeout_s" in reason or "actor died" in reason
    return Finding("bare prompt", not lost, f"without media and reference: {reason}")


def _speed(
    scorer: Scorer, groups: Sequence[Group], context: RewardContext, timeout_s: float
) -> Iterator[Finding]:
    """Latency of a call and throughput, by groups in a call. Contents differ, so that no cache answers."""
    slowest = 0.0
    for size in BATCH_SIZES:
        batch = [_marked(groups[i % len(groups)], f"{size}.{i}") for i in range(size)]
        began = time.perf_counter()
        scores = scorer.score(batch, context)
        seconds = time.perf_counter() - began
        slowest = max(slowest, seconds)
        rate = sum(len(group.completions) for group in batch) / seconds
        scored = _scored(batch, scores)
        failed = "" if scored.ok else f"; {scored.detail}"
        detail = f"{1000 * seconds:.1f} ms, {rate:.4g} completions a second{failed}"
        yield Finding(f"batch of {size}", scored.ok, detail)
        if seconds > timeout_s / 2:
            break  # the next would only run into the deadline
    detail = f"slowest call {slowest:.3g} s, timeout_s is {timeout_s:g}"
    yield Finding("time", slowest <= timeout_s / 2, f"{detail}; at most half of it leaves room")


def _marked(group: Group, mark: str) -> Group:
    completions = (replace(c, text=f"{c.text} {mark}") for c in group.completions)
    return replace(group, completions=tuple(completions))
