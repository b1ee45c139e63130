"""Reads from an answer how probable each label was.

The label of an answer is a few tokens behind `<answer>`. Where no two labels begin with the same token, the
probability of a label is that of its first token at that place, as the model had it when it wrote the answer:
the engine keeps these log-probabilities while it writes, at no cost. Else, and where the model wrote the
label otherwise than the labels are spelt, the whole answer is scored once for each label. Either way the
probabilities are those among the labels: they add up to 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from emotion_task.parsing import format_response
from rlcore.models.tokens import answer_text, left_to_write, tokens_of
from rlcore.types import Completion

_TAG = "<answer>"
_MOST_KEPT = 128
"""Tokens whose log-probabilities vLLM keeps, at most."""


class LabelOdds:
    """Reads the probabilities of a model's labels from its answers.

    Args:
        prompt: the chat-formatted question.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str, labels: Sequence[str]):
        self._tokenizer, self._labels = tokenizer, tuple(labels)
        wholes = [
            tokenizer.encode(self._written(prompt, "x", label), add_special_tokens=False) for label in labels
        ]
        at = _num_shared(wholes)
        firsts = tuple(token for whole in wholes for token in whole[at : at + 1])
        can_keep = len(set(firsts)) == len(labels) <= _MOST_KEPT
        self.token_ids = firsts if can_keep else ()
        """The labels' first tokens, whose log-probabilities the engine is to keep; empty where two are the
        same."""

    def kept(self, completion: Completion) -> dict[str, float] | None:
        """Returns the probabilities of an answer's labels from the log-probabilities that were kept as it was
        written; None where they do not tell."""
        if len(self._labels) == 1:
            return {self._labels[0]: 1.0}
        if not self.token_ids or completion.top_logprobs is None or _TAG not in completion.text:
            return None
        written = answer_text(self._tokenizer, completion.token_ids)
        start = written.rindex(_TAG) + len(_TAG) + _num_shared(self._labels)
        # The first token that reaches beyond the tag: texts of more tokens are never shorter.
        lengths = range(len(completion.token_ids))
        at = bisect_right(
            lengths, start, key=lambda i: len(answer_text(self._tokenizer, completion.token_ids[: i + 1]))
        )
        if at >= len(completion.token_ids) or completion.token_ids[at] not in self.token_ids:
            return None
        logprobs = completion.top_logprobs[at]
        return self._normalised([logprobs[token] for token in self.token_ids])

    def texts(self, prompt: str, reasoning: str) -> list[tuple[str, int]]:
        """Returns the texts that are scored, one for each label: a prompt with the whole answer, and the
        number of tokens at its end that are the label's own."""
        texts = [prompt + self._written(prompt, reasoning, label) for label in self._labels]
        tokens = [tokens_of(self._tokenizer, text) for text in texts]
        shared = _num_shared(tokens)
        return [(text, len(ids) - shared) for text, ids in zip(texts, tokens, strict=True)]

    def scored(self, completions: Sequence[Completion], num_own: Sequence[int]) -> dict[str, float]:
        """Returns the probabilities from the log-probabilities of `texts`, in their order."""
        sums = []
        for completion, count in zip(completions, num_own, strict=True):
            assert completion.prompt_logprobs is not None, "Sampling.scores_prompt asks for them"
            sums.append(sum(completion.prompt_logprobs[-count:]))
        return self._normalised(sums)

    def _written(self, prompt: str, reasoning: str, label: str) -> str:
        return left_to_write(prompt, format_response(reasoning, label))

    def _normalised(self, logprobs: Sequence[float]) -> dict[str, float]:
        highest = max(logprobs)
        weights = [math.exp(logprob - highest) for logprob in logprobs]
        return {label: weight / sum(weights) for label, weight in zip(self._labels, weights, strict=True)}


def _num_shared(rows: Sequence[Sequence[object]]) -> int:
    """Returns the number of first items that are the same in all rows."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
