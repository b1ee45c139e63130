from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlcore.loop.prompts import PromptStream


@st.composite
def streams(draw: st.DrawFn) -> PromptStream:
    num_prompts = draw(st.integers(1, 40))
    per_step = draw(st.integers(1, num_prompts))
    return PromptStream(num_prompts=num_prompts, per_step=per_step, seed=draw(st.integers(0, 2**31)))


@given(streams(), st.integers(1, 4))
def test_every_epoch_has_each_prompt_once(stream: PromptStream, num_epochs: int) -> None:
    n = stream.num_prompts
    num_steps = -(-num_epochs * n // stream.per_step)
    flat = [i for step in range(num_steps) for i in stream.indices(step)]
    for epoch in range(num_epochs):
        assert sorted(flat[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(streams(), st.integers(0, 10_000))
def test_any_step_can_be_asked_first(stream: PromptStream, step: int) -> None:
    indices = stream.indices(step)
    assert len(indices) == stream.per_step
    assert indices == stream.indices(step)
