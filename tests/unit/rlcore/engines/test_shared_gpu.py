"""The size of a cache that is taken over from the first start of an engine on the same GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from rlcore.engines import shared_gpu
from rlcore.engines.shared_gpu import CACHE, build_in_turn


def test_the_engines_of_a_run_measure_once_and_those_of_another_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also engines that no place was reserved for: those of two runs on one cluster are not alike."""
    place = {"group": None, "job": "01000000"}
    context = SimpleNamespace(
        get_accelerator_ids=lambda: {"GPU": ["3"]},
        get_placement_group_id=lambda: place["group"],
        get_job_id=lambda: place["job"],
    )
    node = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    monkeypatch.setattr(shared_gpu, "cache_bytes", lambda llm: 1000)

    def is_measured() -> bool:
        built: Any = build_in_turn(lambda **arguments: arguments, {"model": "m"})
        assert built == {"model": "m"} or built == {"model": "m", CACHE: 1000}
        return CACHE not in built

    for place in ({"group": group, "job": job} for group in (None, "g", "h") for job in ("1", "2")):
        is_first = place["group"] is None or place["job"] == "1"
        assert (is_measured(), is_measured()) == (is_first, False)
