"""Two values with different content never share a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.records.digest import update_digest


@dataclass
class Clip:
    samples: np.ndarray
    rate: int


class Colour(Enum):
    RED = 1
    BLUE = 2


def digest(value: object) -> str:
    made = hashlib.sha256()
    update_digest(made, value)
    return made.hexdigest()


def wave(middle: float) -> np.ndarray:
    """16000 samples whose ends are alike: their `repr` shows no more than those."""
    samples = np.zeros(16000, np.float32)
    samples[8000] = middle
    return samples


def objects(middle: float) -> np.ndarray:
    return np.array([wave(middle), None], dtype=object)


DIFFERENT: list[tuple[object, object]] = [
    (wave(1), wave(2)),
    (torch.from_numpy(wave(1)), torch.from_numpy(wave(2))),
    (torch.from_numpy(wave(1)).bfloat16(), torch.from_numpy(wave(2)).bfloat16()),
    (torch.zeros(4), torch.zeros(2, 2)),
    (torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float32)),
    (torch.zeros(2), np.zeros(2, np.float32)),
    (objects(1), objects(2)),
    ({"a": [(objects(1),)]}, {"a": [(objects(2),)]}),
    (Clip(wave(1), 8000), Clip(wave(2), 8000)),
    (np.zeros(2, "<f4"), np.zeros(2, ">f4")),
    (np.float32(1), np.float64(1)),
    ({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}),
    ({1: "a"}, {"1": "a"}),
    (["a", "b"], ["ab"]),
    ([1, True], [1, 1]),
    ({1, 2}, [1, 2]),
    ({1, 2}, {1, 3}),
    (Path("a"), "a"),
    (Colour.RED, Colour.BLUE),
    (b"a", "a"),
    (None, "None"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_content_is_a_different_digest(one: object, other: object) -> None:
    assert digest(one) != digest(other)


def test_equal_content_is_one_digest() -> None:
    for make in (wave, objects, lambda m: torch.from_numpy(wave(m)), lambda m: Clip(wave(m), 8000)):
        assert digest(make(1)) == digest(make(1))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(torch.arange(6).reshape(2, 3).T.contiguous()) == digest(torch.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize(
    "value", [object(), [object()], np.ma.masked_array([1], [True]), torch.eye(2).to_sparse()]
)
def test_what_cannot_be_read_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no content that can be compared"):
        digest(value)
