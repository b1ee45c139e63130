"""The account of optimizer steps that were not made because loss or gradient was not finite. How a step is
found not to be finite is the engine's business."""

from __future__ import annotations

import math
from pathlib import Path

import torch.distributed as dist

from rlcore.errors import NonFiniteError
from rlcore.records.files import append_rows


class SkippedSteps:
    """Counts the skipped steps of one run. More than `most_in_a_row` of them are an error.

    `log` is a file to which rank 0 adds a line of JSON per skipped step: which step, why, and the prompts
    that were in the step.
    """

    def __init__(self, most_in_a_row: int, log: Path | None):
        self._most_in_a_row, self._log = most_in_a_row, log
        self.num = self.num_in_a_row = 0

    def add(self, step: int, prompt_ids: list[str], loss: float) -> None:
        """Counts `step`, which was not made; `prompt_ids` are this rank's. Collective, as all ranks see the
        same gradient.

        Raises:
            NonFiniteError: the step is one too many in a row.
        """
        self.num += 1
        self.num_in_a_row += 1
        by_rank: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(by_rank, prompt_ids)
        prompts = sorted({prompt for ids in by_rank for prompt in ids})
        reason = "gradient" if math.isfinite(loss) else "loss"
        if dist.get_rank() == 0 and self._log is not None:
            append_rows(self._log, [{"step": step, "reason": reason, "prompts": prompts}])
        if self.num_in_a_row > self._most_in_a_row:
            shown = ", ".join([*prompts[:5], *(["..."] if prompts[5:] else [])])
            raise NonFiniteError(
                f"{self.num_in_a_row} optimizer steps in a row were skipped, and "
                f"learner.max_skipped_steps is {self._most_in_a_row}; the last for its {reason} "
                f"(loss {loss}) on prompts {shown}. The weights are those of the last good step: "
                "lower learner.lr, or look at these prompts' rewards and logprobs"
            )
