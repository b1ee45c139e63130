"""The weights of a model that is being trained, as those outside it know them: without adapters, whole, under
the names of checkpoints.

Whoever exports or pushes asks here. What is trained is decided in `rlcore.engines.trainable`; how partitioned
weights become whole is `rlcore.engines.zero`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.engines.trainable import ADAPTER, AdaptedLinear
from rlcore.models.adapters import A, B
from rlcore.models.names import (
    Part,
    block_of,
    checkpoint_parameters,
    checkpoint_parts,
    expert_sources,
    full_shape,
    own_name,
)
from rlcore.models.rounding import adapted


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a model without adapters."""

    name: str
    """Name in memory, as if the model had no adapters."""
    hub_name: str
    """Name in a checkpoint, and in rollout engines."""
    parameters: tuple[nn.Parameter, ...]
    """Parameters that must be whole for `tensor`: the weight's own, then the factors of its adapter."""
    adapter: AdaptedLinear | None = None
    """The layer that adds a product to the parameter, if there is one."""
    scale: float = 1.0
    """Factor of the tensor: the scale of an adapter, which travels in one of its factors."""
    part: Part = ()
    """Index of the part of the parameter that this is; empty: the whole parameter."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor, also while this rank holds a part."""
        whole = full_shape(self.parameters[0])
        return tuple(torch.empty(whole, device="meta")[self.part].shape) if self.part else whole

    @property
    def is_trained(self) -> bool:
        """True where training changes the tensor."""
        return any(parameter.requires_grad for parameter in self.parameters)

    @torch.no_grad()
    def tensor(
        self,
        dtype: torch.dtype = torch.float32,
        read: Callable[[nn.Parameter], Tensor] = Tensor.detach,
    ) -> Tensor:
        """Returns the full tensor, detached, and merged for engines of `dtype` (`rlcore.models.rounding`).
        `read` gives a parameter's values."""
        own, *factors = (read(parameter) for parameter in self.parameters)
        own = own[self.part].float()
        if self.adapter is not None:
            first, second = (factor.float() for factor in factors)
            return adapted(own, second @ first * self.adapter.scaling[ADAPTER], dtype, self.hub_name)
        return own if self.scale == 1.0 else own * self.scale


def model_weights(model: PreTrainedModel, *, media: bool = True) -> Iterator[Weight]:
    """Yields all weights in the model's order, without tied copies; `media` as in `checkpoint_parameters`."""
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    for name, hub_name in checkpoint_parameters(model, media=media):
        plain, parameter = own_name(name), model.get_parameter(name)
        assert plain is not None, name
        at = name.removesuffix(".base_layer.weight")
        layer = adapters.get(at)
        if layer is None or not name.endswith(".base_layer.weight"):
            yield Weight(plain, hub_name, (parameter,))
        else:
            factors = [model.get_parameter(f"{at}.lora_{x}.{ADAPTER}.weight") for x in "AB"]
            yield Weight(plain, hub_name, (parameter, *factors), layer)


def rollout_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yields what engines are pushed: the language model, and blocks of media modules in which a weight is
    trained, each whole."""
    language = {weight.name for weight in model_weights(model, media=False)}
    whole = list(in_parts(model, model_weights(model)))
    blocks = _trained_blocks(whole)
    yield from (w for w in whole if w.name in language or block_of(w.hub_name) in blocks)


def changed_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yields the part of `rollout_weights` that differs from the checkpoint: blocks in which a weight is
    trained, each whole. Engines that were built from the checkpoint hold the rest."""
    whole = list(rollout_weights(model))
    blocks = _trained_blocks(whole)
    yield from (weight for weight in whole if block_of(weight.hub_name) in blocks)


def _trained_blocks(whole: Iterable[Weight]) -> set[str]:
    return {block_of(weight.hub_name) for weight in whole if weight.is_trained}


def adapter_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yields what engines are pushed with `learner.lora.push: adapters`: instead of whole adapted weights
    their factors (`rlcore.models.adapters`), and what else is trained."""
    for weight in in_parts(model, model_weights(model)):
        # A layer that is trained whole beside its adapter goes whole, merged.
        if weight.adapter is not None and not weight.parameters[0].requires_grad:
            first, second = weight.parameters[1:]
            yield Weight(weight.name + A, weight.hub_name + A, (first,))
            scale = float(weight.adapter.scaling[ADAPTER])
            yield Weight(weight.name + B, weight.hub_name + B, (second,), scale=scale)
        elif weight.is_trained:
            yield weight


def in_parts(model: PreTrainedModel, whole: Iterable[Weight]) -> Iterator[Weight]:
    """Yields what checkpoints, and so engines, have in the place of whole weights: the experts of a mixture
    one by one, every other weight as given."""
    sources = expert_sources(model)
    for weight in whole:
        for name, part in checkpoint_parts(weight.hub_name, weight.shape, sources):
            yield replace(weight, hub_name=name, part=part) if part else weight
