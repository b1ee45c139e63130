"""vLLM's own media without a GPU: the talk between vLLM's client and an engine, not the transfer itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.model_loader import reload
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from rlcore.config import WeightSyncConfig
from rlcore.config.weight_media import MEDIA
from rlcore.engines.vllm_plugin import WorkerExtension
from rlcore.errors import MixedWeightsError, WeightSyncError
from rlcore.weight_sync import make_sender, vllm_native
from rlcore.weight_sync.messages import SenderPort
from rlcore.weight_sync.vllm_native import _PortClient, from_json, serve, to_json

pytestmark = pytest.mark.integration

# As torch's `reduce_tensor` describes a CUDA tensor: what has to travel for `ipc`.
STORAGE = type(torch.zeros(1)._typed_storage())
HANDLE = (torch.Tensor, (4, 2), (2, 1), 0, STORAGE, torch.bfloat16, 0, b"\x00\xff", 16, 0, False)


class RecordingEngine:
    """Stands for `vllm.LLM`, with two workers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        parallel_config = SimpleNamespace(world_size=2)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=parallel_config))

    def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
        self.calls.append(("init", request["init_info"]))

    def start_weight_update(self) -> None:
        self.calls.append(("start", None))

    def update_weights(self, request: dict[str, Any]) -> None:
        self.calls.append(("update", request["update_info"]))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.calls.append(("finish", weight_version))

    def collective_rpc(self, method: str) -> None:
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
    engines, client, seen = [RecordingEngine(), RecordingEngine()], _PortClient(), []

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
            ("init", {"rank_offset": 1 + 2 * rank, "world_size": 5}),
            ("start", None),
            ("update", {"ipc_handles": {"GPU-1": HANDLE}}),
            ("finish", "7"),
        ]


def test_a_push_that_does_not_fit_moves_nothing() -> None:
    engines, client = [RecordingEngine()], _PortClient()

    def refuse(shapes: Any) -> None:
        raise WeightSyncError("the engine has no w")

    def script(talk: Any) -> None:
        talk.answers(0)
        talk.answers(talk.post({"tensors": [("w", (4, 2))]}))

    (error,) = talk_to(engines, client, refuse, script)
    assert str(error) == "weights of version 7: the engine has no w"
    assert engines[0].calls == []


def test_a_push_that_fails_midway_leaves_mixed_weights_and_lets_the_next_one_begin() -> None:
    engines, client = [RecordingEngine()], _PortClient()

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


class Worker(WorkerExtension):
    """A worker's part in a push of `nccl` or `ipc`, by vLLM's own layer-wise reload."""

    def __init__(self) -> None:
        self.model = torch.nn.ModuleDict({"layer": Layer()})
        self._weight_update_active = False
        reload.record_metadata_for_reloading(self.model)

    def start_weight_update(self) -> None:
        assert not self._weight_update_active
        self._weight_update_active = True
        reload.initialize_layerwise_reload(self.model)

    def update_weights(self, *tensors: tuple[str, float]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in tensors:
            parameter = parameters[name]
            load = getattr(parameter, "weight_loader", default_weight_loader)
            load(parameter, torch.full((4, 4), value))

    def fail(self) -> None:
        """What vLLM's worker does where an update raises."""
        self._weight_update_active = False

    def finish_weight_update(self) -> None:
        if not self._weight_update_active:
            raise RuntimeError("finish_weight_update called without a matching start_weight_update.")
        reload.finalize_layerwise_reload(self.model, None)
        self._weight_update_active = False


def test_after_an_update_that_failed_in_a_worker_the_next_push_is_whole() -> None:
    worker = Worker()
    worker.start_weight_update()
    worker.update_weights(("layer.q", 3.0))
    worker.fail()
    worker.abandon_weight_update()
    worker.start_weight_update()
    worker.update_weights(("layer.q", 4.0), ("layer.k", 4.0))
    worker.finish_weight_update()
    held = {name: parameter.unique().tolist() for name, parameter in worker.model.named_parameters()}
    assert held == {"layer.q": [4.0], "layer.k": [4.0]}


class RecordingTrainer:
    """Stands for vLLM's trainer engine: asks the engines for all that it would, and moves nothing."""

    def __init__(self, info: Any, client: _PortClient, source: Any):
        self.info, self._client, self._source = info, client, source
        client.init_weight_transfer_engine({"rank_offset": 1, "world_size": info.world_size})

    def send_weights(self) -> None:
        self._client.start_weight_update()
        sent = [name for name, _ in self._source.stream]
        self._client.update_weights({"names": sent})
        self._client.finish_weight_update()

    def shutdown(self) -> None:
        self._client = None


def test_a_sender_keeps_its_group_until_other_engines_come_or_a_push_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainers: list[RecordingTrainer] = []

    def trainer_init(info: Any, *, client: _PortClient, source: Any) -> RecordingTrainer:
        trainers.append(RecordingTrainer(info, client, source))
        return trainers[-1]

    monkeypatch.setattr(vllm_native.WeightTransferTrainerFactory, "trainer_init", trainer_init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = WeightSyncConfig(backend="nccl", timeout_s=20)
    sender = make_sender(config, [("w", (4, 2)), ("b", (2,))], dtype="bfloat16")
    assert sender is not None and make_sender(config, [("w", (4, 2))], dtype="bfloat16", rank=1) is None
    assert MEDIA["ipc"].every_rank_sends
    tensors = [("w", torch.zeros(4, 2)), ("b", torch.zeros(2))]
    groups, engines = {0: 0, 1: 0}, [RecordingEngine(), RecordingEngine()]

    def push(version: int, ranks: tuple[int, ...], weights: Any = tensors) -> Any:
        announced = sender.announce(version, ranks, workers_per_engine=2)
        with ThreadPoolExecutor(3) as threads:
            sending = threads.submit(sender.push, announced, weights)
            taking = {
                rank: threads.submit(
                    serve, engines[rank], announced, engine=rank, group=groups[rank], accept=lambda _: None
                )
                for rank in ranks
            }
            groups.update({rank: 0 if one.exception() else one.result() for rank, one in taking.items()})
            return sending.exception() or sending.result()

    report = push(1, (0, 1))
    assert (report.version, report.num_bytes, report.num_buckets, report.checksum) == (1, 20, 0, "")
    push(2, (0, 1))
    assert groups == {0: 1, 1: 1} and [trainer.info.world_size for trainer in trainers] == [5]
    push(3, (1,))
    assert groups == {0: 1, 1: 2} and trainers[-1].info.world_size == 3

    def broken() -> Any:
        yield tensors[0]
        raise WeightSyncError("a rank of the learner ended")

    assert "a rank of the learner ended" in str(push(4, (1,), broken()))
    push(5, (1,))
    assert groups[1] == 3 and len(trainers) == 3
    assert engines[1].calls[-2:] == [("update", {"names": ["w", "b"]}), ("finish", "5")]
    sender.close()
