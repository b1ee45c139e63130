"""The record of what rlcore must know of an architecture, and ready parts of which a family is made.

A family says which transformers class holds the policy, how its in-memory parameter names map to the names on
the hub (which are also vLLM's), where its towers and its text decoder are, how its processor is called, how
features become embeddings, and in which form vLLM takes audio. Nothing else in rlcore knows one architecture
from another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

Media = Mapping[str, Any]
"""A prompt's media as a task loads them (`Task.load_media`): keyword arguments of the model's processor, such
as `audio` (waveforms, float32 [num_samples] each) and `sampling_rate`, `images` (uint8 [height, width, 3]
each) and `videos` (uint8 [num_frames, height, width, 3] each)."""

Features: TypeAlias = "dict[str, np.ndarray]"
"""What a processor makes of recordings, in one form for all families: `input_features` float32 [A, M, F] (mel
bins, frames) and `feature_attention_mask` [A, F], 1 at frames that are no padding. A is the number of
recordings, or of the windows that a family cuts them into."""

FEATURES = ("input_features", "feature_attention_mask")
"""Names of `Features`."""

PICTURES = {"image": "images", "video": "videos"}
"""Kinds of pictures, and what a processor calls several of each. `media_inputs` has them as `KIND_embeds`
float32 [N, H], those of all pictures of the kind, and `KIND_grid_thw` int64 [V, 3], each one's patches in
time, height and width."""


def one_window(processor: ProcessorMixin) -> float | None:
    """Returns the seconds of the feature extractor's window. A `Family.heard_seconds`."""
    seconds: float | None = getattr(processor.feature_extractor, "chunk_length", None)
    return seconds


def many_windows(processor: ProcessorMixin) -> float | None:
    """Returns the seconds beyond which a processor cuts what it has laid into windows. A
    `Family.heard_seconds`."""
    seconds: float = processor.max_audio_len
    return seconds


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Facts of how a family sees. Its vision tower runs once a prompt, is never trained, and its output is
    what vLLM and the learner take."""

    tower: str
    """Attribute path of the tower, which gives embeddings of the decoder's size."""
    frame_rate: float
    """Frames of a video that are shown of each second."""
    process: Callable[[ProcessorMixin, Media], Features]
    """Function of processor and media that gives the tower's inputs, and the grids of `PICTURES`."""
    encode: Callable[[PreTrainedModel, Mapping[str, Tensor]], dict[str, Tensor]]
    """Function of model and the tower's inputs that gives the embeddings of `PICTURES`."""
    patches: Callable[[PretrainedConfig], int]
    """Function that gives the number of a grid's patches which become one embedding."""
    positions: Callable[[PretrainedConfig, np.ndarray, Mapping[str, np.ndarray]], np.ndarray]
    """Function of the policy's config, a prompt's tokens [P] and its `media_inputs` that gives the positions
    of its tokens, int64 [axes, P]. What follows goes on behind the largest."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Facts of an architecture that rlcore needs, and that transformers does not say uniformly."""

    name: str
    """Name of the family in messages and in the table of supported families."""
    architectures: tuple[str, ...]
    """Names in `config.json`'s `architectures`, and of the class that holds the policy in memory."""
    model_class: str
    """Name of the transformers class that holds the policy, or `package.module:Class` of your own."""
    decoder: str
    """Attribute path of the text decoder, which takes `inputs_embeds` and gives hidden states. Its positions
    are 0, 1, 2, ... for audio and text alike (on every axis of a multimodal rotary embedding)."""
    renames: tuple[tuple[str, str], ...] = ()
    """Pairs (pattern, replacement) that turn in-memory parameter names into the hub's; the first match
    wins."""
    language_prefixes: tuple[str, ...] = ("",)
    """Prefixes of the language model's hub names, all of which a weight push must cover."""
    checkpoint_config: Callable[[PreTrainedModel], PretrainedConfig] = lambda model: model.config
    """Function that gives the config to write beside the weights; the default is the model's own."""
    audio_tower: str | None = None
    """Attribute path of the audio tower; None: the family takes no audio."""
    projector: str | None = None
    """Attribute path of the module that takes the tower's D to the decoder's H; None: the tower gives H."""
    other_media: tuple[str, ...] = ()
    """Attribute paths of further encoders, which rlcore gives nothing to encode."""
    process_audio: Callable[[ProcessorMixin, str, Media], tuple[Features, tuple[int, ...]]] | None = None
    """Function of processor, placeholder token and media: their features, and each recording's number of
    embeddings (`processed_at_once`, `processed_apart`)."""
    heard_seconds: Callable[[ProcessorMixin], float | None] = one_window
    """Function that gives the seconds of a recording beyond which the model hears nothing; None: it hears all
    (`one_window`, `many_windows`)."""
    encode_audio: Callable[[PreTrainedModel, Mapping[str, Tensor]], list[Tensor]] | None = None
    """Function of model and features that gives the tower's output, one [N_i, D] per row of the features."""
    whole_hops: bool = False
    """True where vLLM's processor and transformers' differ in the frames of a recording that is no whole
    number of the feature extractor's hops long."""
    takes_audio_embeds: bool = False
    """True where vLLM's implementation accepts audio as embeddings (`model.media: embeds`)."""
    engine_features: Callable[[Mapping[str, np.ndarray]], dict[str, Tensor]] | None = None
    """Function that gives features in the form in which vLLM's implementation accepts them (`model.media:
    raw`). None: vLLM's own processor gets the waveforms."""
    max_recordings: int | None = None
    """Largest number of recordings in a prompt that vLLM's implementation accepts; None: any."""
    vision: Vision | None = None
    """How it sees; None: it takes neither images nor videos."""

    @property
    def media_modules(self) -> tuple[str, ...]:
        """Attribute paths of encoders and projectors, everything that is not the language model."""
        own = self.audio_tower, self.projector, self.vision and self.vision.tower
        return tuple(path for path in (*own, *self.other_media) if path)


def processed_at_once(
    processor: ProcessorMixin, placeholder: str, media: Media, **audio_kwargs: object
) -> tuple[Features, tuple[int, ...]]:
    """Calls a processor that takes several recordings in one text. A `Family.process_audio`.

    Args:
        audio_kwargs: further arguments of the feature extractor.
    """
    text = "\n".join([placeholder] * len(media["audio"]))  # apart, to count each
    inputs = processor(text=text, return_tensors="np", audio_kwargs=audio_kwargs, **media)
    placeholder_id = processor.tokenizer.convert_tokens_to_ids(placeholder)
    is_audio = groupby(token == placeholder_id for token in inputs["input_ids"][0].tolist())
    lengths = tuple(len(list(run)) for is_run, run in is_audio if is_run)
    return {name: np.asarray(inputs[name]) for name in FEATURES}, lengths


def processed_apart(
    processor: ProcessorMixin, placeholder: str, media: Media
) -> tuple[Features, tuple[int, ...]]:
    """Calls a processor that takes one recording in a text, and names its mask `input_features_mask`. A
    `Family.process_audio`."""
    placeholder_id = processor.tokenizer.convert_tokens_to_ids(placeholder)
    arguments = {name: value for name, value in media.items() if name != "audio"}
    features, lengths = [], []
    for waveform in media["audio"]:
        inputs = processor(text=placeholder, audio=[waveform], **arguments)
        mask = np.asarray(inputs["input_features_mask"]).astype(np.int64)
        features.append(dict(zip(FEATURES, (np.asarray(inputs["input_features"]), mask), strict=True)))
        lengths.append(int((inputs["input_ids"] == placeholder_id).sum()))
    return joined(features), tuple(lengths)


def joined(features: Sequence[Mapping[str, np.ndarray]]) -> Features:
    """Joins the features of several prompts to those of one; shorter ones are padded with zeros."""

    def of_all(name: str) -> np.ndarray:
        arrays = [np.asarray(each[name]) for each in features]
        longest = max(array.shape[-1] for array in arrays)
        no_padding = [(0, 0)] * (arrays[0].ndim - 1)
        padded = [np.pad(array, [*no_padding, (0, longest - array.shape[-1])]) for array in arrays]
        return np.concatenate(padded)

    return {name: of_all(name) for name in features[0]}


def in_one_row(inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns features [A, M, F] without padding, behind each other [M, frames of all], as vLLM takes those
    of the Omni thinkers and of what shares their tower. A `Family.engine_features`."""
    features, mask = (torch.from_numpy(inputs[name]) for name in FEATURES)
    lengths = mask.sum(-1)
    rows = [row[:, :length] for row, length in zip(features, lengths.tolist(), strict=True)]
    return {
        "input_audio_features": rows[0] if len(rows) == 1 else torch.cat(rows, dim=1),
        "audio_feature_lengths": lengths,
        "feature_attention_mask": mask,
    }


def on_tower(tower: PreTrainedModel, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns features [A, M, F] in the tower's dtype and their mask [A, F], on its device."""
    features, mask = (inputs[name].to(tower.device) for name in FEATURES)
    return features.to(tower.dtype), mask
