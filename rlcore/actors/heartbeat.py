"""Signs of life: every actor counts up in Ray's key-value store, from a thread beside the one that works.

A process that was stopped, or one of whose threads does not let go of Python's lock, does not count. Ray's
own concurrency groups would do as well, but methods then leave the main thread, which rewards with
`signal.alarm` need; and to ask some hundred engines every second would cost the controller a tenth of it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

logger = logging.getLogger(__name__)

BEAT_S = 1.0
"""Between two beats."""
HEARTBEAT = "heartbeat"
"""Name of the thread that beats."""
_STORE_S = 5.0
"""Longest wait for the store."""
_NAMESPACE = b"rlcore"
_JOB_DIGITS = 8
"""Last digits of an actor's id: those of its driver's job."""


def beating(cls: type) -> type:
    """Returns the class of actors that are a `cls` and beat, from when they are constructed."""
    return type(cls.__name__, (_Beating, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def heartbeats(actors: Sequence[Any]) -> dict[Any, bytes]:
    """Returns the last beat of each actor, by handle; without those that have not beaten yet. No two beats
    are equal, and each begins with the process id. Raises what Ray does where the store does not answer."""
    keys = {_key(actor._actor_id.hex()): actor for actor in actors}
    store = _store()
    found = store.internal_kv_multi_get(list(keys), _NAMESPACE, timeout=_STORE_S)
    return {keys[key]: beat for key, beat in found.items()}


def forget_heartbeats() -> None:
    """Removes the beats of all actors of this driver, which a cluster that lives on would keep for good.
    Those of actors that still live are there again with the next one."""
    with suppress(Exception):  # of a store that is gone, as its beats then are
        prefix = _key(ray.get_runtime_context().get_job_id())
        store = _store()
        store.internal_kv_del(prefix, True, _NAMESPACE, timeout=_STORE_S)


class _Beating:
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        key = _key(ray.get_runtime_context().get_actor_id())
        threading.Thread(target=_beat, args=[key], name=HEARTBEAT, daemon=True).start()


def _beat(key: bytes) -> None:
    is_away = False
    for count in itertools.count():
        try:
            store, beat = _store(), f"{os.getpid()} {count}".encode()
            store.internal_kv_put(key, beat, True, _NAMESPACE, timeout=_STORE_S)
            is_away = False
        except Exception as error:  # the store may be away for a moment; the next beat tells as much
            if not is_away:
                logger.warning("this actor gives no sign of life: Ray's store does not take it: %s", error)
            is_away = True
        time.sleep(BEAT_S)


def _store() -> Any:
    return ray._private.worker.global_worker.gcs_client  # the public one knows no deadlines


def _key(actor_id: str) -> bytes:
    """The key of an actor; of a job's id, what the keys of its actors begin with."""
    return f"heartbeat-{actor_id[-_JOB_DIGITS:]}{actor_id[:-_JOB_DIGITS]}".encode()
