"""The cells of the matrix: who is struck, in which state of the run, by which signal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

STATES = {
    "starting": "start",
    "idle": "idle",
    "generating": "rollout",
    "scoring": "score",
    "updating": "update",
    "pushing": "weight_sync",
    "saving": "save",
    "evaluating": "evaluate",
    "exporting": "export",
}
"""Names of states, and the phase in `status.json`."""
ACTORS = {
    "engine": "RolloutWorker",
    "reward worker": "RewardWorker",
    "reference": "ReferenceWorker",
    "learner rank 0": "LearnerWorker",
    "learner rank 1": "LearnerWorker",
}
"""Victims that the run replaces by itself, and the class that Ray names the process after."""
RAY = {
    "dashboard agent": "DashboardAgent",
    "runtime env agent": "RuntimeEnvAgent",
    "raylet": "raylet",
    "GCS": "GCS",
}
"""Victims that end the run, and how the error names them."""
VICTIMS = (*ACTORS, *RAY, "driver")
STOPS = {
    "engine": ("generating", "updating"),
    "reward worker": ("scoring", "updating"),
    "reference": ("generating", "updating"),
    "learner rank 0": ("updating", "pushing"),
    "learner rank 1": ("updating", "saving"),
    "raylet": ("updating",),
    "GCS": ("updating",),
}
"""States in which a victim is stopped (SIGSTOP) as well as killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One strike to make."""

    victim: str
    state: str
    signal: str = "kill"
    """`kill` or `stop`."""
    staleness: int = 0

    @property
    def ends_run(self) -> bool:
        """Says whether the run cannot go on by itself."""
        return self.victim not in ACTORS

    def __str__(self) -> str:
        return f"{self.signal} {self.victim}, {self.state}, staleness {self.staleness}"


def all_cells(staleness: int) -> list[Cell]:
    """Returns the matrix: every victim killed in every state, some stopped."""
    pairs = itertools.product(VICTIMS, STATES)
    kills = [Cell(victim=victim, state=state, staleness=staleness) for victim, state in pairs]
    stops = [
        Cell(victim=victim, state=state, signal="stop", staleness=staleness)
        for victim, states in STOPS.items()
        for state in states
    ]
    return kills + stops


def in_order(cells: list[Cell]) -> list[Cell]:
    """Returns the cells in an order in which one run can have them all.

    What the run survives comes first. Then, each death that ends the run is followed by one in the start that
    it brings about. Exports come when the run is over.
    """
    during = [cell for cell in cells if cell.state not in ("starting", "exporting")]
    starts = [cell for cell in cells if cell.state == "starting"]
    order = starts[:1] + [cell for cell in during if not cell.ends_run]
    starts = starts[1:]
    for cell in during:
        if cell.ends_run:
            order += [cell, *starts[:1]]
            starts = starts[1:]
    return order + starts + [cell for cell in cells if cell.state == "exporting"]
