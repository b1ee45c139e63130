"""Signs of life: every actor counts up in Ray's key-value store, from a thread beside the one that works.

A process that was stopped, or one of whose threads does not let go of Python's lock, does not count. Ray's
own concurrency groups would do as well, but methods then leave the main thread, which rewards with
`signal.alarm` need; and to ask some hundred engines every second would cost the controller a tenth of it.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.experimental import internal_kv

BEAT_S = 1.0
"""Between two beats."""
HEARTBEAT = "heartbeat"
"""Name of the thread that beats."""
_STORE_S = 5.0
"""Longest wait for the store."""
_NAMESPACE = b"rlcore"


def beating(cls: type) -> type:
    """Returns the class of actors that are a `cls` and beat, from when they are constructed."""
    return type(cls.__name__, (_Beating, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def heartbeats(actors: Sequence[Any]) -> dict[Any, bytes]:
    """Returns the last beat of each actor, by handle; without those that have not beaten yet. No two beats
    are equal, and each begins with the process id. Raises what Ray does where the store does not answer."""
    keys = {_key(actor._actor_id.hex()): actor for actor in actors}
    store = ray._private.worker.global_worker.gcs_client  # the public one asks for one key at a time
    found = store.internal_kv_multi_get(list(keys), _NAMESPACE, timeout=_STORE_S)
    return {keys[key]: beat for key, beat in found.items()}


class _Beating:
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        key = _key(ray.get_runtime_context().get_actor_id())
        threading.Thread(target=_beat, args=[key], name=HEARTBEAT, daemon=True).start()


def _beat(key: bytes) -> None:
    for count in itertools.count():
        with suppress(Exception):  # the store may be away for a moment; the next beat tells as much
            beat = f"{os.getpid()} {count}".encode()
            internal_kv._internal_kv_put(key, beat, overwrite=True, namespace=_NAMESPACE)
        time.sleep(BEAT_S)


def _key(actor_id: str | None) -> bytes:
    return f"heartbeat-{actor_id}".encode()
