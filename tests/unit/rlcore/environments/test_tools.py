"""Calls are read strictly; the policy's mistakes are answered, a tool's are raised."""

from __future__ import annotations

import pytest

from rlcore.environments import BadCallError, Episode, Tools
from rlcore.errors import ConfigError
from rlcore.types import Prompt


class Arithmetic(Tools):
    tools = ("add", "name", "half", "broken")

    def add(self, prompt: Prompt, a: int, b: float = 1.0) -> float:
        return a + b

    def name(self, prompt: Prompt, word):  # type: ignore[no-untyped-def]
        return f"{prompt.id} {word}"

    def half(self, prompt: Prompt, of: float = 1.0) -> str:
        if of < 0:
            raise BadCallError("of is below 0")
        return str(of / 2)

    def broken(self, prompt: Prompt, word: str) -> float:
        return float(word)

    def hidden(self, prompt: Prompt) -> str:
        return "no tool"


def result(turn: str) -> str:
    episode = Episode(prompt=Prompt(id="p", text=""), turns=("earlier", turn), observations=("[]",))
    text = Arithmetic().step(episode)
    assert text.startswith("<result>") and text.endswith("</result>")
    return text.removeprefix("<result>").removesuffix("</result>")


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ("so <tool>add 1 2</tool>", "3.0"),
        ("<tool> add\n1 </tool>", "2.0"),
        ("<tool>name x</tool>", "p x"),
        ("<tool>half</tool>", "0.5"),
        ("<tool>half</tool> and <tool>name y</tool>", "p y"),
        ("<tool>hidden</tool>", "error: tools are add, name, half, broken"),
        ("<tool>__init__</tool>", "error: tools are add, name, half, broken"),
        ("<tool>add one</tool>", "error: add takes a [b]"),
        ("<tool>add 1.5</tool>", "error: add takes a [b]"),
        ("<tool>add</tool>", "error: add takes a [b]"),
        ("<tool>add 1 2 3</tool>", "error: add takes a [b]"),
        ("<tool>half 1 2</tool>", "error: half takes [of]"),
        ("<tool>half -1</tool>", "error: of is below 0"),
        ("<tool></tool>", "error: write <tool>NAME ARGUMENTS</tool>"),
        ("half</tool>", "error: write <tool>NAME ARGUMENTS</tool>"),
        ("<tool>half <tool>half</tool>", "0.5"),
        ("<tool>half</tool> ", "error: write <tool>NAME ARGUMENTS</tool>"),
        ("<tool>Half</tool>", "error: write <tool>NAME ARGUMENTS</tool>"),
    ],
)
def test_calls_are_read_strictly(turn: str, expected: str) -> None:
    assert result(turn) == expected


def test_what_a_tool_raises_is_the_tools() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        result("<tool>broken x</tool>")


def test_a_tool_that_cannot_be_called_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"Odd\.odd: word is 'list'; a tool's argument is an int, float or"):

        class Odd(Tools):
            tools = ("odd",)

            def odd(self, prompt: Prompt, word: list) -> str:  # type: ignore[type-arg]
                return ""

    with pytest.raises(ConfigError, match=r"Missing\.tools: there is no method 'gone'"):

        class Missing(Tools):
            tools = ("gone",)
