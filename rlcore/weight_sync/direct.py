"""A loader's work, recorded once and then repeated as plain copies.

vLLM's `load_weights` walks all modules and looks every name up, to end in copies into (parts of) parameters:
q, k and v side by side in one, for instance. Which bytes go where does not change from push to push. So the
first push goes through the loader under observation, and later ones straight from the buckets to where the
bytes belong. Where a loader does more than copy (casts, transposes, takes a shard, computes something from
the weights), nothing is recorded, and every push goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlcore.weight_sync.buckets import Layout

LoadWeights = Callable[[Iterable[tuple[str, Tensor]]], Any]
_CONSTANT = (torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default)
"""What loaders do to padding, to the same effect every time."""

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class DirectCopies:
    """A plan of where every byte of a layout's buckets goes in the model.

    Args:
        layout: of the pushes.
        model: whose parameters and buffers, on the CPU, are the destinations.
        targets: destinations of every tensor of the layout, in the order of its bytes, which they make up.
    """

    def __init__(self, layout: Layout, model: nn.Module, targets: Mapping[str, Iterable[_Bytes]]):
        self._layout, self._model, self._addresses = layout, model, _addresses(model)
        rest = {name: list(parts) for name, parts in targets.items()}
        # One list a bucket: (first byte, last byte in the bucket, destination).
        self._copies: list[list[tuple[int, int, _Bytes]]] = []
        for bucket in layout.buckets:
            copies: list[tuple[int, int, _Bytes]] = []
            for piece in bucket.pieces:
                begin, end = piece.offset, piece.offset + piece.num_bytes
                while begin < end:
                    target = rest[piece.name].pop(0)
                    taken = min(target.size, end - begin)
                    if taken < target.size:
                        rest[piece.name].insert(0, target[taken:])
                    copies.append((begin, begin + taken, target[:taken]))
                    begin += taken
            self._copies.append(copies)

    def fit(self, layout: Layout) -> bool:
        """Tells whether the copies are of this layout, and the model's tensors still lie where they lay."""
        return layout is self._layout and _addresses(self._model) == self._addresses

    def load(self, payloads: Iterable[Tensor]) -> None:
        """Copies all buckets of a push (uint8, in order) into the model."""
        for copies, payload in zip(self._copies, payloads, strict=True):
            data = payload.numpy()
            for begin, end, target in copies:
                np.copyto(target, data[begin:end])


def record(
    layout: Layout, payloads: Iterable[Tensor], model: nn.Module, load_weights: LoadWeights
) -> DirectCopies | None:
    """Loads a push through `load_weights`; returns how to do the same by copies, or `None` where the loader
    does more than copy every byte to one place in the model (or has it there in another form)."""
    recorder = _Recorder(model)
    with recorder:
        load_weights(recorder.watch(layout.tensors(payloads)))
    targets = recorder.targets(dict(layout.shapes))
    return None if targets is None else DirectCopies(layout, model, targets)


class _Recorder(TorchDispatchMode):
    """Sees every operation of a loader on the tensors it is given and on the model's own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._owned = {_storage(tensor) for tensor in _tensors(model)}
        self._names: dict[int, str] = {}  # storage of the tensor that the loader was given last, and before
        self._digests: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._copies: dict[str, list[tuple[int, _Bytes]]] = {}  # first byte in the tensor, destination
        self._only_copies = True

    def watch(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors:
            data = _bytes(tensor)
            self._names[_storage(tensor)] = name
            self._digests[name], self._sizes[name] = xxhash.xxh3_64_hexdigest(data.data), data.size
            self._copies[name] = []
            yield name, tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.copy_.default:
            self._note_copy(*args[:2])
        else:
            self._note(func, [*args, *(kwargs or {}).values()], result)
        return result

    def targets(self, shapes: Mapping[str, Any]) -> dict[str, list[_Bytes]] | None:
        """Returns the destinations of every tensor, in order, if together they hold just its bytes."""
        if not self._only_copies or self._copies.keys() != shapes.keys():
            return None
        targets = {}
        for name, copies in self._copies.items():
            digest, position = xxhash.xxh3_64(), 0
            for start, target in sorted(copies, key=lambda copy: copy[0]):
                if start != position:
                    return None
                position += target.size
                digest.update(target.data)
            if position != self._sizes[name] or digest.hexdigest() != self._digests[name]:
                return None
            targets[name] = [target for _, target in sorted(copies, key=lambda copy: copy[0])]
        return targets

    def _note_copy(self, target: Tensor, source: Tensor) -> None:
        name = self._names.get(_storage(source))
        if _storage(target) not in self._owned:
            self._only_copies &= name is None
        elif name is not None and _is_plain(target, source):
            start = int(source.storage_offset()) * source.element_size()
            self._copies[name].append((start, _bytes(target)))
        else:
            self._only_copies = False

    def _note(self, func: Any, inputs: list[Any], result: Any) -> None:
        """Looking at a part of a tensor is allowed; computing with it, or changing the model, is not."""
        given = {_storage(each) for each in inputs if isinstance(each, Tensor)}
        if func._schema.is_mutable and given & self._owned and func not in _CONSTANT:
            self._only_copies = False
        if weights := given & self._names.keys():
            results = result if isinstance(result, tuple | list) else [result]
            same = all(isinstance(each, Tensor) and _storage(each) in weights for each in results)
            self._only_copies &= same


def _is_plain(target: Tensor, source: Tensor) -> bool:
    same = (target.dtype, target.shape) == (source.dtype, source.shape)
    return same and target.is_contiguous() and source.is_contiguous()


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _addresses(model: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in _tensors(model)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> _Bytes:
    data: _Bytes = tensor.detach().view(-1).view(torch.uint8).numpy()
    return data
