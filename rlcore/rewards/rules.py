"""Rewards by rule, for any task: the whole output matches a pattern; an extracted answer equals the
reference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlcore.errors import ConfigError
from rlcore.rewards.base import Reward
from rlcore.types import Group, RewardContext, Score


class RegexFormat(Reward):
    """1 where the whole completion matches `pattern` (`.` matches line breaks too), else 0."""

    def __init__(self, pattern: str):
        self._pattern = _compile("pattern", pattern)

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(value=float(self._pattern.fullmatch(c.text) is not None)) for c in group.completions]


class ExactMatch(Reward):
    """1 where the answer inside a completion is the reference's, else 0. Case and surrounding white space
    do not count.

    Args:
        key: the entry of the prompt's `reference` that holds the right answer.
        extract: regular expression whose first group is the answer; the last match in the completion counts.
            A completion without a match is wrong.
        aliases: right answer to the other spellings that are read as it.
    """

    def __init__(
        self, key: str, extract: str = r"(?s)(.*)", aliases: Mapping[str, Sequence[str]] | None = None
    ):
        self._key = key
        self._extract = _compile("extract", extract)
        if self._extract.groups < 1:
            raise ConfigError(
                f"extract: {extract!r} has no group; put the answer in brackets, as in <a>(.*?)</a>"
            )
        self._canonical = {
            _fold(spelling): _fold(right)
            for right, others in (aliases or {}).items()
            for spelling in (right, *others)
        }

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        if self._key not in group.prompt.reference:
            known = sorted(group.prompt.reference)
            error = f"prompt {group.prompt.id!r} has no reference {self._key!r}; it has {known}"
            return [Score(value=0.0, error=error) for _ in group.completions]
        right = self._read(str(group.prompt.reference[self._key]))
        return [Score(value=float(self._answer(c.text) == right)) for c in group.completions]

    def _answer(self, text: str) -> str | None:
        matches = [match for match in self._extract.finditer(text) if match[1]]
        return self._read(matches[-1][1]) if matches else None

    def _read(self, answer: str) -> str:
        folded = _fold(answer)
        return self._canonical.get(folded, folded)


def _fold(text: str) -> str:
    return text.strip().casefold()


def _compile(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{name}: {pattern!r} is not a regular expression: {error}") from error
