"""Building a vLLM engine in a Ray actor whose GPU other actors use too.

vLLM finds out how large its cache may be by the GPU's free memory, before and after a pass of the model.
Whatever any process takes meanwhile is charged to the engine. So the engines of a GPU are built one after
another. One that is built again, beside actors at work, has the cache that was measured at the first start.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rlcore.records.files import read_json, write_json

if TYPE_CHECKING:
    from ray._private.node import Node
    from vllm import LLM

CACHE = "kv_cache_memory_bytes"
"""vLLM's engine argument that says how large the cache is, in place of the measurement."""


def build_in_turn(build: Callable[..., LLM], arguments: Mapping[str, Any]) -> LLM:
    """Builds an engine with vLLM's `arguments`: in an actor that has a GPU, or a part of one, when no other
    engine is being built there; elsewhere at once.

    Whoever waits for the actor to be ready has the deadline (`cluster.startup_timeout_s`), and ends the wait
    with the actor. A process that dies gives its turn up.
    """
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", []) if ray.is_initialized() else []
    if len(gpus) != 1:  # an engine with several has them for itself
        return build(**arguments)
    (gpu,) = gpus
    node: Node = ray._private.worker._global_node
    folder = Path(node.get_session_dir_path()) / "rlcore"
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / f"gpu-{gpu}.lock", "w", encoding="utf-8") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        # A run's engines that are alike measure alike.
        context = ray.get_runtime_context()
        run = context.get_placement_group_id() or context.get_job_id()  # without a place that was reserved
        alike = json.dumps([run, gpu, dict(arguments)], sort_keys=True, default=str)
        measured = folder / f"cache-{sha256(alike.encode()).hexdigest()[:16]}.json"
        if arguments.get(CACHE) is None and (num_bytes := read_json(measured)):
            return build(**{**arguments, CACHE: num_bytes})
        llm = build(**arguments)
        write_json(measured, cache_bytes(llm))
        return llm


def cache_bytes(llm: LLM) -> int:
    """Returns the bytes that an engine of one worker, in this process, has for its cache."""
    core: Any = llm.llm_engine.engine_core
    return int(core.engine_core.available_gpu_memory_for_kv_cache)
