from __future__ import annotations

import pytest

from rlcore.algorithms.schedule import lr_factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_warmup_then_decay(schedule, expected):
    assert [lr_factor(i, schedule, warmup_steps=2, num_steps=6) for i in range(6)] == pytest.approx(expected)


def test_past_the_end_stays_at_zero_and_unknown_names_are_refused():
    assert lr_factor(9, "linear", warmup_steps=0, num_steps=6) == 0
    with pytest.raises(ValueError, match="cosine"):
        lr_factor(3, "step", warmup_steps=0, num_steps=6)
