"""A medium in one file outside the repository, that of docs/explanation/rollout.md: accepted, planned with,
and pushed through. And what a medium that does not fit is told."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from rlcore.config import RunConfig, WeightSyncConfig, load_config
from rlcore.config.weight_media import MEDIA, Medium
from rlcore.errors import ConfigError
from rlcore.plan.hardware import KNOWN, Efficiency
from rlcore.plan.phases import PUSH_OVERHEAD_S, sync_seconds
from rlcore.plan.sizes import QWEN2_5_OMNI_7B
from rlcore.weight_sync import MediumIn, MediumOut, Push, make_receiver, make_sender
from rlcore.weight_sync.base import load_end
from rlcore.weight_sync.receiver import Receiver

PROJECT = Path(__file__).parents[4]
SHAPES = [("embed", (50, 30)), ("norm", (30,)), ("head", (30, 50)), ("bias", ())]
BROKEN = """
from rlcore.config.weight_media import Medium
from rlcore.weight_sync import MediumOut

class Out(MediumOut):
    def __init__(self, num_bytes, num_slots): ...

NO_PLAN = Medium(name="no_plan", sender="broken:Out", receiver="broken:Medium")
NO_CLASS = Medium(name="no_class", sender="broken:Gone", receiver="broken:Gone")
A_DICT = {"name": "a_dict"}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two modules that only PYTHONPATH finds: the documentation's, and one that is full of mistakes."""
    page = (PROJECT / "docs" / "explanation" / "rollout.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(# pages.py\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "pages.py").write_text(example, encoding="utf-8")
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("pages", "broken"):
        sys.modules.pop(name, None)


def with_backend(tmp_path: Path, backend: str, *overrides: str) -> RunConfig:
    settings = [
        f"weight_sync.backend={backend}",
        "weight_sync.bucket_mb=0.002",
        "model.path=m",
        "task.target=m:T",
    ]
    return load_config([], [f"run_dir={tmp_path}", *settings, *overrides])


@pytest.mark.usefixtures("outside")
def test_a_medium_from_outside_brings_every_byte_of_every_version(tmp_path: Path) -> None:
    config = with_backend(tmp_path, "pages:MEDIUM").weight_sync
    sender = make_sender(config, SHAPES, dtype="bfloat16")
    assert sender is not None and sender.num_buckets == 4  # of 2 kB, more than there are slots
    receivers = [Receiver(config.backend), Receiver(config.backend)]

    def take(push: Push, rank: int) -> dict[str, torch.Tensor]:
        arrived: dict[str, torch.Tensor] = {}
        receivers[rank].take(
            push,
            engine=rank,
            accept=lambda shapes: None,
            load=lambda layout, payloads: arrived.update(layout.tensors(payloads)),
        )
        return arrived

    for version in (1, 2):
        tensors = {name: torch.randn(shape) for name, shape in SHAPES}
        push = sender.announce(version, [0, 1])
        with ThreadPoolExecutor(3) as threads:
            sending = threads.submit(sender.push, push, tensors.items())
            taking = [threads.submit(take, push, rank) for rank in (0, 1)]
            report, engines = sending.result(), [future.result() for future in taking]
        assert (report.version, report.num_bytes) == (version, 2 * (1500 + 30 + 1500 + 1))
        for engine in engines:
            assert list(engine) == list(tensors)
            assert all(torch.equal(engine[name], tensors[name].bfloat16()) for name in tensors)
    sender.close()
    assert make_sender(config, SHAPES, dtype="bfloat16", rank=1) is None


@pytest.mark.usefixtures("outside")
def test_its_record_is_what_the_rest_of_rlcore_reads(tmp_path: Path) -> None:
    config = with_backend(tmp_path, "pages:MEDIUM", "learner.lora.rank=4", "learner.lora.push=adapters")
    medium = config.weight_sync.medium
    assert (medium.name, medium.vllm_backend, medium.carries_adapters) == ("pages", "rlcore", True)
    sizes, efficiency = QWEN2_5_OMNI_7B, Efficiency()
    config = with_backend(tmp_path, "pages:MEDIUM", "model.dtype=bfloat16")
    assert sync_seconds(config, sizes, KNOWN["h100-80g"], efficiency) == pytest.approx(
        PUSH_OVERHEAD_S + 2 * sizes.language / 2.0e9
    )

    class Workers:
        """Stands for `vllm.LLM`, whose workers are told the medium."""

        def init_weight_transfer_engine(self, request: dict[str, dict[str, str]]) -> None:
            self.info = request["init_info"]

    workers = Workers()
    make_receiver("pages:MEDIUM", rank=0, model_path="").attach(workers)
    assert workers.info == {"backend": "pages:MEDIUM"}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("pages:GONE", r"weight_sync.backend: module 'pages' has no 'GONE'; it has .*'MEDIUM'"),
        ("nowhere_at_all:MEDIUM", r"weight_sync.backend: module 'nowhere_at_all' .*cannot be imported"),
        ("broken:A_DICT", r"weight_sync.backend: got 'broken:A_DICT', must be .*Medium, and names a dict"),
        ("pages", r"weight_sync.backend: got 'pages', must be one of shared_memory, gloo, nccl, ipc, or"),
    ],
)
def test_what_is_no_medium_is_refused_by_the_configuration(
    tmp_path: Path, backend: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_backend(tmp_path, backend)


@pytest.mark.usefixtures("outside")
def test_an_end_that_lacks_a_method_is_refused_where_it_is_built() -> None:
    config = WeightSyncConfig(backend="broken:NO_PLAN")
    with pytest.raises(ConfigError, match=r"broken:Out lacks plan of rlcore.weight_sync.MediumOut"):
        make_sender(config, SHAPES, dtype="float32")
    with pytest.raises(ConfigError, match=r"broken:Medium is no subclass of rlcore.weight_sync.MediumIn"):
        Receiver("broken:NO_PLAN")
    with pytest.raises(ConfigError, match=r"weight_sync.backend: module 'broken' has no 'Gone'"):
        make_sender(replace(config, backend="broken:NO_CLASS"), SHAPES, dtype="float32")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sender": MediumOut}, "Medium.sender: got .*MediumOut.*, must be a string, `package.module:Class`"),
        ({"receiver": "pages"}, "Medium.receiver: got 'pages', must be a string"),
        ({"gpus": "both"}, "gpus: got 'both', must be one of none, separate, shared"),
        ({"gpus": "shared"}, "Medium.gpus: got 'shared', must be none with a receiver"),
        ({"gb_per_s": 0.0}, "Medium.gb_per_s: got 0.0, must be above 0"),
    ],
)
def test_a_record_that_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    fields = {"name": "own", "sender": "own:Out", "receiver": "own:In", **wrong}
    with pytest.raises(ConfigError, match=message):
        Medium(**fields)


def test_every_medium_of_rlcore_has_both_ends() -> None:
    for medium in MEDIA.values():
        if medium.receiver is None:  # vLLM's, which is imported only where it runs
            assert find_spec(medium.sender.partition(":")[0]) is not None
        else:
            assert MediumOut in load_end(medium.sender, MediumOut).__mro__
            assert MediumIn in load_end(medium.receiver, MediumIn).__mro__
