"""Making a model ready for training: what is trained (all that no pattern freezes, or low-rank adapters
alone, by peft), and what the forward pass keeps for the backward pass.

Adapters are put into the model in place. The rest of the engine then asks here for the model's own weights,
with the adapters' products added, under the names that they have without adapters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import peft
import torch
from peft.tuners import lora as peft_lora
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlcore.config import LoRAConfig
from rlcore.errors import ConfigError
from rlcore.models.adapters import A, B
from rlcore.models.families import FAMILIES
from rlcore.models.hf_model import (
    Part,
    checkpoint_parameters,
    checkpoint_parts,
    decoder_of,
    expert_sources,
    full_shape,
    is_media_parameter,
    own_name,
)
from rlcore.models.rounding import adapted

ADAPTER = "default"
"""peft's name for the one adapter of a model."""


def freeze(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Takes parameters whose name contains one of `patterns` out of the training, and puts all others in.

    Names of encoders and projectors of any known family may match nothing, so that one default serves all.

    Raises:
        ConfigError: another pattern matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    optional = {path.rpartition(".")[2] for family in FAMILIES.values() for path in family.media_modules}
    for pattern in patterns:
        if pattern not in optional and not any(pattern in name for name in names):
            raise ConfigError(
                f"model.freeze: {pattern!r} is part of no parameter's name; {_nearest(pattern, names)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_frozen(name, patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze: {list(patterns)} leaves no parameter to train")


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    return any(pattern in name for pattern in patterns)


def add_lora(model: PreTrainedModel, lora: LoRAConfig, frozen: Sequence[str]) -> None:
    """Puts adapters on the linear layers that `lora.target_modules` names; they, and what `lora.also_train`
    matches, are all that is trained.

    An adapter starts at zero, so the policy is the model's own. The head and layers that `frozen` matches get
    none.

    Raises:
        ConfigError: a target names no layer, or `also_train` nothing that is not frozen.
    """
    beside = _beside(model, lora)
    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not is_frozen(f"{name}.weight", frozen)
    ]
    targets: set[str] = set()
    for target in lora.target_modules:
        found = {name for name in linear if name == target or name.endswith(f".{target}")}
        if not found:
            raise ConfigError(
                f"learner.lora.target_modules: {target!r} ends the name of no linear layer that may be "
                f"trained; {_nearest(target, linear)}"
            )
        targets |= found
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=sorted(targets)
    )
    # peft's documented way to a layer of one's own, underscore and all.
    config._register_custom_module({nn.Linear: AdaptedLinear})
    peft.inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for parameter in beside:
        parameter.requires_grad_(True)
    model.eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train()


class AdaptedLinear(peft_lora.Linear):
    """peft's, whose two products are added in float32 under autocast.

    The layer's own product comes out in bfloat16. Adding less than half a unit of its last place (1/512) to
    that changes nothing, for every token alike: an adapter would learn for many steps unnoticed by its own
    forward pass, while the engines, which multiply by the merged weights, do what it has learned.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """float32 under autocast, else as peft's."""
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)
        x = x.to(torch.get_autocast_dtype(x.device.type))  # here, once for both products
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        # Scaled where it is narrow.
        product = up(self.scaling[ADAPTER] * down(self.lora_dropout[ADAPTER](x)))
        return _SumInFloat32.apply(self.base_layer(x), product)


class _SumInFloat32(torch.autograd.Function):
    """Two tensors of one shape and dtype to their sum in float32, with one rounded gradient for both."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.dtype = a.dtype
        return a.float().add_(b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rounded = grad.to(ctx.dtype)
        return rounded, rounded


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """The model computes what it did before training, while this lasts: adapters add nothing. They are gone
    through all the same, as ZeRO-3 fetches parameters in the order that it has seen."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    scales = [layer.scaling[ADAPTER] for layer in layers]
    for layer in layers:
        layer.scaling[ADAPTER] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER] = scale


def _beside(model: PreTrainedModel, lora: LoRAConfig) -> list[nn.Parameter]:
    """The parameters that `lora.also_train` matches."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in lora.also_train:
        if not any(pattern in name for name in trained):
            raise ConfigError(
                f"learner.lora.also_train: {pattern!r} is part of no name of a parameter that may be trained "
                f"(model.freeze comes first); {_nearest(pattern, list(trained))}"
            )
    return [p for name, p in trained.items() if any(pattern in name for pattern in lora.also_train)]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Decoder layers run again in the backward pass instead of keeping their activations (Chen et al. 2016,
    arXiv:1604.06174).

    transformers does so in training mode alone. Only the layers themselves enter it, not what they hold: the
    model computes what it computes in eval mode.

    Raises:
        ConfigError: the architecture does not support it.
    """
    layers = [m for m in decoder_of(model).modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"learner.activation_checkpointing: {type(model).__name__} does not support it; set it to false"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True


def _nearest(name: str, known: Sequence[str]) -> str:
    """For an error: what was probably meant."""
    parts = {part for each in known for part in each.split(".") if not part.isdigit()}
    near = difflib.get_close_matches(name.split(".")[-1], sorted(parts), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"the names hold {', '.join(sorted(parts))}"


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of the model without adapters."""

    name: str
    """In-memory name."""
    hub_name: str
    parameters: tuple[nn.Parameter, ...]
    """What must be whole for `tensor`: the parameter, and its adapter's."""
    adapter: Any = None
    """The layer that adds a product to the parameter, where one does."""
    scale: float = 1.0
    """Of an adapter's factor."""
    part: Part = ()
    """Of the parameter, where this is a part of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        whole = full_shape(self.parameters[0])
        return tuple(torch.empty(whole, device="meta")[self.part].shape) if self.part else whole

    @property
    def is_trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters)

    @torch.no_grad()
    def tensor(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Full, detached, and merged for engines of `dtype` (`rlcore.models.rounding`)."""
        own = self.parameters[0].detach()[self.part].float()
        if self.adapter is not None:
            return adapted(own, self.adapter.get_delta_weight(ADAPTER), dtype, self.hub_name)
        return own if self.scale == 1.0 else own * self.scale


def weights(model: PreTrainedModel, *, media: bool = True) -> Iterator[Weight]:
    """All weights in the model's order, tied copies left out; `media` as in `checkpoint_parameters`."""
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, hub_name in checkpoint_parameters(model, media=media):
        plain, parameter = own_name(name), model.get_parameter(name)
        assert plain is not None, name
        layer = adapters.get(name.removesuffix(".base_layer.weight"))
        if layer is None or not name.endswith(".base_layer.weight"):
            yield Weight(plain, hub_name, (parameter,))
        else:
            factors = (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)
            yield Weight(plain, hub_name, (parameter, *factors), layer)


def rollout_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """What engines are pushed: the language model, and media modules that are trained."""
    language = {weight.name for weight in weights(model, media=False)}
    for weight in in_parts(model, weights(model)):
        if weight.is_trained or weight.name in language:
            yield weight


def adapter_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """What engines are pushed with `learner.lora.push: adapters`: instead of whole adapted weights their
    factors (`rlcore.models.adapters`), and what else is trained."""
    for weight in in_parts(model, weights(model)):
        # A layer that is trained whole beside its adapter goes whole, merged.
        if weight.adapter is not None and not weight.parameters[0].requires_grad:
            first, second = weight.parameters[1:]
            yield Weight(weight.name + A, weight.hub_name + A, (first,))
            scale = float(weight.adapter.scaling[ADAPTER])
            yield Weight(weight.name + B, weight.hub_name + B, (second,), scale=scale)
        elif weight.is_trained:
            yield weight


def in_parts(model: PreTrainedModel, whole: Iterable[Weight]) -> Iterator[Weight]:
    """What checkpoints, and so engines, have in the place of whole weights: each by itself, the experts of a
    mixture one by one."""
    sources = expert_sources(model)
    for weight in whole:
        for name, part in checkpoint_parts(weight.hub_name, weight.shape, sources):
            yield replace(weight, hub_name=name, part=part) if part else weight


def trained_media(model: PreTrainedModel) -> list[str]:
    """Names of trained parameters of encoders and projectors."""
    return [n for n, p in model.named_parameters() if p.requires_grad and is_media_parameter(model, n)]
