"""Samples that no micro-batch can hold: an error that names them, or groups without them.

This module knows lengths alone: neither the learner nor where the skipped samples are logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rlcore.algorithms.batching import TokenRows, num_samples, take_samples
from rlcore.errors import DataError

G = TypeVar("G", bound=TokenRows)


def fit_groups(groups: Sequence[G], max_tokens: int, over_budget: str) -> tuple[list[G], int]:
    """Returns the groups without the samples that are too long, and how many samples went.

    Args:
        groups: the groups of a batch or of a rank.
        max_tokens: most tokens of a sample, prompt and completion together.
        over_budget: `error` or `drop` (`learner.over_budget`).

    Raises:
        DataError: a sample exceeds the budget and `over_budget` is `error`.
    """
    if over_budget == "error":
        check_fits(groups, max_tokens)
        return list(groups), 0
    kept: list[G] = []
    for group in groups:
        room = max_tokens - len(group.prompt_token_ids)
        fitting = [i for i, tokens in enumerate(group.token_ids) if len(tokens) <= room]
        if len(fitting) == num_samples(group):
            kept.append(group)
        elif fitting:
            kept.append(take_samples(group, fitting))
    return kept, sum(map(num_samples, groups)) - sum(map(num_samples, kept))


def check_fits(groups: Sequence[TokenRows], max_tokens: int) -> None:
    """Checks that no sample has more than `max_tokens` prompt and completion tokens.

    Raises:
        DataError: a sample has; names the prompts and lengths.
    """
    too_long = [
        f"prompt {getattr(group, 'prompt_id', '') or '?'} ({len(group.prompt_token_ids)} tokens) with a "
        f"completion of {len(tokens)}"
        for group in groups
        for tokens in group.token_ids
        if len(group.prompt_token_ids) + len(tokens) > max_tokens
    ]
    if too_long:
        raise DataError(
            f"{len(too_long)} samples exceed learner.micro_batch_tokens ({max_tokens}): "
            f"{'; '.join(too_long[:3])}{'; ...' if len(too_long) > 3 else ''}. Raise it, lower "
            "rollout.max_tokens, shorten the prompts, or set learner.over_budget=drop"
        )
