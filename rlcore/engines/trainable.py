"""Making a model ready for training: what is trained (all that no pattern freezes, or low-rank adapters
alone, by peft), and what the forward pass keeps for the backward pass.

Adapters are put into the model in place. `rlcore.engines.weights` then gives the model's own weights, with
the adapters' products added, under the names that they have without adapters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import peft
import torch
from peft.tuners import lora as peft_lora
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlcore.config import LearnerConfig, LoRAConfig, ModelConfig
from rlcore.errors import ConfigError
from rlcore.models.families import families, family_of
from rlcore.models.hf_model import decoder_of
from rlcore.models.names import is_media_parameter

ADAPTER = "default"
"""peft's name for the one adapter of a model."""


def choose_trained(model: PreTrainedModel, config: ModelConfig, learner: LearnerConfig) -> None:
    """Decides what `learner` trains of a model: all that `config.freeze` leaves, or adapters alone.

    Raises:
        ConfigError: a pattern or target that matches nothing, nothing left to train, or media modules to be
            trained though the media come as embeddings.
    """
    freeze(model, config.freeze)
    if learner.lora.rank > 0:
        add_lora(model, learner.lora, config.freeze)
    media = trained_media(model)
    vision = family_of(model).vision
    if vision is not None and (seeing := [name for name in media if name.startswith(f"{vision.tower}.")]):
        raise ConfigError(
            f"model.freeze: {seeing[0]} and {len(seeing) - 1} more parameters of the vision tower are to be "
            f"trained, but its output is computed once a prompt: freeze {vision.tower.rpartition('.')[2]!r}"
        )
    if media and config.media == "embeds":
        raise ConfigError(
            f"model.freeze: {media[0]} and {len(media) - 1} more media parameters are to be trained, but "
            "with model.media=embeds the tower stays as it is: freeze it or set model.media=raw"
        )


def freeze(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Takes parameters whose name contains one of `patterns` out of the training, and puts all others in.

    Names of encoders and projectors of any known family may match nothing, so that one default serves all.

    Raises:
        ConfigError: another pattern matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    optional = {path.rpartition(".")[2] for family in families().values() for path in family.media_modules}
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
    """Tells whether one of `patterns` (`model.freeze`) is part of a parameter's name."""
    return any(pattern in name for pattern in patterns)


def add_lora(model: PreTrainedModel, lora: LoRAConfig, frozen: Sequence[str]) -> None:
    """Puts adapters on the linear layers that `lora.target_modules` names. Only the adapters, and what
    `lora.also_train` matches, are trained from then on.

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
    # peft's documented way to a layer of your own, underscore and all.
    config._register_custom_module({nn.Linear: AdaptedLinear})
    peft.inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for parameter in beside:
        parameter.requires_grad_(True)
    model.eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train()


class AdaptedLinear(peft_lora.Linear):
    """A linear layer that peft adapts, whose two products are added in float32 under autocast.

    The layer's own product comes out in bfloat16. Adding less than half a unit of its last place (1/512) to
    that changes nothing, for every token alike: an adapter would learn for many steps unnoticed by its own
    forward pass, while the engines, which multiply by the merged weights, do what it has learned.
    """

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Returns the layer's output, in float32 under autocast, else as peft's layer does."""
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)
        x = x.to(torch.get_autocast_dtype(x.device.type))  # here, once for both products
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        # Scaled where it is narrow.
        product = up(self.scaling[ADAPTER] * down(self.lora_dropout[ADAPTER](x)))
        return _SumInFloat32.apply(self.base_layer(x), product)


class _SumContext(FunctionCtx):
    """The context between `_SumInFloat32.forward` and `backward`; for annotations alone."""

    dtype: torch.dtype


class _SumInFloat32(torch.autograd.Function):
    """Sums two tensors of one shape and dtype in float32; both get the same rounded gradient."""

    @staticmethod
    def forward(ctx: _SumContext, a: Tensor, b: Tensor) -> Tensor:
        ctx.dtype = a.dtype
        return a.float().add_(b)

    @staticmethod
    def backward(ctx: _SumContext, grad: Tensor) -> tuple[Tensor, Tensor]:
        rounded = grad.to(ctx.dtype)
        return rounded, rounded


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """Lets the model compute what it did before training, for the length of the block: adapters add nothing.
    They are gone through all the same, as ZeRO-3 fetches parameters in the order that it has seen."""
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
    """Returns the parameters that `lora.also_train` matches."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in lora.also_train:
        if not any(pattern in name for name in trained):
            raise ConfigError(
                f"learner.lora.also_train: {pattern!r} is part of no name of a parameter that may be trained "
                f"(model.freeze comes first); {_nearest(pattern, list(trained))}"
            )
    return [p for name, p in trained.items() if any(pattern in name for pattern in lora.also_train)]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes decoder layers run again in the backward pass instead of keeping their activations (Chen et al.
    2016, arXiv:1604.06174).

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
    """Returns the part of an error that says what was probably meant."""
    parts = {part for each in known for part in each.split(".") if not part.isdigit()}
    near = difflib.get_close_matches(name.split(".")[-1], sorted(parts), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"the names hold {', '.join(sorted(parts))}"


def trained_media(model: PreTrainedModel) -> list[str]:
    """Returns the names of trained parameters of encoders and projectors."""
    return [n for n, p in model.named_parameters() if p.requires_grad and is_media_parameter(model, n)]
