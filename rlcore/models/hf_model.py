"""Loading, naming and saving Hugging Face models, by what `rlcore.models.families` says of their
architecture. `rlcore.engines.logprobs` scores completions with what is loaded here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist

from rlcore.errors import ConfigError, DataError
from rlcore.models.experts import EXPERTS
from rlcore.models.families import CAUSAL_LM, Family, family_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(path: str) -> PretrainedConfig:
    """The checkpoint's config.

    Raises:
        DataError: no such folder, and no such hub id within reach.
    """
    try:
        # Left out, it would ask on the terminal whether a stranger's code may run.
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(_missing_model(path)) from error


def _missing_model(path: str) -> str:
    if Path(path).is_dir():
        return (
            f"{path}: not a checkpoint that transformers {transformers.__version__} can load. A "
            "model is a folder with config.json, *.safetensors and the processor's files"
        )
    return (
        f"{path}: no such model. A model is a folder that holds a Hugging Face checkpoint "
        "(config.json, *.safetensors, processor) or a hub id; a hub id needs the network or a filled HF_HOME"
    )


def load_model(path: str, *, dtype: str = "float32") -> PreTrainedModel:
    """Loads the policy in eval mode on the CPU, from safetensors only.

    Raises:
        DataError: no checkpoint there.
        ConfigError: an architecture or dtype that is not supported.
    """
    family = family_of(load_config(path))
    return _from_pretrained(path, family, dtype)


def _from_pretrained(path: str, family: Family, dtype: str, **kwargs: Any) -> PreTrainedModel:
    if dtype not in DTYPES:
        raise ConfigError(f"model.dtype: got {dtype!r}; allowed are {sorted(DTYPES)}")
    model_class = getattr(transformers, family.model_class)
    try:
        model = model_class.from_pretrained(
            path, dtype=DTYPES[dtype], use_safetensors=True, experts_implementation=EXPERTS, **kwargs
        )
    except OSError as error:
        raise DataError(_missing_model(path)) from error
    return model.eval()


def load_media_encoder(path: str, *, dtype: str = "float32") -> PreTrainedModel:
    """The checkpoint's audio tower and projector alone, for `embed_media`; decoder layers are never read.

    Raises:
        ConfigError: the model takes no audio.
    """
    config = load_config(path)
    family = family_of(config)
    if family.encode_audio is None:
        raise ConfigError(f"model.path: {path} ({family.model_class}) takes no audio and has no tower")
    text = config.get_text_config()
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None):
        text.layer_types = []
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the decoder's weights are unexpected on purpose
    try:
        model = _from_pretrained(path, family, dtype, config=getattr(config, "thinker_config", config))
    finally:
        transformers.logging.set_verbosity(verbosity)
    parent, _, name = family.decoder.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, name, None)
    model.lm_head = None
    return model


def load_processor(path: str) -> Any:
    """The checkpoint's processor; the tokenizer alone for a text model.

    Raises:
        DataError: the folder has neither.
    """
    loader = AutoTokenizer if family_of(load_config(path)) is CAUSAL_LM else AutoProcessor
    try:
        return loader.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no processor or tokenizer ({error}); put it beside the weights") from error


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer inside a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The text decoder: `inputs_embeds` [B, L, H] to hidden states, final norm included."""
    return model.get_submodule(family_of(model).decoder)


def multiplied_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights of the language model that autocast rounds before a product: those of linear layers,
    adapters' own included, and of experts. Not a head that is the embedding too, whose rows are read."""
    decoder, embedding, head = decoder_of(model), model.get_input_embeddings(), model.get_output_embeddings()
    found = [m.weight for m in (*decoder.modules(), head) if isinstance(m, nn.Linear)]
    found += [p for name, p in decoder.named_parameters() if ".experts." in name and len(full_shape(p)) == 3]
    return list({id(weight): weight for weight in found if weight is not embedding.weight}.values())


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Of the whole parameter, of which ZeRO-3 may hold a part."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def audio_token_id(config: PretrainedConfig) -> int | None:
    """The placeholder that stands for audio in a prompt, once for each embedding; `None` for a text model."""
    config = getattr(config, "thinker_config", config)
    for name in ("audio_token_id", "audio_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return None


def media_token_ids(config: PretrainedConfig, tokenizer: Any) -> list[int]:
    """Special tokens that only a processor may write: media placeholders and their begin and end marks.

    A sampled one would be taken for media by the next reader of the text, so rollouts ban them.
    """
    config = getattr(config, "thinker_config", config)
    media = re.compile(r"audio|image|video|vision", re.IGNORECASE)
    ids = {i for token, i in tokenizer.get_added_vocab().items() if media.search(token)}
    for name in dir(config):
        if re.fullmatch(r"(audio|image|video|vision)_(start_|end_)?token_(id|index)", name):
            ids.add(getattr(config, name))
    return sorted(int(i) for i in ids if isinstance(i, int))


def without_padding(config: PretrainedConfig, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The processor's tensors, cut to their longest recording where the tower skips the padding anyway:
    Qwen2.5-Omni's processor makes 30,000 frames, five minutes, of every recording."""
    cut = dict(inputs)
    if family_of(config).skips_padding and "feature_attention_mask" in inputs:
        longest = int(inputs["feature_attention_mask"].sum(-1).max())
        for name in ("input_features", "feature_attention_mask"):
            cut[name] = np.ascontiguousarray(inputs[name][..., :longest])
    return cut


def whole_hops(config: PretrainedConfig, processor: Any, media: Mapping[str, Any]) -> dict[str, Any]:
    """A task's media with silence behind recordings, up to a whole hop, where the family asks for it."""
    if not family_of(config).whole_hops or not media.get("audio"):
        return dict(media)
    hop = processor.feature_extractor.hop_length
    return {**media, "audio": [np.pad(waveform, (0, -len(waveform) % hop)) for waveform in media["audio"]]}


def stacked(inputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """The processor's tensors of several prompts as those of one, shorter ones padded with zeros."""

    def joined(name: str) -> Tensor:
        tensors = [torch.as_tensor(np.array(each[name])) for each in inputs]
        longest = max(tensor.shape[-1] for tensor in tensors)
        return torch.cat([nn.functional.pad(tensor, (0, longest - tensor.shape[-1])) for tensor in tensors])

    return {name: joined(name) for name in inputs[0]}


def embed_media(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Audio through tower and projector, into the decoder's embedding space. Differentiable.

    Args:
        inputs: the processor's `input_features` [A, M, F] and `feature_attention_mask` [A, F].

    Returns:
        One [N_i, H] an audio, padding left out.
    """
    return project_media(model, encode_media(model, inputs))


def encode_media(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Audio through the tower alone: what stays the same while a projector is trained.

    Args:
        inputs: as `embed_media`.

    Returns:
        One [N_i, D] an audio, padding left out.
    """
    encode = family_of(model).encode_audio
    if encode is None:
        raise ConfigError(f"model.path: {type(model).__name__} takes no audio, but a prompt carries media")
    return encode(model, inputs)


def project_media(model: PreTrainedModel, states: Sequence[Tensor]) -> list[Tensor]:
    """The tower's output [N_i, D] into the decoder's embedding space, [N_i, H]. Differentiable."""
    path = family_of(model).projector
    if path is None:
        return list(states)
    projector = model.get_submodule(path)
    weight = next(projector.parameters())
    projected = projector(torch.cat([s.to(device=weight.device) for s in states]).to(weight.dtype))
    return list(projected.split([len(s) for s in states]))


def checkpoint_name(model: PreTrainedModel, name: str) -> str:
    """The hub's (and vLLM's) name of an in-memory parameter.

    Transformers 5 renamed modules in memory and saves names that vLLM cannot load: rlcore writes the hub's.
    """
    for pattern, replacement in family_of(model).renames:
        renamed, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return renamed
    return name


def is_media_parameter(model: PreTrainedModel, name: str) -> bool:
    """Whether an in-memory parameter belongs to an encoder or projector, not to the language model."""
    return name.startswith(tuple(f"{module}." for module in family_of(model).media_modules))


def own_name(name: str) -> str | None:
    """The name that a parameter or buffer has without adapters; None for an adapter's own.

    peft moves an adapted layer's weights below `base_layer` and puts `lora_A` and `lora_B` beside them.
    """
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def checkpoint_parameters(model: PreTrainedModel, *, media: bool = True) -> Iterator[tuple[str, str]]:
    """(in-memory name, hub name) of what a checkpoint or a weight push must hold, in the model's order.

    Adapters and tied copies are left out (the source is written once). `media=False` leaves encoders and
    projectors out: a rollout engine that takes embeddings has none.
    """
    tied = set(model.all_tied_weights_keys)
    for name, _ in model.named_parameters(remove_duplicate=False):
        own = own_name(name)
        if own is not None and own not in tied and (media or not is_media_parameter(model, name)):
            yield name, checkpoint_name(model, own)


Part = tuple[int | slice, ...]
"""An index into a tensor."""


def expert_sources(model: PreTrainedModel) -> dict[str, list[str]]:
    """How transformers puts the experts of a mixture together as it loads them: the end of the name of one
    tensor in memory to those of the tensors in a checkpoint, `*` for the expert. Empty for a dense model.

    Of what its conversions do, these are the ones that stack the experts along the first dimension, and what
    each has of several matrices along the second: `mlp.experts.gate_up_proj` [E, 2I, H] for Qwen2-MoE and its
    kin (Qwen3-MoE, Qwen3-Omni, OLMoE, DeepSeek).
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
    """The tensors of a checkpoint that transformers holds as one: (name, index into it), in order; itself,
    `(hub_name, ())`, where that is one in a checkpoint, too.

    Args:
        sources: of `expert_sources`.
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
    """Whether a name in a checkpoint belongs to the policy's language model."""
    return hub_name.startswith(family_of(config).language_prefixes)


def save_checkpoint(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    processor: Any = None,
) -> None:
    """Writes a folder that transformers and vLLM both load: hub names in safetensors, configs, processor.

    Args:
        state_dict: in-memory names (without adapters) to full tensors, where the model's own are sharded,
            elsewhere, or to be merged with adapters.

    Raises:
        DataError: `state_dict` lacks a parameter.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source: Mapping[str, Tensor] = model.state_dict() if state_dict is None else state_dict
    tied = set(model.all_tied_weights_keys)
    own_names = [own_name(name) for name in model.state_dict()]
    expected = [name for name in own_names if name is not None and name not in tied]
    missing = [name for name in expected if name not in source]
    if missing:
        raise DataError(f"{folder}: the weights to save lack {len(missing)} tensors, the first {missing[0]}")
    weights, sources = dict[str, Tensor](), expert_sources(model)
    for own in expected:
        tensor = source[own].detach().cpu().contiguous()
        for name, part in checkpoint_parts(checkpoint_name(model, own), tuple(tensor.shape), sources):
            weights[name] = tensor[part].clone() if part else tensor
    save_torch_state_dict(weights, folder, metadata={"format": "pt"})
    config = family_of(model).checkpoint_config(model)
    if config is model.config:
        config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
