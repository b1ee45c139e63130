"""A fake accelerator: code runs on the CPU as if some tensors lay on `cuda:0`, and what a GPU refuses raises.

A tensor is there where it was made or moved with `device=cuda`, or computed from one that is. An operation on
tensors of both places raises, as does `numpy()` of one that is there. What lies where is all that this shows:
not kernels, streams, or what CUDA's own autocast rounds.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_MIXES = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put", "aten::index_put_"}
"""Operations that take tensors of both places on a GPU too."""


class WrongDeviceError(AssertionError):
    """A GPU would refuse this."""


class _Storages:
    """The storages that are on the fake accelerator; kept, so that no address is used twice."""

    def __init__(self) -> None:
        self._held: dict[int, torch.UntypedStorage] = {}

    def holds(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._held

    def put(self, tensor: Tensor, is_there: bool) -> Tensor:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        if is_there:
            self._held[storage._cdata] = storage
        else:
            self._held.pop(storage._cdata, None)
        return tensor


class _Functions(TorchFunctionMode):
    """Reads the devices that torch's functions are asked for, and gives them the CPU."""

    def __init__(self, storages: _Storages):
        super().__init__()
        self._storages = storages

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)  # only CUDA has such memory
        if func in (Tensor.numpy, Tensor.__array__) and self._storages.holds(args[0]):
            raise WrongDeviceError("numpy() of a tensor on the accelerator")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, *args, **kwargs)
        if func is torch._C._nn.pad_sequence:  # makes its output where its inputs lie, unseen
            return self._storages.put(func(*args, **kwargs), self._storages.holds(args[0][0]))
        if kwargs.get("device") is None or torch.device(kwargs["device"]).type == "meta":
            return func(*args, **kwargs)
        is_there = torch.device(kwargs["device"]).type == "cuda"
        return self._storages.put(func(*args, **{**kwargs, "device": CPU}), is_there)

    def _move(self, func: Any, source: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        was_there = is_there = self._storages.holds(source)
        if func is not Tensor.to:
            is_there, args = func is Tensor.cuda, ("cpu",)
        else:
            args = (*args, *([kwargs.pop("device")] if kwargs.get("device") is not None else []))
            for each in args:
                if isinstance(each, (str, torch.device)):
                    is_there = torch.device(each).type == "cuda"
                elif isinstance(each, Tensor):
                    is_there = self._storages.holds(each)
            args = tuple(CPU if isinstance(each, (str, torch.device)) else each for each in args)
        moved: Tensor = Tensor.to(source, *args, **kwargs)
        if is_there == was_there:
            return moved
        return self._storages.put(moved.clone() if moved.data_ptr() == source.data_ptr() else moved, is_there)


class _Operations(TorchDispatchMode):
    """Refuses operations on tensors of both places. What comes of those on the accelerator is there too."""

    def __init__(self, storages: _Storages):
        super().__init__()
        self._storages = storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = [each for each in tensors if self._storages.holds(each)]
        # A GPU takes numbers from the CPU.
        here = [each for each in tensors if each.dim() > 0 and not self._storages.holds(each)]
        if there and here and name not in _MIXES:
            shapes = [[tuple(each.shape) for each in side] for side in (there, here)]
            raise WrongDeviceError(f"{name} of {shapes[0]} on the accelerator and {shapes[1]} on the CPU")
        out = func(*args, **kwargs)
        if there and name != "aten::copy_":
            for each in tree_leaves(out):
                if isinstance(each, Tensor):
                    self._storages.put(each, True)
        return out


@contextmanager
def fake_accelerator() -> Iterator[None]:
    """Lets tensors lie on the fake accelerator, for the length of the block. `tensor.to("cuda")` and
    `module.to("cuda")` bring them there, and `tensor.device` says so."""
    storages = _Storages()
    own_device = torch._C.TensorBase.device

    def device(tensor: Tensor) -> torch.device:
        is_there = type(tensor) in (Tensor, torch.nn.Parameter) and storages.holds(tensor)
        return CUDA if is_there else own_device.__get__(tensor)  # type: ignore[attr-defined]

    def on_cpu(real: Any) -> Any:
        """Makes a function of autocast, whose first argument is the device's type, one of the CPU's."""
        return lambda device_type, *args, **kwargs: real("cpu", *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "device", property(device), create=True))
        for name in ("autocast", "amp.autocast", "is_autocast_enabled", "get_autocast_dtype"):
            real = operator.attrgetter(name)(torch)
            stack.enter_context(mock.patch(f"torch.{name}", on_cpu(real)))
        stack.enter_context(_Functions(storages))
        stack.enter_context(_Operations(storages))
        yield
