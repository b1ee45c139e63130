"""Loading and saving Hugging Face models, and media through them, by what `rlcore.models.families` says of
their architecture.

The names of weights are `rlcore.models.names`'. What is computed with a model is the engines' business.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi, save_torch_state_dict, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from rlcore.errors import ConfigError, DataError
from rlcore.models.companions import companion_files, reason_of, write_files
from rlcore.models.experts import EXPERTS
from rlcore.models.families import Family, Media, family_of, not_supported, policy_config
from rlcore.models.families.base import Features, joined
from rlcore.models.names import checkpoint_name, checkpoint_parts, expert_sources, full_shape, own_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_config(path: str) -> PretrainedConfig:
    """Reads the configuration of a checkpoint, which is a folder or a hub id.

    Raises:
        DataError: no such folder, and no such hub id within reach.
        ConfigError: an architecture that transformers does not know without code of the checkpoint's own.
    """
    _check_reach(path)
    try:
        # Left out, it would ask on the terminal whether a stranger's code may run.
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except OSError as error:
        raise DataError(_missing_model(path)) from error
    except (KeyError, ValueError) as error:
        raise _unknown_config(path) from error


def _unknown_config(path: str) -> DataError | ConfigError:
    """Returns the error of a `config.json` that transformers does not know, or only with code beside it."""
    try:
        keys, _ = PretrainedConfig.get_config_dict(path)
    except (OSError, ValueError):
        return DataError(_missing_model(path))
    if not keys.get("architectures") or keys.get("model_type") in CONFIG_MAPPING:
        return DataError(_missing_model(path))
    why = f"transformers {transformers.__version__} does not know its model_type"
    if keys.get("auto_map"):
        why += ", and code that lies in a checkpoint is not run"
    return ConfigError(f"model.path: {path}: {not_supported(keys)} ({why})")


def _check_reach(path: str) -> None:
    """Refuses a folder that is not there, for which transformers would ask the hub for half a minute.

    What can be no hub id is refused at once. Of a hub id that no earlier call has kept here, or that is a
    folder misspelt (`runs/nope`), the hub is asked once.

    Raises:
        DataError: there is no such model.
    """
    if Path(path).is_dir():
        return
    if not _HUB_ID.fullmatch(path):
        raise DataError(_missing_model(path))
    if not isinstance(try_to_load_from_cache(path, "config.json"), str):
        try:
            HfApi().model_info(path, timeout=10.0)
        except HfHubHTTPError:
            pass  # not there, a gate, a busy hub: transformers has the word
        except Exception as error:  # the boundary to the hub's client, whose HTTP library is its own
            raise DataError(f"{_missing_model(path)} ({type(error).__name__})") from error


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


def load_model(path: str, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Loads a checkpoint's policy in eval mode, from safetensors only.

    Args:
        device: `cuda` (this process's own GPU) takes the weights one by one: main memory never holds them.

    Raises:
        DataError: no checkpoint there.
        ConfigError: an architecture or dtype that is not supported.
    """
    family = family_of(load_config(path))
    return _from_pretrained(path, family, dtype, device=device)


def _from_pretrained(
    path: str,
    family: Family,
    dtype: str,
    *,
    config: PretrainedConfig | None = None,
    device: str = "cpu",
) -> PreTrainedModel:
    if dtype not in DTYPES:
        raise ConfigError(f"model.dtype: got {dtype!r}; allowed are {sorted(DTYPES)}")
    model_class = model_class_of(family)
    try:
        model, loaded = model_class.from_pretrained(
            path,
            output_loading_info=True,
            config=config,
            dtype=DTYPES[dtype],
            # ZeRO-3's loading takes no map, be it of the CPU alone.
            device_map=None if device == "cpu" else {"": device},
            use_safetensors=True,
            experts_implementation=EXPERTS,
            trust_remote_code=False,
        )
    except OSError as error:
        raise DataError(_missing_model(path)) from error
    except (KeyError, ValueError) as error:  # a generation_config.json that makes no sense, for instance
        raise DataError(f"{path}: transformers cannot load it: {reason_of(error)}") from error
    if missing := sorted(loaded["missing_keys"]):
        raise DataError(
            f"{path}: {len(missing)} weights of {family.model_class} are not in its files, the first "
            f"{missing[0]}; they would be noise"
        )
    policy: PreTrainedModel = model.eval()
    return policy


def model_class_of(family: Family) -> Any:
    """Returns the class that holds a family's policies: of transformers, or from `package.module:Class`."""
    module, _, name = family.model_class.rpartition(":")
    return getattr(importlib.import_module(module) if module else transformers, name)


def load_media_encoder(path: str, *, dtype: str = "float32") -> PreTrainedModel:
    """Loads a checkpoint's towers and projector alone, for `embed_media` and `Vision.encode`; decoder layers
    are never read.

    Raises:
        ConfigError: the model takes no media.
    """
    config = load_config(path)
    family = family_of(config)
    if family.encode_audio is None and family.vision is None:
        raise ConfigError(f"model.path: {path} ({family.model_class}) takes no media and has no tower")
    text = config.get_text_config()
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None):
        text.layer_types = []
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the decoder's weights are unexpected on purpose
    try:
        model = _from_pretrained(path, family, dtype, config=policy_config(config))
    finally:
        transformers.logging.set_verbosity(verbosity)
    parent, _, name = family.decoder.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, name, None)
    model.lm_head = None
    return model


def load_processor(path: str) -> ProcessorMixin | PreTrainedTokenizerBase:
    """Loads a checkpoint's processor, or for a text model its tokenizer alone.

    Raises:
        DataError: the folder has neither.
    """
    loader = AutoProcessor if family_of(load_config(path)).media_modules else AutoTokenizer
    try:
        return loader.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no processor or tokenizer ({error}); put it beside the weights") from error


def tokenizer_of(processor: ProcessorMixin | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Returns the tokenizer inside a processor, or what was given where that is a tokenizer already."""
    return getattr(processor, "tokenizer", processor)


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a model's text decoder: `inputs_embeds` [B, L, H] to hidden states, final norm included."""
    return model.get_submodule(family_of(model).decoder)


def multiplied_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """Returns the weights of the language model that autocast rounds before a product: those of linear
    layers, adapters' own included, and of experts. A head that is the embedding too is left out: its rows are
    read."""
    decoder, embedding, head = decoder_of(model), model.get_input_embeddings(), model.get_output_embeddings()
    found = [m.get_parameter("weight") for m in (*decoder.modules(), head) if isinstance(m, nn.Linear)]
    found += [p for name, p in decoder.named_parameters() if ".experts." in name and len(full_shape(p)) == 3]
    return list({id(weight): weight for weight in found if weight is not embedding.weight}.values())


def audio_token_id(config: PretrainedConfig) -> int | None:
    """Returns the token that stands for audio in a prompt, once for each embedding; `None` for a model that
    hears nothing."""
    return placeholder_id(config, "audio")


def placeholder_id(config: PretrainedConfig, kind: str) -> int | None:
    """Returns the token that stands for `audio`, an `image` or a `video` in a prompt, once for each
    embedding; None for a model without such a token."""
    config = policy_config(config)
    for name in (f"{kind}_token_id", f"{kind}_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return None


def media_token_ids(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the special tokens that only a processor may write: media placeholders, and the marks where
    media begin and end. Rollouts ban them: the next reader of the text would take a sampled one for media.
    """
    config = policy_config(config)
    media = re.compile(r"audio|image|video|vision", re.IGNORECASE)
    ids = {i for token, i in tokenizer.get_added_vocab().items() if media.search(token)}
    for name in dir(config):
        if re.fullmatch(r"(audio|image|video|vision)_(start_|end_)?token_(id|index)", name):
            ids.add(getattr(config, name))
    return sorted(int(i) for i in ids if isinstance(i, int))


def processed(
    config: PretrainedConfig, processor: ProcessorMixin, media: Media
) -> tuple[Features, tuple[int, ...]]:
    """Returns the features that a checkpoint's processor makes of recordings (`rlcore.models.families.base`),
    and each recording's number of embeddings.

    Raises:
        ConfigError: the model takes no audio.
        DataError: more recordings than the model takes, or one too short for it.
    """
    family, count = family_of(config), len(media["audio"])
    if family.process_audio is None:
        raise ConfigError(f"model.path: {family.model_class} takes no audio, but a prompt carries media")
    if family.max_recordings is not None and count > family.max_recordings:
        raise DataError(f"{count} recordings, of which {family.name} takes {family.max_recordings} at most")
    placeholder = tokenizer_of(processor).convert_ids_to_tokens(audio_token_id(config))
    features, lengths = family.process_audio(processor, placeholder, media)
    num_heard = sum(length > 0 for length in lengths)
    if num_heard != count:
        raise DataError(f"{num_heard} of {count} recordings are long enough for the model")
    return features, lengths


def whole_hops(config: PretrainedConfig, processor: ProcessorMixin, media: Media) -> Media:
    """Returns media with silence behind each recording, up to a whole hop, where the model's family asks for
    that."""
    if not family_of(config).whole_hops or not media.get("audio"):
        return media
    hop = processor.feature_extractor.hop_length
    return {**media, "audio": [np.pad(waveform, (0, -len(waveform) % hop)) for waveform in media["audio"]]}


def stacked(inputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """Joins the features of several prompts to those of one; shorter ones are padded with zeros."""
    return {name: torch.as_tensor(array) for name, array in joined(inputs).items()}


def embed_media(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Takes audio through tower and projector, into the decoder's embedding space. Differentiable.

    Args:
        inputs: features, as `rlcore.models.families.base.Features`.

    Returns:
        One [N_i, H] per row of the features, without padding.
    """
    return project_media(model, encode_media(model, inputs))


def encode_media(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Takes audio through the tower alone, whose output stays the same while a projector is trained.

    Args:
        inputs: features, as `rlcore.models.families.base.Features`.

    Returns:
        One [N_i, D] per row of the features, without padding.
    """
    encode = family_of(model).encode_audio
    if encode is None:
        raise ConfigError(f"model.path: {type(model).__name__} takes no audio, but a prompt carries media")
    return encode(model, inputs)


def project_media(model: PreTrainedModel, states: Sequence[Tensor]) -> list[Tensor]:
    """Projects the tower's output [N_i, D] into the decoder's embedding space, [N_i, H]. Differentiable."""
    path = family_of(model).projector
    if path is None:
        return list(states)
    projector = model.get_submodule(path)
    weight = next(projector.parameters())
    projected = projector(torch.cat([s.to(device=weight.device) for s in states]).to(weight.dtype))
    return list(projected.split([len(s) for s in states]))


def save_checkpoint(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    processor: ProcessorMixin | PreTrainedTokenizerBase | None = None,
    companions: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a folder that transformers and vLLM both load: hub names in safetensors, configs, processor.

    Args:
        state_dict: in-memory names (without adapters) to full tensors, where the model's own are sharded,
            elsewhere, or to be merged with adapters.
        companions: what `companion_files` returned, where it was asked before; `processor` is among them.

    Raises:
        DataError: `state_dict` lacks a parameter.
        ConfigError: the configuration or processor cannot be saved, as in `companion_files`.
    """
    source: Mapping[str, Tensor] = model.state_dict() if state_dict is None else state_dict
    names = saved_names(model)
    missing = [name for name in names if name not in source]
    if missing:
        raise DataError(f"{folder}: the weights to save lack {len(missing)} tensors, the first {missing[0]}")
    files = companion_files(model, processor) if companions is None else companions
    weights, sources = dict[str, Tensor](), expert_sources(model)
    for own, hub_name in names.items():
        tensor = source[own].detach().cpu().contiguous()
        for name, part in checkpoint_parts(hub_name, tuple(tensor.shape), sources):
            weights[name] = tensor[part].clone() if part else tensor
    write_files(Path(folder), files)
    save_torch_state_dict(weights, folder, metadata={"format": "pt"})


def saved_names(model: PreTrainedModel) -> dict[str, str]:
    """Returns the in-memory name (without adapters) of each tensor that a checkpoint holds, and its hub name.
    Of tied weights there is one.

    Raises:
        ConfigError: two tensors have one hub name.
    """
    tied = set(model.all_tied_weights_keys)
    own_names = [own_name(name) for name in model.state_dict()]
    names = {n: checkpoint_name(model, n) for n in own_names if n is not None and n not in tied}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ConfigError(
            f"model.path: {model.name_or_path} cannot be saved: several tensors would be named {twice[0]}"
        )
    return names
