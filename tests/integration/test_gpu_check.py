"""The parts of the check of a GPU machine that build engines, with tiny shapes on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_check_cases import ENGINES, run_tiny

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_parts_with_an_engine_run_on_the_cpu(tmp_path: Path) -> None:
    found = run_tiny(ENGINES, tmp_path)
    told = {row["what"]: row["passed"] for name in ENGINES for row in found[name]}
    assert False not in told.values(), found
    for what in (
        "the checkpoint's own bytes",
        "back again",
        "the learner hears of the death",
        "its successor",
    ):
        assert told[f"shared_memory: {what}"] is True
