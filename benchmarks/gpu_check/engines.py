"""Weights into a running vLLM engine: that they arrive, that they are the learner's, and that a death in the
middle costs no more than the push.

The learner is this process, the engine a process of its own, as on a cluster: CUDA's handles cannot be opened
where they were made.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.gpu_check.record import Record
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from rlcore.config import WeightSyncConfig
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.vllm_engine import VLLMEngine, engine_env
from rlcore.engines.weights import rollout_weights
from rlcore.errors import WeightSyncError
from rlcore.models.hf_model import DTYPES, load_model
from rlcore.weight_sync import make_sender
from rlcore.weight_sync.sender import WeightSender

START_S, ANSWER_S, PUSH_S = 120.0, 60.0, 20.0
TEXTS = ["the speaker has a high pitch and fast speech so the emotion is angry system user assistant"] * 5
PROMPT = "<|im_start|>user\nwhat is the emotion?<|im_end|>\n<|im_start|>assistant\n"
FAR, USUAL = (1e-3, 1e-4), (0.5, 0.05)
"""Largest and mean difference of log-probabilities, in nats: in float32, and in bfloat16."""


@dataclass
class Checkpoint:
    """The model of both sides."""

    path: str
    model: PreTrainedModel
    dtype: str

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what a learner pushes: (hub name, whole tensor)."""
        for weight in rollout_weights(self.model):
            yield weight.hub_name, weight.tensor(DTYPES[self.dtype])

    def sender(self, backend: str) -> WeightSender:
        """Returns the learner's end of a medium."""
        shapes = [(weight.hub_name, weight.shape) for weight in rollout_weights(self.model)]
        sender = make_sender(WeightSyncConfig(backend=backend, timeout_s=PUSH_S), shapes, dtype=self.dtype)
        assert sender is not None
        return sender


def _checkpoint(folder: Path, device: str, tiny: bool) -> Checkpoint:
    """Writes a speech model of made-up weights, on a GPU of some 0.2B and in bfloat16, so that the first push
    brings the very bytes of the folder."""
    config = TinyModelConfig()
    if not tiny:
        config = TinyModelConfig(hidden_size=1024, num_heads=16, intermediate_size=4096, decoder_layers=12)
    build_tiny_model(folder, TEXTS, config)
    dtype = "float32" if device == "cpu" else "bfloat16"
    model = load_model(str(folder), dtype=dtype).float().to(device)
    return Checkpoint(str(folder), model, dtype)


class Engine:
    """An engine in a process of its own, which does one thing at a time."""

    def __init__(self, checkpoint: Checkpoint, backend: str, device: str, *, can_sleep: bool = False):
        os.environ.update(engine_env(cpu=device == "cpu"))
        context = torch.multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        settings = {"dtype": checkpoint.dtype, "weight_backend": backend, "can_sleep": can_sleep}
        # No graphs: their capture is most of an engine's start, and no push depends on it.
        arguments: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 16}
        if device == "cuda":
            arguments |= {"gpu_memory_utilization": 0.2, "enforce_eager": True}
        self._process = context.Process(
            target=_serve, args=(there, checkpoint.path, settings | {"engine_args": arguments})
        )
        self._process.start()
        there.close()
        self.start_seconds = float(self.answer(START_S))

    def ask(self, method: str, *arguments: Any) -> None:
        """Asks for one of `_Served`'s methods; `answer` has what it returns."""
        self._connection.send((method, arguments))

    def answer(self, timeout_s: float = ANSWER_S) -> Any:
        """Returns the answer, or raises what was raised there."""
        if not self._connection.poll(timeout_s):
            raise TimeoutError(f"the engine has not answered within {timeout_s:.0f} s")
        answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def do(self, method: str, *arguments: Any) -> Any:
        """Asks, and waits for the answer."""
        self.ask(method, *arguments)
        return self.answer()

    def take(self, sender: WeightSender, checkpoint: Checkpoint, version: int) -> float:
        """Pushes the learner's weights to this engine, and returns the seconds."""
        push = sender.announce(version, [0])
        self.ask("take", push)
        start = time.perf_counter()
        sender.push(push, checkpoint.weights())
        assert self.answer() == version
        return time.perf_counter() - start

    def kill(self) -> None:
        """Ends the process as a lack of memory would."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(10)

    def close(self) -> None:
        """Ends the process; it may be dead already."""
        if self._process.is_alive():
            self.kill()
        self._connection.close()


class _Served:
    """What an engine's process can be asked for."""

    def __init__(self, path: str, settings: dict[str, Any]):
        self._path = path
        self._engine = VLLMEngine(path, **settings)

    def digests(self) -> dict[str, str]:
        """A digest of every parameter, by vLLM's own names."""
        found: dict[str, str] = {}
        for number, worker in enumerate(self._engine._llm.collective_rpc("compute_weight_checksums")):
            found |= {f"{number}.{name}": str(digest) for name, digest in worker.items()}
        return found

    def answers(self, num_samples: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Samples answers: the prompt's tokens, and each answer's tokens and log-probabilities."""
        from rlcore.engines.sampling import EngineRequest, Sampling
        from rlcore.models.media import MediaEncoder
        from rlcore.types import Prompt

        prompt = Prompt(id="0", text=PROMPT)
        (encoded,) = MediaEncoder(self._path, lambda _: {}).encode([prompt])
        request = EngineRequest(id="0", text=PROMPT, encoded=encoded, seed=0)
        (completions,) = self._engine.generate([request], Sampling(n=num_samples, max_tokens=64))
        rows = [(np.array(c.token_ids), np.array(c.logprobs)) for c in completions]
        return np.array(encoded.prompt_token_ids), rows

    def take(self, push: Any) -> int:
        """Takes part in a push."""
        return self._engine.apply_weights(push)

    def sleep(self) -> None:
        """Gives memory back."""
        self._engine.sleep()

    def wake_up(self, what: str) -> None:
        """Takes it again."""
        self._engine.wake_up(what)


def _serve(connection: Connection, path: str, settings: dict[str, Any]) -> None:
    try:
        start = time.perf_counter()
        served = _Served(path, settings)
        connection.send(time.perf_counter() - start)
    except BaseException as error:
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))
        raise
    while True:
        method, arguments = connection.recv()
        try:
            connection.send(getattr(served, method)(*arguments))
        except Exception as error:
            connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def push(record: Record, device: str, *, tiny: bool) -> None:
    """Pushes the bytes that an engine was built from, other ones, and the first again; compares digests of
    all of its parameters. Then log-probabilities, and sleep."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _checkpoint(Path(folder), device, tiny)
        for backend in ["shared_memory"] if device == "cpu" else ["ipc", "shared_memory"]:
            try:
                _push_by(record, checkpoint, backend, device)
            except Exception as error:  # one medium must not cost the other
                record.broke(backend, error)


def _push_by(record: Record, checkpoint: Checkpoint, backend: str, device: str) -> None:
    can_sleep = device == "cuda"
    engine, sender = Engine(checkpoint, backend, device, can_sleep=can_sleep), checkpoint.sender(backend)
    try:
        record.measured(f"{backend}: start of an engine", engine.start_seconds, "s")
        built = engine.do("digests")
        seconds = engine.take(sender, checkpoint, 1)
        record.measured(f"{backend}: first push of {sender.num_bytes / 1e6:.0f} MB", seconds, "s")
        _same(record, f"{backend}: the checkpoint's own bytes", built, engine.do("digests"))
        with torch.no_grad():
            kept = [parameter.clone() for parameter in checkpoint.model.parameters()]
            for parameter in checkpoint.model.parameters():
                parameter.mul_(1.25)
        seconds = engine.take(sender, checkpoint, 2)
        record.measured(f"{backend}: a later push", sender.num_bytes / seconds / 1e9, "GB/s")
        moved = sum(built[name] != digest for name, digest in engine.do("digests").items())
        record.measured(
            f"{backend}: parameters that other weights have changed", moved, f"of {len(built)}", at_least=1
        )
        _logprobs(record, f"{backend}: log-probabilities after it", engine, checkpoint)
        with torch.no_grad():
            for parameter, before in zip(checkpoint.model.parameters(), kept, strict=True):
                parameter.copy_(before)
        if can_sleep:
            free = _free_gb()
            engine.do("sleep")
            record.measured(f"{backend}: given back asleep", _free_gb() - free, "GB", at_least=1.0)
            engine.do("wake_up", "weights")
        engine.take(sender, checkpoint, 3)
        if can_sleep:
            engine.do("wake_up", "kv_cache")
        _same(
            record,
            f"{backend}: back again{', through sleep' if can_sleep else ''}",
            built,
            engine.do("digests"),
        )
        _logprobs(record, f"{backend}: log-probabilities then", engine, checkpoint)
    finally:
        engine.close()
        sender.close()


def _same(record: Record, what: str, built: dict[str, str], now: dict[str, str]) -> None:
    other = sorted(name for name in built.keys() | now.keys() if built.get(name) != now.get(name))
    told = f"all {len(built)} digests the same" if not other else f"{len(other)} differ, the first {other[0]}"
    record.measured(what, told, passed=not other)


@torch.no_grad()
def _logprobs(record: Record, what: str, engine: Engine, checkpoint: Checkpoint) -> None:
    """Compares an engine's log-probabilities of what it samples with the learner's of the same tokens."""
    prompt, rows = engine.do("answers", 8)
    group = TokenGroup(prompt_token_ids=prompt, token_ids=tuple(tokens for tokens, _ in rows))
    narrow = checkpoint.dtype == "bfloat16"
    with torch.autocast(checkpoint.model.device.type, torch.bfloat16, enabled=narrow):
        own = completion_logprobs(checkpoint.model, [group]).rows()
    apart = np.concatenate([np.abs(a - b) for a, (_, b) in zip(own, rows, strict=True)])
    worst, mean = USUAL if narrow else FAR
    record.measured(f"{what}, largest difference", float(apart.max()), "nats", at_most=worst)
    record.measured(f"{what}, mean", float(apart.mean()), "nats", at_most=mean)


def _free_gb() -> float:
    return torch.cuda.mem_get_info()[0] / 1e9


def kill(record: Record, device: str, *, tiny: bool) -> None:
    """Kills the engine when half of the tensors have left: the learner must notice within the push's
    deadline, and a new engine must take the weights whole."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _checkpoint(Path(folder), device, tiny)
        for backend in ["shared_memory"] if device == "cpu" else ["ipc", "shared_memory"]:
            try:
                _kill_by(record, checkpoint, backend, device)
            except Exception as error:
                record.broke(backend, error)


def _kill_by(record: Record, checkpoint: Checkpoint, backend: str, device: str) -> None:
    engine, sender = Engine(checkpoint, backend, device), checkpoint.sender(backend)
    try:
        engine.take(sender, checkpoint, 1)
        wanted = engine.do("digests")
        appointment = sender.announce(2, [0])
        engine.ask("take", appointment)
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(sender.push, appointment, _deadly(engine, checkpoint))
            error = sending.exception(PUSH_S + ANSWER_S)
        noticed = isinstance(error, WeightSyncError)
        record.measured(f"{backend}: the learner hears of the death", f"{error}"[:120], passed=noticed)
        record.measured(f"{backend}: after", time.perf_counter() - start, "s", at_most=PUSH_S + 15)
        engine.close()
        engine = Engine(checkpoint, backend, device)
        engine.take(sender, checkpoint, 2)
        _same(record, f"{backend}: its successor", wanted, engine.do("digests"))
    finally:
        engine.close()
        sender.close()


def _deadly(engine: Engine, checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    half = sum(1 for _ in rollout_weights(checkpoint.model)) // 2
    for index, one in enumerate(checkpoint.weights()):
        if index == half:
            engine.kill()
        yield one
