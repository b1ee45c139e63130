from __future__ import annotations

import pytest

from rlcore.config.targets import build_target, load_target
from rlcore.errors import ConfigError


class Greeting:
    def __init__(self, name: str):
        self.name = name
        if name == "":
            raise TypeError("inside the constructor")


def test_builds_what_is_named() -> None:
    from fractions import Fraction

    assert load_target("fractions:Fraction", where="task") is Fraction
    args = {"numerator": 1, "denominator": 2}
    assert build_target("fractions:Fraction", args, where="task") == Fraction(1, 2)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("fractions.Fraction", r"task.target: got 'fractions.Fraction', must be `package.module:Class`"),
        ("no_such_module_here:X", r"task.target: module 'no_such_module_here' .* PYTHONPATH"),
        ("fractions:Fractoin", r"module 'fractions' has no 'Fractoin'; it has .*'Fraction'"),
    ],
)
def test_errors_name_path_module_and_attribute(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_target(target, where="task")


def test_wrong_arguments_are_a_config_error_but_errors_inside_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys
    from types import ModuleType

    module = ModuleType("a_module_of_the_user")
    module.Greeting = Greeting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ConfigError, match=r"rewards.x.args: .* was given \['nmae'\]"):
        build_target("a_module_of_the_user:Greeting", {"nmae": "a"}, where="rewards.x")
    with pytest.raises(TypeError, match="inside the constructor"):
        build_target("a_module_of_the_user:Greeting", {"name": ""}, where="rewards.x")
