"""Rewards by rule, for any task: an output's form, its answer against the reference, its length, its
repetitions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from unicodedata import normalize

from rlcore.errors import ConfigError, DataError
from rlcore.rewards.protocol import Reward, failed_scores
from rlcore.rewards.template import is_null
from rlcore.types import Completion, Group, Prompt, RewardContext, Score


def right_answers(prompt: Prompt, key: str) -> list[object]:
    """Returns the right answers that a prompt's reference holds at `key`: the value, or each of a list.

    Raises:
        DataError: there is no such entry, or it holds null or nothing.
    """
    if key not in prompt.reference:
        raise DataError(f"prompt {prompt.id!r} has no reference {key!r}; it has {sorted(prompt.reference)}")
    value = prompt.reference[key]
    rights = list(value) if isinstance(value, list | tuple) else [value]
    if not rights or any(map(is_null, rights)):
        raise DataError(f"prompt {prompt.id!r}: its reference {key!r} is null; no answer is right")
    return rights


class RegexFormat(Reward):
    """Gives 1 where the whole completion matches `pattern` (`.` matches line breaks too), else 0."""

    by_rule = True

    def __init__(self, pattern: str):
        self._pattern = _compile("pattern", pattern)

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(value=float(self._pattern.fullmatch(c.text) is not None)) for c in group.completions]


class TagFormat(Reward):
    """Gives 1 where the whole completion is these sections in this order, else 0.

    A section is `<tag>text</tag>`, once and with text in it. Nothing but white space may stand around them.
    """

    by_rule = True

    def __init__(self, tags: Sequence[str]):
        if not tags or not all(re.fullmatch(r"\w+", tag) for tag in tags):
            raise ConfigError(f"tags: got {tags!r}, must be a list of words, for instance [think, answer]")
        markers = "|".join(f"</?{tag}>" for tag in tags)
        body = rf"\s*(?!\s)(?:(?!{markers}).)+"  # begins with text, and holds no tag of the schema
        self._pattern = _compile("tags", r"\s*".join(["", *(f"<{t}>{body}</{t}>" for t in tags), ""]))

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(float(self._pattern.fullmatch(c.text) is not None)) for c in group.completions]


class ExactMatch(Reward):
    """Gives 1 where the answer inside a completion is the reference's, else 0.

    Case, surrounding white space and the Unicode form (NFC or NFD) do not count.

    Args:
        key: the entry of the prompt's `reference` that holds the right answer, or a list of right ones; null
            is an error.
        extract: regular expression whose first group is the answer; the last match in the completion counts.
            A completion without a match is wrong.
        aliases: right answer to the other spellings that are read as it.
    """

    by_rule = True

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
        try:
            rights = [str(right) for right in right_answers(group.prompt, self._key)]
        except DataError as error:
            return failed_scores(group, str(error))
        answers = [self._answer(completion.text) for completion in group.completions]
        return [
            Score(float(answer is not None and any(self._is_right(answer, right) for right in rights)))
            for answer in answers
        ]

    def _answer(self, text: str) -> str | None:
        matches = [match for match in self._extract.finditer(text) if match[1]]
        return matches[-1][1] if matches else None

    def _is_right(self, answer: str, right: str) -> bool:
        return self._read(answer) == self._read(right)

    def _read(self, answer: str) -> str:
        folded = _fold(answer)
        return self._canonical.get(folded, folded)


class RegexMatch(ExactMatch):
    """Gives 1 where the answer inside a completion matches the reference's regular expression, else 0.

    The whole answer must match; case and surrounding white space do not count. Arguments are as in
    `ExactMatch`.
    """

    def __init__(self, key: str, extract: str = r"(?s)(.*)"):
        super().__init__(key, extract)

    def _is_right(self, answer: str, right: str) -> bool:
        pattern, said = normalize("NFC", right), normalize("NFC", answer.strip())
        return re.fullmatch(pattern, said, re.DOTALL | re.IGNORECASE) is not None


class Length(Reward):
    """Gives 1 to lengths from `minimum` to `maximum`, falling in a line to 0 over `slack` on either side.

    Args:
        unit: `tokens` or `words`.
    """

    def __init__(self, maximum: int, minimum: int = 0, slack: int = 0, unit: str = "tokens"):
        if not 0 <= minimum <= maximum or slack < 0:
            raise ConfigError(
                f"minimum, maximum, slack: got {minimum}, {maximum}, {slack}; want 0 <= min <= max"
            )
        if unit not in ("tokens", "words"):
            raise ConfigError(f"unit: got {unit!r}, must be tokens or words")
        self._minimum, self._maximum, self._slack, self._unit = minimum, maximum, slack, unit

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(self._value(completion)) for completion in group.completions]

    def _value(self, completion: Completion) -> float:
        length = completion.num_sampled if self._unit == "tokens" else len(completion.text.split())
        outside = max(self._minimum - length, length - self._maximum, 0)
        return max(0.0, 1 - outside / (self._slack + 1))


class Repetition(Reward):
    """Gives the share of word n-grams that do not repeat an earlier one (distinct-n, Li et al. 2016).

    The share is 1 where nothing is said twice. A text of fewer than n words has no n-gram to repeat.

    Args:
        n: words in an n-gram; case does not count.
    """

    def __init__(self, n: int = 3):
        if n < 1:
            raise ConfigError(f"n: got {n}, must be at least 1")
        self._n = n

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        return [Score(self._distinct(completion.text)) for completion in group.completions]

    def _distinct(self, text: str) -> float:
        words = text.casefold().split()
        ngrams = [tuple(words[i : i + self._n]) for i in range(len(words) - self._n + 1)]
        return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def _fold(text: str) -> str:
    return normalize("NFC", text.strip().casefold())


def _compile(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{name}: {pattern!r} is not a regular expression: {error}") from error
