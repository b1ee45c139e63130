"""How a session says that Ray did not start. That it starts is what the integration tests show."""

from __future__ import annotations

import inspect

import pytest
import ray
from ray._private import node

from rlcore.actors.session import _NOT_IN_TIME, ray_session
from rlcore.config import ClusterConfig
from rlcore.errors import DeadlineError


def test_a_machine_too_busy_to_start_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is looked for is what this version of Ray says.
    assert _NOT_IN_TIME in inspect.getsource(node)

    def late(**_: object) -> None:
        raise Exception(f"The current node {_NOT_IN_TIME}. This could happen because ...")

    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(DeadlineError, match=r"within the 30 s .* load is \d+ on \d+ cores"),
        ray_session(ClusterConfig()),
    ):
        pytest.fail("there is no Ray")


def test_other_errors_of_ray_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise ConnectionError("no such cluster")

    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(ConnectionError, match="no such cluster"), ray_session(ClusterConfig()):
        pytest.fail("there is no Ray")
