"""Parts of a run are killed in the middle of their work, and the run goes on as if they had not
been.

`make chaos` has the whole matrix.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.cells import Cell
from benchmarks.chaos.matrix import run_matrix

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_a_run_whose_parts_are_killed_ends_with_the_weights_of_one_that_is_left_alone(tmp_path: Path) -> None:
    cells = [
        Cell(victim="engine", state="generating"),
        Cell(victim="reward worker", state="scoring"),
        Cell(victim="learner rank 1", state="updating"),
    ]
    rows = run_matrix(cells, tmp_path, seed=0)
    assert [row["ended"] for row in rows] == ["recovered"] * len(cells), rows
