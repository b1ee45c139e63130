"""The names of weights: in memory, in a checkpoint, and of the parts that a checkpoint has where memory has
one.

Rollout engines and published checkpoints share names; transformers renames modules and joins experts as a
model is loaded. This module knows names and shapes. Tensors and files are `rlcore.models.hf_model`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist

from rlcore.models.families import family_of


def checkpoint_name(model: PreTrainedModel, name: str) -> str:
    """Returns the name that an in-memory parameter has on the hub, and in vLLM.

    Transformers 5 renamed modules in memory and saves names that vLLM cannot load: rlcore writes the hub's.
    """
    for pattern, replacement in family_of(model).renames:
        renamed, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return renamed
    return name


def is_media_parameter(model: PreTrainedModel, name: str) -> bool:
    """Tells whether an in-memory parameter belongs to an encoder or projector, not to the language model."""
    return name.startswith(tuple(f"{module}." for module in family_of(model).media_modules))


def own_name(name: str) -> str | None:
    """Returns the name that a parameter or buffer has without adapters, or None for an adapter's own.

    peft moves an adapted layer's weights below `base_layer` and puts `lora_A` and `lora_B` beside them.
    """
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def checkpoint_parameters(model: PreTrainedModel, *, media: bool = True) -> Iterator[tuple[str, str]]:
    """Yields (in-memory name, hub name) of what a checkpoint or a weight push must hold, in the model's
    order.

    Adapters and tied copies are left out (the source is written once). `media=False` leaves encoders and
    projectors out: a rollout engine that takes embeddings has none.
    """
    tied = set(model.all_tied_weights_keys)
    for name, _ in model.named_parameters(remove_duplicate=False):
        own = own_name(name)
        if own is not None and own not in tied and (media or not is_media_parameter(model, name)):
            yield name, checkpoint_name(model, own)


Part = tuple[int | slice, ...]
"""An index into a tensor: one expert's number, and a slice of the expert's rows."""


def expert_sources(model: PreTrainedModel) -> dict[str, list[str]]:
    """Returns how transformers joins the experts of a mixture as it loads them. The end of the name of one
    tensor in memory leads to those of the tensors in a checkpoint, `*` for the expert. Empty for a dense
    model.

    Among transformers' conversions these are the ones that stack the experts along the first dimension, and
    the several matrices of an expert along the second: `mlp.experts.gate_up_proj` [E, 2I, H] for Qwen2-MoE
    and its kin (Qwen3-MoE, Qwen3-Omni, OLMoE, DeepSeek).
    """
    sources = {}
    for conversion in get_model_conversion_mapping(model, add_legacy=False):
        operations = getattr(conversion, "operations", [])
        is_stack = [type(each) for each in operations] in ([MergeModulelist], [MergeModulelist, Concatenate])
        if is_stack and [each.dim for each in operations] == [0, 1][: len(operations)]:
            sources[conversion.target_patterns[0]] = conversion.source_patterns
    return sources


def checkpoint_parts(
    hub_name: str, shape: tuple[int, ...], sources: Mapping[str, Sequence[str]]
) -> list[tuple[str, Part]]:
    """Returns the tensors of a checkpoint that transformers holds as one: (name, index into the one), in
    order. A tensor that is one in the checkpoint too gives `[(hub_name, ())]`.

    Args:
        hub_name: name of the tensor as it is in memory.
        shape: of the tensor in memory, for experts [E, rows, ...].
        sources: what `expert_sources` returned for the model.
    """
    for joined, separate in sources.items():
        if hub_name.endswith(joined):
            layer, rows = hub_name.removesuffix(joined), shape[1] // len(separate)
            return [
                (layer + name.replace("*", str(e)), (e, slice(i * rows, (i + 1) * rows)))
                for e in range(shape[0])
                for i, name in enumerate(separate)
            ]
    return [(hub_name, ())]


def is_language_name(config: PretrainedConfig, hub_name: str) -> bool:
    """Tells whether a name in a checkpoint belongs to the policy's language model."""
    return hub_name.startswith(family_of(config).language_prefixes)


def block_of(hub_name: str) -> str:
    """Returns the part of a model that is pushed whole or not at all, by the name of one of its weights: an
    attention, a feed-forward network, a layer's experts.

    Engines hold as one what checkpoints hold apart, q, k and v for instance, gate and up, or all experts, and
    redo it from all of its weights.
    """
    layer, experts, _ = hub_name.partition(".experts.")
    return layer if experts else hub_name.rpartition(".")[0].rpartition(".")[0]


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the shape of a whole parameter, of which ZeRO-3 may hold a part here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
