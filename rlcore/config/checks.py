"""What values may be: each raises ConfigError with the key, what it got and what is allowed."""

from __future__ import annotations

import math
from typing import Any

from rlcore.config.io import check


def at_least(section: Any, low: float, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        check(value >= low, name, value, f"at least {low}")


def positive(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        check(value > 0, name, value, "above 0")


def positive_amounts(section: Any, name: str) -> None:
    """Of a mapping."""
    for key, amount in getattr(section, name).items():
        check(is_number(amount) and float(amount) > 0, f"{name}.{key}", amount, "above 0")


def one_of(section: Any, name: str, *choices: Any) -> None:
    value = getattr(section, name)
    check(value in choices, name, value, f"one of {', '.join(map(str, choices))}")


def is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False
