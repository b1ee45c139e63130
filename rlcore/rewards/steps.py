"""Finds the tokens at which the steps of a completion's text end, for rewards that judge steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlcore.models.tokens import answer_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def last_tokens(
    token_ids: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Returns the index of the token that completes the text's first `end` characters, for each of `ends`;
    the last token where the text is shorter.

    Args:
        token_ids: [T], at least one.
        tokenizer: the policy's tokenizer, of transformers.
    """

    def length(count: int) -> int:
        return len(answer_text(tokenizer, token_ids[:count]))

    counts = range(1, len(token_ids))
    return [bisect_left(counts, end, key=length) for end in ends]
