from __future__ import annotations

import pytest

from rlcore.errors import DataError
from rlcore.rewards.template import fill
from rlcore.types import Prompt

PROMPT = Prompt(
    id="p",
    text="",
    reference={"text": "I am {fine}", "age": None, "pace": float("nan"), "words": ["a"], "n": 0},
)


def test_entries_are_filled_as_python_formats_them() -> None:
    assert (
        fill("{text}|{words[0]}|{n:02d}|{{x}}|{response}", PROMPT, response="r") == "I am {fine}|a|00|{x}|r"
    )


@pytest.mark.parametrize("name", ["age", "pace", "missing"])
def test_null_nan_and_missing_are_errors(name: str) -> None:
    with pytest.raises(DataError, match=rf"it names '{name}', prompt 'p' has \['n', 'text', 'words'\]"):
        fill(f"said: {{{name}}}", PROMPT)
