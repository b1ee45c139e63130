"""Rewards for right answers by rule: a text after normalisation, a number, the letter of a choice.

What an answer states is found by `rlcore.rewards.extraction`: behind its thoughts, inside its answer tags.
"""

from __future__ import annotations

from math import isclose
from string import ascii_uppercase

from rlcore.errors import ConfigError, DataError
from rlcore.rewards.extraction import (
    choice_texts,
    final_part,
    plain_words,
    right_letter,
    stated_letter,
    stated_number,
)
from rlcore.rewards.protocol import Reward, failed_scores
from rlcore.rewards.rules import right_answers
from rlcore.types import Group, Prompt, RewardContext, Score


class _Right(Reward):
    """Gives 1 where a completion is right, else 0; an error where the reference cannot be read.

    Args:
        key: the entry of the prompt's `reference` that holds the right answer, or a list of right ones.
    """

    by_rule = True

    def __init__(self, key: str = "answer"):
        self._key = key

    def score(self, group: Group, context: RewardContext) -> list[Score]:
        try:
            rights = self._rights(group.prompt)
        except DataError as error:
            return failed_scores(group, str(error))
        answers = [self._stated(completion.text, group.prompt) for completion in group.completions]
        return [Score(float(a is not None and any(self._equal(a, r) for r in rights))) for a in answers]

    def _rights(self, prompt: Prompt) -> list[object]:
        return right_answers(prompt, self._key)

    def _stated(self, text: str, prompt: Prompt) -> object:
        raise NotImplementedError

    def _equal(self, answer: object, right: object) -> bool:
        return answer == right


class TextMatch(_Right):
    """Gives 1 where the answer is the reference's, or one of a list, after normalisation, else 0.

    Case, punctuation, English articles and white space do not count
    (`rlcore.rewards.extraction.plain_words`).
    """

    def _rights(self, prompt: Prompt) -> list[object]:
        return [plain_words(str(right)) for right in super()._rights(prompt)]

    def _stated(self, text: str, prompt: Prompt) -> str:
        return plain_words(final_part(text))


class NumberMatch(_Right):
    r"""Gives 1 where the last number of the answer is the reference's, within a tolerance, else 0.

    An answer in `\boxed{}`, behind `####` or in `<answer>` tags counts before the rest of the text, in the
    completion as in the reference: the solutions of GSM8K are references as they are.

    Args:
        key: the entry of the prompt's `reference` that holds the right number, or a text that states it.
        relative: tolerance as a share of the right number.
        absolute: tolerance as a number.
    """

    def __init__(self, key: str = "answer", relative: float = 1e-6, absolute: float = 0.0):
        super().__init__(key)
        if relative < 0 or absolute < 0:
            raise ConfigError(f"relative, absolute: got {relative}, {absolute}; must be 0 or more")
        self._relative, self._absolute = relative, absolute

    def _rights(self, prompt: Prompt) -> list[object]:
        numbers = []
        for right in super()._rights(prompt):
            if (number := stated_number(str(right))) is None:
                raise DataError(f"prompt {prompt.id!r}: its reference {self._key!r} is no number: {right!r}")
            numbers.append(number)
        return list(numbers)

    def _stated(self, text: str, prompt: Prompt) -> float | None:
        return stated_number(text)

    def _equal(self, answer: object, right: object) -> bool:
        assert isinstance(answer, float) and isinstance(right, float)
        # Of the right number alone: a huge answer is not nearer to it.
        return abs(answer - right) <= self._absolute + self._relative * abs(right) or isclose(
            answer, right, rel_tol=1e-12
        )


class MultipleChoice(_Right):
    """Gives 1 where the answer states the right choice, by its letter or its text, else 0.

    An answer that names several choices, or none, gets 0 (`rlcore.rewards.extraction.stated_letter`).

    Args:
        key: the entry of the prompt's `reference` that holds the right choice: its text, its letter, or its
            place from 0.
        choices: the entry that holds the choices' texts, the first being `A`. Where a prompt has none, the
            right answer must be a letter.
    """

    def __init__(self, key: str = "answer", choices: str = "choices"):
        super().__init__(key)
        self._choices = choices

    def _rights(self, prompt: Prompt) -> list[object]:
        rights, choices = super()._rights(prompt), prompt.reference.get(self._choices)
        if choices is not None:
            texts, labels = choice_texts(choices)
            known = list(ascii_uppercase[: len(texts)])
            # A letter is a letter, as in completions, also where a choice's text is another one.
            return [
                right if labels == known and right in known else right_letter(right, texts, labels)
                for right in rights
            ]
        letters = [str(right).strip(" ().").upper() for right in rights]
        for right, letter in zip(rights, letters, strict=True):
            if len(letter) != 1 or not letter.isalpha():
                raise DataError(
                    f"prompt {prompt.id!r}: its reference {self._key!r} is {right!r}, which is no letter, "
                    f"and it has no {self._choices!r}"
                )
        return list(letters)

    def _stated(self, text: str, prompt: Prompt) -> str | None:
        return stated_letter(text, self._texts(prompt))

    def _texts(self, prompt: Prompt) -> list[str] | None:
        choices = prompt.reference.get(self._choices)
        return None if choices is None else choice_texts(choices)[0]
