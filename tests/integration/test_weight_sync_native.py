"""vLLM's own media without a GPU: the talk between vLLM's client and the engines, and vLLM's `nccl` over a
collective that waits for ever for whoever does not come (cpu_nccl.py)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cpu_nccl import Member, cpu_nccl
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.model_executor.model_loader import reload
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from rlcore.config import WeightSyncConfig
from rlcore.config.weight_media import MEDIA
from rlcore.engines.vllm_plugin import WorkerExtension
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.weight_sync import make_sender
from rlcore.weight_sync.base import Push
from rlcore.weight_sync.messages import SenderPort
from rlcore.weight_sync.vllm_native import NativeSender, serve
from rlcore.weight_sync.vllm_trainer import _PortClient, from_json, to_json

__all__ = ["cpu_nccl"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# As torch's `reduce_tensor` describes a CUDA tensor: what has to travel for `ipc`.
STORAGE = type(torch.zeros(1)._typed_storage())
HANDLE = (torch.Tensor, (4, 2), (2, 1), 0, STORAGE, torch.bfloat16, 0, b"\x00\xff", 16, 0, False)


class RecordingEngine:
    """Stands for `vllm.LLM`, with two workers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        parallel_config = SimpleNamespace(world_size=2)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=parallel_config))

    def shutdown_weight_transfer_engine(self) -> None:
        self.calls.append(("shutdown", None))

    def start_weight_update(self) -> None:
        self.calls.append(("start", None))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append(("finish", weight_version))

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        if method == "join_push":
            method, argument, *_ = args
            self.calls.append((method, argument))
        else:
            self.calls.append((method, None))


def talk_to(engines: list[RecordingEngine], client: _PortClient, accept: Any, script: Any) -> list[Any]:
    """Runs the learner's `script`; what each engine's `serve` gave or raised."""
    port = SenderPort("127.0.0.1", 20)
    push = port.announce("nccl", 7, tuple(range(len(engines))), 1)
    client.talk = port.open(push)
    with ThreadPoolExecutor(len(engines)) as threads:
        serving = [
            threads.submit(serve, llm, push, engine=rank, group=0, accept=accept)
            for rank, llm in enumerate(engines)
        ]
        try:
            script(client.talk)
        except WeightSyncError as error:
            client.talk.call_off(str(error))
        return [future.exception() or future.result() for future in serving]


def test_handles_travel_without_pickle() -> None:
    handles = {"names": ["w"], "ipc_handles": {"GPU-1": HANDLE}, "sizes": [16, None]}
    assert from_json(to_json(handles)) == handles
    with pytest.raises(KeyError):
        from_json({"__class__": "Popen"})


def test_every_engine_does_what_vllms_client_asks_and_knows_its_ranks() -> None:
    engines, client, seen = [RecordingEngine(), RecordingEngine()], _PortClient(SimpleQueue()), []

    def script(talk: Any) -> None:
        assert [answer["group"] for answer in talk.answers(0).values()] == [0, 0]
        talk.answers(talk.post({"tensors": [("w", (4, 2))]}))
        client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 5})
        client.start_weight_update()
        client.update_weights({"ipc_handles": {"GPU-1": HANDLE}})
        client.finish_weight_update()
        talk.answers(talk.post({"end": True, "group": 3}))

    assert talk_to(engines, client, lambda shapes: seen.append(list(shapes)), script) == [3, 3]
    assert seen == [[("w", (4, 2))]] * 2
    for rank, engine in enumerate(engines):  # rank 0 is the learner's, two workers an engine
        assert engine.calls == [
            ("shutdown", None),
            ("init_weight_transfer_engine", {"rank_offset": 1 + 2 * rank, "world_size": 5}),
            ("start", None),
            ("update_weights", {"ipc_handles": {"GPU-1": HANDLE}}),
            ("finish", "7"),
        ]


def test_a_push_that_does_not_fit_moves_nothing() -> None:
    engines, client = [RecordingEngine()], _PortClient(SimpleQueue())

    def refuse(shapes: Any) -> None:
        raise WeightSyncError("the engine has no w")

    def script(talk: Any) -> None:
        talk.answers(0)
        talk.answers(talk.post({"tensors": [("w", (4, 2))]}))

    (error,) = talk_to(engines, client, refuse, script)
    assert str(error) == "weights of version 7: the engine has no w"
    assert engines[0].calls == []


def test_a_push_that_fails_midway_leaves_mixed_weights_and_lets_the_next_one_begin() -> None:
    engines, client = [RecordingEngine()], _PortClient(SimpleQueue())

    def script(talk: Any) -> None:
        talk.answers(0)
        talk.answers(talk.post({"tensors": [("w", (4, 2))]}))
        client.start_weight_update()
        raise WeightSyncError("a rank of the learner ended")

    (error,) = talk_to(engines, client, lambda shapes: None, script)
    assert isinstance(error, MixedWeightsError)
    assert "version 7" in str(error) and "a rank of the learner ended" in str(error)
    assert engines[0].calls == [("start", None), ("abandon_weight_update", None)]


class Layer(torch.nn.Module):
    """Two tensors of one layer, as vLLM joins q, k and v."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = (torch.nn.Parameter(torch.ones(4, 4), requires_grad=False) for _ in range(2))

    def load_weights(self, tensors: Any) -> None:
        parameters = dict(self.named_parameters())
        for name, tensor in tensors:
            getattr(parameters[name], "weight_loader", default_weight_loader)(parameters[name], tensor)


class Engine(WorkerExtension):
    """Stands for `vllm.LLM` and its only worker: a push by vLLM's `nccl`, with its layer-wise reload."""

    def __init__(self, rank: int):
        self.model = torch.nn.ModuleDict({"layer": Layer()})
        self.model.load_weights = lambda tensors: self.model["layer"].load_weights(
            (name.removeprefix("layer."), tensor) for name, tensor in tensors
        )
        self.rank, self.group, self.dies = rank, 0, threading.Event()
        self.parallel_config = SimpleNamespace(world_size=1, rank=0, data_parallel_index=0)
        config = SimpleNamespace(parallel_config=self.parallel_config, model_config=None)
        self.llm_engine = SimpleNamespace(vllm_config=config)
        self.weight_transfer_engine = NCCLWeightTransferEngine(
            WeightTransferConfig(backend="nccl"), config, torch.device("cpu"), self.model
        )
        self._weight_update_active = False
        reload.record_metadata_for_reloading(self.model)

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        getattr(self, method)(*args)

    def init_weight_transfer_engine(self, info: dict[str, Any]) -> None:
        transfer = self.weight_transfer_engine
        transfer.init_transfer_engine(transfer.parse_init_info(info))

    def shutdown_weight_transfer_engine(self) -> None:
        assert not self._weight_update_active
        self.weight_transfer_engine.shutdown()

    def start_weight_update(self) -> None:
        assert not self._weight_update_active
        self._weight_update_active = True
        self.weight_transfer_engine.start_weight_update()

    def update_weights(self, info: dict[str, Any]) -> None:
        transfer = self.weight_transfer_engine
        try:
            if self.dies.is_set():
                raise ValueError("CUDA error: out of memory")
            transfer.receive_weights(transfer.parse_update_info(info))
        except BaseException:  # as vLLM's worker
            self._weight_update_active = False
            raise

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        if not self._weight_update_active:
            raise RuntimeError("finish_weight_update called without a matching start_weight_update.")
        self.weight_transfer_engine.finish_weight_update()
        self._weight_update_active = False

    def take(self, push: Push) -> None:
        group, self.group = self.group, 0
        self.group = serve(self, push, engine=self.rank, group=group, accept=lambda _: None)

    def held(self) -> list[float]:
        return sorted({value for tensor in self.model.parameters() for value in tensor.unique().tolist()})


class Learner:
    """A sender of two tensors, and engines that take part in threads of their own."""

    def __init__(self, timeout_s: float = 20):
        config = WeightSyncConfig(backend="nccl", timeout_s=timeout_s)
        self.sender = NativeSender(config, SHAPES, dtype="float32", host="127.0.0.1")
        self.num_gathered = 0

    def weights(self, value: float, breaks: bool = False) -> Any:
        for name, shape in SHAPES:
            if breaks and self.num_gathered % 2:
                raise WeightSyncError("a rank of the learner ended")
            self.num_gathered += 1
            yield name, torch.full(shape, value)

    def push(self, value: float, engines: list[Engine], **how: Any) -> list[BaseException | None]:
        """Pushes a value as version `value`; what went wrong at the learner, then at each engine."""
        push = self.sender.announce(int(value), [engine.rank for engine in engines])
        with ThreadPoolExecutor(1 + len(engines)) as threads:
            sending = threads.submit(self.sender.push, push, self.weights(value, **how))
            taking = [threads.submit(engine.take, push) for engine in engines]
            return [one.exception(timeout=60) for one in [sending, *taking]]


SHAPES = [("layer.q", (4, 4)), ("layer.k", (4, 4))]
WELL = [None, None, None]


def test_after_an_update_that_failed_in_a_worker_the_next_push_is_whole() -> None:
    """Its first tensor had come: vLLM's reload would take the next push's for the rest of the layer."""
    engine = Engine(0)
    engine.start_weight_update()
    engine.model.load_weights([("layer.q", torch.full((4, 4), 3.0))])
    engine._weight_update_active = False
    engine.abandon_weight_update()
    engine.start_weight_update()
    engine.model.load_weights([(name, torch.full(shape, 4.0)) for name, shape in SHAPES])
    engine.finish_weight_update()
    assert engine.held() == [4.0]


def test_a_group_lasts_until_other_engines_come_and_is_left_before_the_next_is_made(
    cpu_nccl: list[Member],
) -> None:
    assert make_sender_for_rank_1() is None and MEDIA["ipc"].every_rank_sends
    learner, engines = Learner(), [Engine(0), Engine(1)]
    assert learner.push(1.0, engines) == learner.push(2.0, engines) == WELL
    assert [engine.held() for engine in engines] == [[2.0], [2.0]]
    assert sorted((one.rank, one.world_size) for one in cpu_nccl) == [(0, 3), (1, 3), (2, 3)]
    assert learner.push(3.0, engines[1:]) == WELL[1:] and engines[1].held() == [3.0]
    first, second = cpu_nccl[:3], cpu_nccl[3:]
    assert [(one.rank, one.is_destroyed) for one in sorted(first, key=lambda one: one.rank)] == [
        (0, True),
        (1, False),  # not of the push: it leaves once it is asked into another group
        (2, True),
    ]
    assert not any(one.is_destroyed for one in second) and len(second) == 2
    learner.sender.close()
    assert all(one.is_destroyed for one in cpu_nccl if one.rank == 0)


def make_sender_for_rank_1() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        return make_sender(WeightSyncConfig(backend="nccl"), SHAPES, dtype="bfloat16", rank=1)


def test_an_engine_that_fails_in_a_push_holds_up_neither_the_learner_nor_the_others(
    cpu_nccl: list[Member],
) -> None:
    learner, engines = Learner(timeout_s=600), [Engine(0), Engine(1)]
    engines[1].dies.set()
    of_learner, of_other, of_failed = learner.push(1.0, engines)
    assert "rollout[1] refused weights of version 1: CUDA error: out of memory" in str(of_learner)
    assert isinstance(of_other, MixedWeightsError) and isinstance(of_failed, MixedWeightsError)
    assert learner.num_gathered == 2, "other ranks gather along to the end"
    assert all(one.is_destroyed for one in cpu_nccl if one.rank in (0, 1))
    # The other is brought the weights alone, and both once the failed one is replaced.
    assert learner.push(2.0, engines[:1]) == WELL[1:] and engines[0].held() == [2.0]
    engines[1] = Engine(1)
    assert learner.push(3.0, engines) == WELL
    assert [engine.held() for engine in engines] == [[3.0], [3.0]]
    learner.sender.close()


def test_a_collective_that_never_ends_is_called_off_at_the_deadline(
    cpu_nccl: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No one has refused, and no one hung up: a member does not come, or its link is down."""
    learner, engines = Learner(timeout_s=2), [Engine(0), Engine(1)]
    broadcast = Member.broadcast

    def lost(self: Member, tensor: torch.Tensor) -> None:
        """The second tensor does not reach the last engine."""
        if self.rank == 2 and self._num_calls == 1:
            self._group = type(self._group)()
        broadcast(self, tensor)

    monkeypatch.setattr(Member, "broadcast", lost)
    errors = learner.push(1.0, engines)
    assert "did not answer within 2 s (weight_sync.timeout_s)" in str(errors[0])
    assert all(isinstance(error, MixedWeightsError) for error in errors[1:])
    assert all(one.is_destroyed for one in cpu_nccl) and learner.num_gathered == 2
    monkeypatch.setattr(Member, "broadcast", broadcast)
    learner.sender._port.timeout_s = 20
    assert learner.push(2.0, engines) == WELL
    assert [engine.held() for engine in engines] == [[2.0], [2.0]]
    learner.sender.close()


def test_a_learner_that_cannot_gather_calls_off_what_vllm_is_sending(cpu_nccl: list[Member]) -> None:
    learner, engines = Learner(timeout_s=600), [Engine(0), Engine(1)]
    errors = learner.push(1.0, engines, breaks=True)
    assert "a rank of the learner ended" in str(errors[0])
    assert all(isinstance(error, MixedWeightsError) for error in errors[1:])
    assert learner.push(2.0, engines) == WELL
    assert [engine.held() for engine in engines] == [[2.0], [2.0]]
    learner.sender.close()
