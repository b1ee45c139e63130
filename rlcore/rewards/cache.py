"""Remembers scores by content: what was scored once in a run is not scored again."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from rlcore.records.digest import update_digest
from rlcore.types import Completion, Group, Score

logger = logging.getLogger(__name__)

MAX_ENTRIES = 200_000
"""Number of completions that are remembered; the longest unused go first."""

ScoreGroups = Callable[[list[Group]], list[list[Score]]]


class ScoreCache:
    """Keeps the scores of completions, but no failures.

    The key is the prompt (text, media, reference) and the completion's tokens and text; with `by_group` the
    tokens and texts of all completions of the group. A prompt whose content cannot be compared is scored anew
    each time, and the log says so once.

    Args:
        by_group: for rewards that compare a group's completions with each other.
    """

    def __init__(self, *, by_group: bool):
        self._by_group = by_group
        self._scores: OrderedDict[bytes, Score] = OrderedDict()
        self._lock = threading.Lock()
        self._has_warned = False

    def score(self, groups: Sequence[Group], score_groups: ScoreGroups) -> list[list[Score]]:
        """Returns scores [G][K], asking `score_groups` only for groups, or completions of groups, that are
        new."""
        keys = [self._keys(group) for group in groups]
        with self._lock:
            known = [[self._recall(key) for key in row] for row in keys]
        missing = [[k for k, score in enumerate(row) if score is None] for row in known]
        asked = [
            replace(group, completions=tuple(group.completions[k] for k in ks))
            for group, ks in zip(groups, missing, strict=True)
            if ks
        ]
        answers = iter(score_groups(asked) if asked else [])
        with self._lock:
            for row_keys, row, ks in zip(keys, known, missing, strict=True):
                for k, score in zip(ks, next(answers) if ks else [], strict=True):
                    row[k], key = score, row_keys[k]
                    if score.error is None and key is not None:
                        self._scores[key] = score
            while len(self._scores) > MAX_ENTRIES:
                self._scores.popitem(last=False)
        return [[score for score in row if score is not None] for row in known]

    def _recall(self, key: bytes | None) -> Score | None:
        if key is None or key not in self._scores:
            return None
        self._scores.move_to_end(key)
        return self._scores[key]

    def _keys(self, group: Group) -> Sequence[bytes | None]:
        prompt = group.prompt
        shared = hashlib.sha256()
        try:
            update_digest(shared, [prompt.text, dict(prompt.media), dict(prompt.reference)])
        except TypeError as error:
            if not self._has_warned:
                logger.warning("prompt %r: its scores are not cached: %s", prompt.id, error)
            self._has_warned = True
            return [None] * len(group.completions)
        if self._by_group:
            update_digest(shared, [_content(completion) for completion in group.completions])
        keys = []
        for k, completion in enumerate(group.completions):
            own = shared.copy()
            update_digest(own, k if self._by_group else _content(completion))
            keys.append(own.digest())
        return keys


def _content(completion: Completion) -> tuple[object, ...]:
    return completion.text, completion.token_ids, completion.finish_reason
