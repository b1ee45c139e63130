from __future__ import annotations

import numpy as np
import pytest

from rlcore.algorithms.budget import check_fits, fit_groups
from rlcore.engines.logprobs import TokenGroup
from rlcore.errors import DataError
from rlcore.types import TrainGroup


def group(prompt_id: str, num_prompt: int, lengths: list[int]) -> TrainGroup:
    rows = tuple(np.full(length, float(length), dtype=np.float32) for length in lengths)
    return TrainGroup(
        prompt_token_ids=np.arange(num_prompt),
        media_inputs={},
        token_ids=tuple(np.arange(length) for length in lengths),
        rollout_logprobs=rows,
        reference_logprobs=(),
        advantages=np.array(lengths, dtype=np.float32),
        prompt_id=prompt_id,
    )


GROUPS = [group("a", 4, [6, 7, 1]), group("b", 9, [2, 3]), group("c", 2, [8])]


def test_what_fits_is_left_alone() -> None:
    check_fits(GROUPS, 12)
    assert fit_groups(GROUPS, 12, "error") == fit_groups(GROUPS, 12, "drop") == (GROUPS, 0)


def test_an_error_names_prompts_and_lengths() -> None:
    with pytest.raises(DataError) as error:
        check_fits(GROUPS, 10)
    message = str(error.value)
    assert "3 samples exceed learner.micro_batch_tokens (10)" in message
    assert "prompt a (4 tokens) with a completion of 7; prompt b (9 tokens) with a completion of 2" in message


def test_dropping_keeps_the_rest() -> None:
    groups, num_dropped = fit_groups(GROUPS, 10, "drop")
    assert num_dropped == 3
    assert [g.prompt_id for g in groups] == ["a", "c"]
    assert [g.advantages.tolist() for g in groups] == [[6, 1], [8]]
    assert [row.tolist() for row in groups[0].rollout_logprobs] == [[6.0] * 6, [1.0]]


def test_groups_need_no_id_and_none_may_be_left() -> None:
    groups = [TokenGroup(prompt_token_ids=np.arange(5), token_ids=(np.arange(5),))]
    assert fit_groups(groups, 10, "drop") == (groups, 0)
    assert fit_groups(groups, 9, "drop") == ([], 1)
    with pytest.raises(DataError, match=r"prompt \? \(5 tokens\) with a completion of 5"):
        fit_groups(groups, 9, "error")
