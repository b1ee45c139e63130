"""Says whether a checkpoint's state of the controller can be gone on from, before anything is moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlcore.config import RunConfig
from rlcore.loop.mixing import make_schedule
from rlcore.loop.rounds import GroupBuffer
from rlcore.records.checkpoint import DamagedCheckpointError
from rlcore.records.files import JsonObject


def check_state(config: RunConfig, state: JsonObject, path: Path) -> None:
    """Tries the state that `Controller.state_dict` gave, on objects of its own.

    Args:
        path: the state's file, for the message.

    Raises:
        DamagedCheckpointError: an entry is missing, or is not what it should be.
    """
    try:
        step = _count(state, "step")
        _count(state, "policy_version")
        for name, value in dict(state["statistics"]).items():
            if not isinstance(value, int | float):
                raise TypeError(f"statistics.{name} is {value!r}, not a number")
        make_schedule(config).load_state_dict(state["schedule"])
        _check_rounds(state["rounds"], step)
        GroupBuffer[Any](config.train.prompts_per_step).load_state_dict(state["rounds"], step=step)
    except KeyError as error:
        raise DamagedCheckpointError(f"{path}: lacks {error}; use an older checkpoint") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DamagedCheckpointError(
            f"{path}: no state to go on from ({error}); use an older checkpoint"
        ) from error


def _check_rounds(rounds: JsonObject, step: int) -> None:
    end = _count(rounds, "next_position")
    for number, positions in rounds["open_rounds"].items():
        if int(number) < step or not all(type(p) is int and 0 <= p < end for p in positions):
            raise ValueError(
                f"round {number} of the prompts {positions} is none that comes after step {step}"
            )


def _count(values: JsonObject, name: str) -> int:
    value = values[name]
    if type(value) is not int or value < 0:
        raise TypeError(f"{name} is {value!r}, not a whole number of 0 or more")
    return value
