from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from rlcore.errors import WeightSyncError
from rlcore.weight_sync.buckets import ALIGNMENT, Layout, Packer, combined

SHAPES = [("a", (3, 5)), ("b", (7,)), ("c", ())]


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES}


def test_buckets_are_aligned_in_order_and_bounded() -> None:
    layout = Layout.of(SHAPES, "float32", 100)
    places = [[(p.name, p.offset, p.num_bytes) for p in bucket.pieces] for bucket in layout.buckets]
    assert places == [[("a", 0, 60), ("b", 64, 28)], [("c", 0, 4)]]
    assert [bucket.num_bytes for bucket in layout.buckets] == [2 * ALIGNMENT, ALIGNMENT]
    assert (layout.num_bytes, layout.largest) == (92, 2 * ALIGNMENT)
    assert [str(bucket) for bucket in layout.buckets] == ["a to b", "c"]
    assert Layout.of(**json.loads(json.dumps(layout.description()))) == layout
    assert [len(bucket.pieces) for bucket in Layout.of(SHAPES, "float32", 1).buckets] == [1, 1, 1]
    assert len(Layout.of(SHAPES, "float32", 1 << 20).buckets) == 1


def test_a_tensor_larger_than_a_bucket_is_cut() -> None:
    layout = Layout.of([("a", (3,)), ("b", (40,)), ("c", (2,))], "float32", 128)
    places = [[(p.name, p.start, p.offset, p.num_bytes) for p in bucket.pieces] for bucket in layout.buckets]
    assert places == [[("a", 0, 0, 12)], [("b", 0, 0, 128)], [("b", 128, 0, 32), ("c", 0, 64, 8)]]


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=6),
    st.sampled_from(["float32", "bfloat16"]),
    st.integers(1, 600),
    st.integers(0, 1000),
)
def test_pack_then_view_is_the_identity(
    shapes: list[tuple[int, ...]], dtype: str, bucket_bytes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    named = [(f"t{i}", torch.randn(shape, generator=generator)) for i, shape in enumerate(shapes)]
    layout = Layout.of([(name, tuple(t.shape)) for name, t in named], dtype, bucket_bytes)
    packer, buffer = Packer(named), torch.full((layout.largest,), 7, dtype=torch.uint8)

    def payloads() -> Iterator[torch.Tensor]:
        for bucket in layout.buckets:
            assert bucket.num_bytes <= bucket_bytes + ALIGNMENT
            digest = packer.fill(bucket, buffer)
            assert digest == bucket.checksum(buffer)
            yield buffer  # the same again: tensors have memory of their own

    unpacked = dict(layout.tensors(payloads()))
    packer.finish()
    assert list(unpacked) == [name for name, _ in named]
    for name, tensor in named:
        assert torch.equal(unpacked[name], tensor.to(getattr(torch, dtype)))


def test_a_large_tensor_packs_in_chunks_of_any_layout() -> None:
    tensor = torch.randn(300, 700).t()  # not contiguous, several chunks
    layout = Layout.of([("w", (700, 300))], "bfloat16", 1 << 20)
    (bucket,) = layout.buckets
    buffer = torch.zeros(bucket.num_bytes, dtype=torch.uint8)
    digest = Packer([("w", tensor)]).fill(bucket, buffer)
    assert torch.equal(dict(layout.tensors([buffer]))["w"], tensor.bfloat16())
    data = tensor.bfloat16().contiguous().view(torch.uint8).numpy()
    assert digest == bucket.checksum(buffer) == xxhash.xxh3_64_hexdigest(data)


@pytest.mark.parametrize(
    ("given_tensors", "message"),
    [
        ({"a": torch.zeros(3, 5)}, r"expected b \(7,\), got no more tensors"),
        ({"a": torch.zeros(5, 3)}, r"expected a \(3, 5\), got a \(5, 3\)"),
        ({"z": torch.zeros(1)}, r"expected a \(3, 5\), got z \(1,\)"),
        ({"a": torch.zeros(3, 5), "c": torch.zeros(())}, r"expected b \(7,\), got c"),
    ],
)
def test_pack_refuses_what_does_not_fit(given_tensors: dict[str, torch.Tensor], message: str) -> None:
    (bucket,) = Layout.of(SHAPES, "float32", 1000).buckets
    with pytest.raises(WeightSyncError, match=message):
        Packer(given_tensors.items()).fill(bucket, torch.zeros(bucket.num_bytes, dtype=torch.uint8))


def test_names_and_dtypes_are_checked() -> None:
    with pytest.raises(WeightSyncError, match=r"same name twice: \['a'\]"):
        Layout.of([("a", (1,)), ("a", (2,))], "float32", 100)
    with pytest.raises(WeightSyncError, match="int8"):
        Layout.of(SHAPES, "int8", 100)
    with pytest.raises(WeightSyncError, match="there are none"):
        Layout.of([], "float32", 100)


@given(st.integers(0, 91), st.integers(0, 7))
def test_the_checksum_sees_every_bit(byte: int, bit: int) -> None:
    (bucket,) = Layout.of(SHAPES, "float32", 1000).buckets
    buffer = torch.zeros(bucket.num_bytes, dtype=torch.uint8)
    before = Packer(tensors().items()).fill(bucket, buffer)
    used = [p.offset + i for p in bucket.pieces for i in range(p.num_bytes)]
    buffer[used[byte]] ^= 1 << bit
    assert bucket.checksum(buffer) != before


def test_the_checksum_of_a_push_depends_on_the_order() -> None:
    assert combined(["ab", "cd"]) != combined(["cd", "ab"])
