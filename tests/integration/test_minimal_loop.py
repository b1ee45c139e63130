"""`examples/minimal_loop.py`: the outcome is learnt first, true reasoning once the gate is open."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.integration
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "minimal_loop.py"


def mean(rows: list[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def test_outcome_first_then_reasoning() -> None:
    train = runpy.run_path(str(EXAMPLE))["train"]
    rows = train(80, seed=0)

    assert mean(rows[:5], "outcome") < 0.4  # four emotions: chance is 0.25
    assert mean(rows[-10:], "outcome") > 0.8
    assert mean(rows[-10:], "format") > 0.97

    gates = [row["gate"] for row in rows]
    opened = gates.index(1.0)
    assert 10 < opened < 60 and gates == [0.0] * opened + [1.0] * (len(rows) - opened)
    before = rows[opened - 10 : opened]
    assert mean(before, "outcome") > 0.5 > mean(rows[:5], "outcome")
    # Nobody asked for true thoughts until the gate opened.
    assert mean(before, "reasoning") < 0.7 and mean(rows[-10:], "reasoning") > mean(before, "reasoning") + 0.1

    # The judge likes wrong answers of `sad`, so trust is low until few answers are wrong.
    assert all(0 < row["tau"] <= 1 for row in rows)
    assert mean(rows[:10], "tau") < 0.95 < mean(rows[-10:], "tau")

    assert train(3, seed=0) == rows[:3]
