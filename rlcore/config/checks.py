"""Checks of values for `__post_init__`. Each raises ConfigError: the key, what it got, what is allowed."""

from __future__ import annotations

import math

from rlcore.config.io import check


def at_least(section: object, low: float, *names: str) -> None:
    """Refuses fields of a section that are below `low`, or infinite."""
    for name in names:
        value = getattr(section, name)
        check(value >= low, name, value, f"at least {low}")
        check(value < math.inf, name, value, "a finite number")


def between(section: object, low: float, high: float, *names: str) -> None:
    """Refuses fields of a section that are below `low` or above `high`."""
    for name in names:
        value = getattr(section, name)
        check(low <= value <= high, name, value, f"at least {low} and at most {high}")


def positive(section: object, *names: str) -> None:
    """Refuses fields of a section that are not above 0, or infinite."""
    for name in names:
        value = getattr(section, name)
        check(value > 0, name, value, "above 0")
        check(value < math.inf, name, value, "a finite number")


def gpu_share(section: object, name: str = "num_gpus") -> None:
    """Refuses amounts of GPUs that Ray gives nobody: below 0, and several with a part of one."""
    value = getattr(section, name)
    at_least(section, 0, name)
    check(value <= 1 or value % 1 == 0, name, value, "a part of one GPU, or a whole number")


def positive_amounts(section: object, name: str) -> None:
    """Refuses a mapping of a section whose values are not all above 0."""
    for key, amount in getattr(section, name).items():
        check(is_number(amount) and float(amount) > 0, f"{name}.{key}", amount, "above 0")


def without_tilde(section: object, *names: str) -> None:
    """Refuses folders of a section that begin with `~`, which only a shell reads: where the folder is
    written, and where a reference to the key leads, a folder of that name would be made."""
    for name in names:
        folder = getattr(section, name)
        allowed = "a path that begins with no ~: write the home folder out, or ${oc.env:HOME}"
        check(folder is None or not folder.startswith("~"), name, folder, allowed)


def one_of(section: object, name: str, *choices: object) -> None:
    """Refuses a field of a section that is none of the choices."""
    value = getattr(section, name)
    check(value in choices, name, value, f"one of {', '.join(map(str, choices))}")


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number, or its text."""
    try:
        return isinstance(value, (str, int, float)) and math.isfinite(float(value))
    except ValueError:
        return False
