"""How a session says that Ray did not start. That it starts is what the integration tests show."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import node

from rlcore.actors.session import _NOT_IN_TIME, local_processes, ray_session
from rlcore.config import ClusterConfig
from rlcore.errors import ConfigError, DeadlineError


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


def test_ray_client_is_refused_wherever_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for cluster in (ClusterConfig(), ClusterConfig(address="ray://head:10001")):
        with (
            pytest.raises(ConfigError, match=r"cluster\.address .* got ray://head:10001.* \(rlcore submit\)"),
            ray_session(cluster),
        ):
            pytest.fail("there is no such driver")


def test_a_raylet_that_has_just_ended_is_watched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The witness then says that it died."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    infos = [SimpleNamespace(process=ended)]
    own = {"raylet": infos, "gcs_server": infos}
    head = SimpleNamespace(head=True, all_processes=own, get_session_dir_path=lambda: "/tmp/s")
    monkeypatch.setattr(ray._private.worker, "_global_node", head)
    assert local_processes() == {f"Ray's {name} of /tmp/s": ended.pid for name in ("raylet", "GCS")}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What Ray is started with, in a home and a temporary folder of the test's."""
    asked: dict[str, Any] = {}

    def init(**options: Any) -> None:
        asked.update(
            options, environment=dict(os.environ), blocked=signal.pthread_sigmask(signal.SIG_BLOCK, [])
        )
        token = Path.home() / ".ray" / "auth_token"
        token.write_text("secret")  # as Ray does
        token.chmod(0o644)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    return asked


def test_a_local_ray_is_closed_to_other_users(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir(mode=0o755)
    with ray_session(ClusterConfig()):
        assert local_processes() == {}  # nothing was started
    assert oct(os.stat(tmp_path / ".ray").st_mode)[-3:] == "700"
    assert oct(os.stat(tmp_path / ".ray" / "auth_token").st_mode)[-3:] == "600"
    folder = tmp_path / f"rlcore-{os.getuid()}"
    assert asked["_temp_dir"] == str(folder / "ray")
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert asked["environment"]["GLOO_SOCKET_IFNAME"] == "lo"
    assert asked["environment"]["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "1"
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    # Ray's processes inherit that a terminal which closes is none of theirs.
    assert signal.SIGHUP in asked["blocked"]
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("kind", ["open", "link"])
def test_a_temporary_folder_that_others_can_enter_is_refused(
    asked: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / f"rlcore-{os.getuid()}"
    if kind == "open":
        folder.mkdir()
        folder.chmod(0o755)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"{folder}: .* set RAY_TMPDIR"), ray_session(ClusterConfig()):
        pytest.fail("there is no Ray")
    assert asked == {}
