"""What is around the loop, with a loop that fails when the test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlcore import checkpoint
from rlcore.config import RunConfig, TrainConfig
from rlcore.errors import NonFiniteError
from rlcore.run import _Run
from rlcore.staleness import GroupBuffer


class FailingLoop:
    """Of two prompts a step; the learner gives up in step 2 (from 0), when its round has been taken."""

    step = 1

    def __init__(self) -> None:
        self.buffer: GroupBuffer[str] = GroupBuffer(2)
        self.buffer.load_state_dict({"next_position": 2, "open_rounds": {}}, step=1)
        self.learner = SimpleNamespace(
            call=lambda method, folder, timeout_s: Path(folder).mkdir(parents=True)
        )

    def push_weights(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "rounds": self.buffer.state_dict()}

    def train(self, num_steps: int, *, after_step: Callable[[Any], None], should_stop: Any) -> None:
        for _ in range(2):
            for ticket in self.buffer.open(self.step, num_steps):
                self.buffer.add(ticket, "group")
            self.buffer.take(self.step)
            if self.step == 2:
                raise NonFiniteError("6 optimizer steps in a row were skipped")
            self.step += 1
            after_step(None)


def test_a_run_that_gives_up_keeps_the_prompts_of_the_step_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Run, "log_step", lambda self, result, bar: None)
    loop, config = FailingLoop(), RunConfig(train=TrainConfig(num_steps=4))
    task, tracker = SimpleNamespace(prompts=lambda split: []), SimpleNamespace()
    run = _Run(config, tmp_path, loop, task, tracker)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        run.train(SimpleNamespace())  # type: ignore[arg-type]
    saved = checkpoint.latest(tmp_path / "checkpoints")
    assert saved is not None and saved.name == "step_000002"
    resumed: GroupBuffer[str] = GroupBuffer(2)
    resumed.load_state_dict(checkpoint.read(saved)["rounds"], step=2)
    assert [ticket.position for ticket in resumed.open(2, 4)] == [4, 5]
