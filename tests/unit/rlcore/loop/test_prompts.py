from __future__ import annotations

import pytest

from rlcore.errors import ConfigError
from rlcore.loop.prompts import PromptStream


def test_order_is_a_function_of_seed_and_step() -> None:
    stream = PromptStream(num_prompts=10, per_step=4, seed=1)
    forwards = [stream.indices(step) for step in range(8)]
    again = [PromptStream(num_prompts=10, per_step=4, seed=1).indices(step) for step in reversed(range(8))]
    assert forwards == again[::-1]
    assert forwards != [PromptStream(num_prompts=10, per_step=4, seed=2).indices(step) for step in range(8)]


def test_epochs_are_whole_and_differ() -> None:
    stream = PromptStream(num_prompts=10, per_step=4, seed=0)
    flat = [i for step in range(5) for i in stream.indices(step)]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]


@pytest.mark.parametrize("per_step", [0, 11])
def test_impossible_sizes_name_the_key(per_step: int) -> None:
    with pytest.raises(ConfigError, match=r"train\.prompts_per_step: got .* which is 10"):
        PromptStream(num_prompts=10, per_step=per_step, seed=0)
