"""Splits by speaker, for corpora whose owner gives no split or another one: no speaker is in two parts."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_SETTING = "split_by_speaker"
_PARTS: dict[int, tuple[str | None, ...]] = {2: ("train", "eval"), 3: ("train", None, "eval")}
"""Splits by the number of fractions: the part between is for choosing and is in neither split."""


def parse_fractions(value: object) -> tuple[float, ...]:
    """Returns the fractions of `0.8/0.2` or `0.8/0.1/0.1` (train, what neither split holds, eval), or of a
    list of such numbers.

    Raises:
        ConfigError: not two or three numbers above 0 that sum to 1.
    """
    parts = value.split("/") if isinstance(value, str) else value
    try:
        fractions = tuple(float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        fractions = ()
    if len(fractions) not in _PARTS or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise ConfigError(
            f"{_SETTING}: got {value!r}; it is two or three shares above 0 that sum to 1, such as "
            "0.8/0.2 (train, eval) or 0.8/0.1/0.1 (train, held back, eval)"
        )
    return fractions


def split_by_speaker(utterances: Sequence[Utterance], fractions: Sequence[float]) -> list[Utterance]:
    """Returns the utterances in new splits, in their order. A speaker's are all in one part.

    Each part's share of the utterances is as near to its fraction as whole speakers allow: first that of
    eval, then that of the part between. The result depends on the speakers and how often each speaks, not on
    the order. Who has no name is in neither split, because it may be anyone.

    Args:
        fractions: as `parse_fractions` returns them.

    Raises:
        DataError: fewer speakers than parts.
    """
    sizes = Counter(u.speaker for u in utterances if u.speaker is not None)
    parts = _PARTS[len(fractions)]
    if len(sizes) < len(parts):
        raise DataError(
            f"{_SETTING}: {len(sizes)} speakers for {len(parts)} parts; name the speakers (column `speaker`)"
        )
    if nameless := sum(u.speaker is None for u in utterances):
        log.warning("%d utterances have no speaker: they are in neither split", nameless)
    total = sizes.total()
    left: dict[str, int] = dict(sorted(sizes.items(), key=lambda item: _rank(str(item[0]))))  # type: ignore[arg-type]
    split: dict[str | None, str | None] = {}
    for remaining, (part, fraction) in reversed(list(enumerate(zip(parts, fractions, strict=True)))):
        chosen = _nearest(left, fraction * total, most=len(left) - remaining) if remaining else list(left)
        split |= dict.fromkeys(chosen, part)
        left = {speaker: size for speaker, size in left.items() if speaker not in chosen}
    return [replace(u, split=split.get(u.speaker)) for u in utterances]


def _rank(speaker: str) -> bytes:
    """Orders speakers by nothing that their names tell, such as gender or language."""
    return hashlib.sha256(speaker.encode("utf-8", "surrogatepass")).digest()


def _nearest(sizes: Mapping[str, int], target: float, *, most: int) -> list[str]:
    """Returns at least one and at most `most` speakers whose sizes sum to what is nearest to `target`.

    The subset-sum problem, by dynamic programming: the fewest speakers that make each sum.
    """
    names, counts = list(sizes), list(sizes.values())
    cap = max(2 * int(target) + 2, min(counts) + 1)  # beyond this, one speaker alone is nearer
    fewest = np.full(cap + 1, len(counts) + 1, dtype=np.int32)
    fewest[0] = 0
    taken = []
    for count in counts:
        with_count = np.full_like(fewest, len(counts) + 1)
        with_count[count:] = fewest[: max(0, cap + 1 - count)] + 1
        taken.append(np.packbits(with_count < fewest))
        fewest = np.minimum(fewest, with_count)
    sums = np.flatnonzero((fewest > 0) & (fewest <= most))
    rest = int(sums[np.argmin(np.abs(sums - target))])
    chosen = []
    for name, count, bits in zip(reversed(names), reversed(counts), reversed(taken), strict=True):
        if bits[rest // 8] >> (7 - rest % 8) & 1:
            chosen.append(name)
            rest -= count
    return chosen
