from __future__ import annotations

import pytest

from rlcore.algorithms.schedule import LR_SCHEDULES, linear, lr_factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_warmup_then_decay(schedule, expected):
    factors = [lr_factor(i, LR_SCHEDULES[schedule], warmup_steps=2, num_steps=6) for i in range(6)]
    assert factors == pytest.approx(expected)


def test_past_the_end_stays_at_zero():
    assert lr_factor(9, linear, warmup_steps=0, num_steps=6) == 0
