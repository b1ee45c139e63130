"""GPUs as Ray gives them out, which are names only here: whose engines are built after one another, who sees
none, and who gives one back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import soundfile
from ray.cluster_utils import Cluster

from emotion_task.perception.hearing import write_perception
from emotion_task.records import Utterance, write_manifest
from rlcore.actors.group import ActorGroup
from rlcore.actors.placement import Bundle, reserve
from rlcore.actors.session import ray_session
from rlcore.config import ClusterConfig
from rlcore.engines.shared_gpu import CACHE, build_in_turn
from rlcore.errors import DataError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Builder:
    """Builds an engine that takes its time, in a thread, as `EngineLoop` does."""

    def __init__(self, size: int = 100):
        self._size, self._built = size, dict[str, Any]()
        thread = Thread(target=self._start)
        thread.start()
        thread.join()

    def _start(self) -> None:
        build_in_turn(self._build, {"model": "m"})

    def _build(self, **arguments: Any) -> Any:
        start = time.time()
        time.sleep(1.0)
        self._built = {"span": (start, time.time()), "arguments": arguments}
        core = SimpleNamespace(available_gpu_memory_for_kv_cache=self._size)
        engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core))
        return SimpleNamespace(llm_engine=engine)

    def built(self) -> dict[str, Any]:
        return {**self._built, "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}


def free_gpus() -> float:
    return float(ray.available_resources().get("GPU", 0.0))


class Seen:
    def gpus(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A node with two GPUs, which every process would see by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=4, num_gpus=2, include_dashboard=False)
            with ray_session(ClusterConfig(address=cluster.address)):
                yield
        finally:
            cluster.shutdown()


def test_engines_of_a_gpu_are_built_one_by_one_and_again_with_the_cache_they_had(two_gpus: None) -> None:
    reservation = reserve([Bundle(role="e", num_cpus=1, num_gpus=0.5)] * 2, timeout_s=100)
    arguments = [{"size": 100}, {"size": 101}]
    engines = ActorGroup("e", Builder, arguments, num_cpus=1, num_gpus=0.5, reservation=reservation)
    try:
        one, other = engines.call("built", timeout_s=150)
        assert one["gpu"] == other["gpu"]
        (_, first_end), (next_start, _) = sorted([one["span"], other["span"]])
        assert first_end <= next_start
        # Alike in one run: the second has the cache that the first measured, as one that is built again.
        caches = [each["arguments"].get(CACHE) for each in (one, other)]
        assert None in caches and len(set(caches) & {100, 101}) == 1
        engines.restart(0)
        again = engines.call_one(0, "built", timeout_s=150)
        assert again["arguments"] == {"model": "m", CACHE: max(filter(None, caches))}
    finally:
        engines.shutdown()
        reservation.release()


def test_who_asked_for_no_gpu_sees_none(two_gpus: None) -> None:
    actors = ActorGroup("none", Seen, [{}], num_cpus=1)
    one = ActorGroup("one", Seen, [{}], num_cpus=1, num_gpus=1)
    try:
        assert actors.call("gpus", timeout_s=150) == [""]
        assert one.call("gpus", timeout_s=150) in (["0"], ["1"])
    finally:
        actors.shutdown()
        one.shutdown()

    @ray.remote
    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    assert ray.get(seen.remote()) == ""
    rows = ray.data.range(2).map_batches(
        lambda batch: {"gpus": np.array([os.environ.get("CUDA_VISIBLE_DEVICES")] * len(batch["id"]))}
    )
    assert {row["gpus"] for row in rows.take_all()} == {""}


def test_a_model_that_is_asked_what_it_hears_has_a_gpu_for_so_long(two_gpus: None, tmp_path: Path) -> None:
    from tiny_models import make_qwen2_audio, tone  # actors import this module, and have no tests/support

    heard = {"pitch_level": "low", "energy_level": "normal", "intonation": "rising"}
    rows = []
    for index in range(3):
        audio = tmp_path / f"{index}.wav"
        soundfile.write(audio, tone(index, 0.5 + 0.2 * index), 16000)
        rows.append(Utterance(id=f"u{index}", audio=str(audio), emotion="sad", split="eval", **heard))
    write_manifest(tmp_path / "manifest.jsonl", rows)
    model = str(make_qwen2_audio(tmp_path / "model"))
    models = {"before": model, "after": model}
    while free_gpus() < 2:  # the actors of other tests are going
        time.sleep(0.1)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(
            write_perception, tmp_path / "manifest.jsonl", models, tmp_path, form="profile", seed=1
        )
        free = set[float]()
        while not asking.done() or free_gpus() < 2:
            free.add(free_gpus())
            time.sleep(0.1)
        free.add(free_gpus())
        report = asking.result()
    assert set(report["attributes"]["after"]) == {"pitch", "energy", "intonation", "mean"}
    assert report["gain"]["mean"] == {"value": 0.0, "low": 0.0, "high": 0.0, "num": 3}
    assert report["floor"]["pitch"]["majority"] == 1.0
    assert json.loads((tmp_path / "perception.json").read_text()) == report
    assert (tmp_path / "perception.png").stat().st_size > 1000
    assert "| sad | 3 |" in (tmp_path / "perception.md").read_text()
    assert free == {1.0, 2.0}
    with pytest.raises(DataError, match="no such model"):
        write_perception(tmp_path / "manifest.jsonl", {"model": "no/where/at/all"}, tmp_path)
