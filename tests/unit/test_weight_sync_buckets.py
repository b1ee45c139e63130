from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcore.errors import ConfigError, WeightSyncError
from rlcore.weight_sync import make_sender
from rlcore.weight_sync.buckets import ALIGNMENT, Manifest, checksum
from rlcore.weight_sync.shared_memory import FOLDER, PREFIX, SharedMemorySender, read

SHAPES = [("a", (3, 5)), ("b", (7,)), ("c", ())]


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES}


def test_layout_is_aligned_and_in_order() -> None:
    manifest = Manifest.of(SHAPES, "float32")
    places = [(s.name, s.offset, s.num_bytes) for s in manifest.specs]
    assert places == [("a", 0, 60), ("b", 64, 28), ("c", 128, 4)]
    assert manifest.num_bytes == 3 * ALIGNMENT
    assert Manifest.from_rows(manifest.rows()) == manifest


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=6),
    st.sampled_from(["float32", "bfloat16"]),
    st.integers(0, 1000),
)
def test_pack_then_view_is_the_identity(shapes: list[tuple[int, ...]], dtype: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    named = [(f"t{i}", torch.randn(shape, generator=generator)) for i, shape in enumerate(shapes)]
    manifest = Manifest.of([(name, tuple(t.shape)) for name, t in named], dtype)
    buffer = torch.zeros(manifest.num_bytes, dtype=torch.uint8)
    manifest.pack(buffer, reversed(named))
    unpacked = dict(manifest.views(buffer))
    assert list(unpacked) == [name for name, _ in named]
    for name, tensor in named:
        assert torch.equal(unpacked[name], tensor.to(getattr(torch, dtype)))


@pytest.mark.parametrize(
    ("given_tensors", "message"),
    [
        ({"a": torch.zeros(3, 5)}, "2 tensors were not given, among them b"),
        ({"a": torch.zeros(5, 3)}, r"shape \(3, 5\)"),
        ({"z": torch.zeros(1)}, "no such tensor"),
    ],
)
def test_pack_refuses_what_does_not_fit(given_tensors: dict[str, torch.Tensor], message: str) -> None:
    manifest = Manifest.of(SHAPES, "float32")
    with pytest.raises(WeightSyncError, match=message):
        manifest.pack(torch.zeros(manifest.num_bytes, dtype=torch.uint8), given_tensors.items())


def test_names_and_dtypes_are_checked() -> None:
    with pytest.raises(WeightSyncError, match=r"same name twice: \['a'\]"):
        Manifest.of([("a", (1,)), ("a", (2,))], "float32")
    with pytest.raises(WeightSyncError, match="int8"):
        Manifest.of(SHAPES, "int8")
    with pytest.raises(ConfigError, match=r"weight_sync.backend: got 'pigeon'"):
        make_sender("pigeon", SHAPES, dtype="float32")


def test_checksum_sees_one_bit() -> None:
    buffer = torch.arange(200, dtype=torch.uint8)
    before = checksum(buffer)
    buffer[150] ^= 1
    assert checksum(buffer) != before


def test_a_push_is_read_back_and_damage_is_noticed() -> None:
    sender = SharedMemorySender(SHAPES)
    manifest = Manifest.of(SHAPES, "float32")
    push = sender.push(3, tensors(3).items())
    path, digest = push.update_info["path"], push.update_info["checksum"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    payload = read(path, 3, digest, manifest)
    assert all(torch.equal(t, tensors(3)[name]) for name, t in manifest.views(payload))

    with pytest.raises(WeightSyncError, match="holds version 3"):
        read(path, 4, digest, manifest)
    with open(path, "r+b") as file:
        file.seek(ALIGNMENT + 70)
        file.write(b"\xff")
    with pytest.raises(WeightSyncError, match="checksum"):
        read(path, 3, digest, manifest)

    newer = sender.push(4, tensors(4).items())
    with pytest.raises(WeightSyncError, match=r"of version 3: .* holds version 4"):
        read(path, 3, digest, manifest)
    assert newer.update_info["path"] == path

    sender.close()
    sender.close()
    assert not Path(path).exists()
    with pytest.raises(WeightSyncError, match="one machine"):
        read(path, 4, newer.update_info["checksum"], manifest)
    with pytest.raises(WeightSyncError, match="closed"):
        sender.push(5, tensors(5).items())


def test_a_failed_push_leaves_nothing_that_could_be_loaded() -> None:
    sender = SharedMemorySender(SHAPES)
    push = sender.push(1, tensors().items())
    with pytest.raises(WeightSyncError):
        sender.push(2, [("a", torch.zeros(3, 5))])
    with pytest.raises(WeightSyncError, match="holds version -1"):
        read(push.update_info["path"], 1, push.update_info["checksum"], Manifest.of(SHAPES, "float32"))
    sender.close()


def test_files_of_dead_processes_are_removed() -> None:
    orphan = FOLDER / f"{PREFIX}999999999-test"
    orphan.write_bytes(b"x")
    sender = SharedMemorySender(SHAPES)
    assert not orphan.exists()
    sender.close()


def test_memory_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(WeightSyncError, match="not free"):
        SharedMemorySender([("huge", (1 << 44,))])
