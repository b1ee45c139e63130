"""The consequences of another length for the schedules of a resumed run, in words for the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlcore.algorithms.schedule import LR_SCHEDULES, lr_factor
from rlcore.config import RunConfig
from rlcore.config.targets import choice
from rlcore.loop.mixing import gate_window, make_schedule


def consequences(config: RunConfig, before: int, step: int) -> Iterator[str]:
    """Yields a sentence for each part of a run that `train.num_steps` enters.

    What is given in steps stays (warm-up, window of the gate, `anneal_steps`). What is a share of the run, or
    defaults to its length, follows the new length.

    Args:
        before: number of steps that the run had until now.
        step: finished steps.
    """
    now = config.train.num_steps
    yield f"rewards are told {now} steps from here on (context.num_steps), not {before}"
    learner = config.learner
    schedule = choice(LR_SCHEDULES, learner.lr_schedule, where="learner.lr_schedule")
    rates = [
        learner.lr
        * lr_factor(
            step * learner.steps_per_batch,
            schedule,
            warmup_steps=learner.warmup_steps,
            num_steps=num_steps * learner.steps_per_batch,
        )
        for num_steps in (before, now)
    ]
    if rates[0] != rates[1]:
        yield (
            f"learner.lr_schedule {learner.lr_schedule} is over {now} steps from here on, not {before}: the "
            f"next learning rate is {rates[1]:.3g}, and would have been {rates[0]:.3g}"
        )
    shorter = replace(config, train=replace(config.train, num_steps=before))
    windows = gate_window(shorter), gate_window(config)
    ptr = config.algorithm.ptr
    if ptr.outcome and ptr.schedule == "progressive" and windows[0] != windows[1]:
        yield (
            f"algorithm.ptr.window is null and so {windows[1]} from here on, not {windows[0]}: as many steps "
            "must be steady for a gate that is still closed"
        )
    if ptr.anneal_steps is None:
        factors = [make_schedule(each).factor(step) for each in (shorter, config)]
        if factors[0] != factors[1]:
            yield (
                f"algorithm.ptr.anneal_steps is null and so {now} from here on, not {before}: the reasoning "
                f"reward's next factor is {factors[1]:.3g}, and would have been {factors[0]:.3g}; with "
                f"algorithm.ptr.anneal_steps={before} it fades as before"
            )
