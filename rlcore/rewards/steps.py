"""Where in a completion's tokens a step of its text ends, for rewards that judge steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def last_tokens(token_ids: Sequence[int], ends: Sequence[int], tokenizer: Any) -> list[int]:
    """Index of the token that completes each of the text's first `ends` characters; the last token where the
    text is shorter.

    `token_ids` [T], at least one; `tokenizer` is the policy's, of transformers.
    """

    def length(count: int) -> int:
        return len(tokenizer.decode(token_ids[:count], skip_special_tokens=True))

    counts = range(1, len(token_ids))
    return [bisect_left(counts, end, key=length) for end in ends]
