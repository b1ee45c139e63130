"""Encodes supervised examples as the engine's token groups: tokens of prompt and target, features of the
audio.

The audio of an utterance is asked about many times (several traces and attributes), so its features are made
once and kept, up to a bound in bytes. Where the audio tower is frozen, the tower's output is kept instead,
also on disk: only the first epoch of the first run has to run the tower.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from emotion_task.audio_window import model_waveform
from emotion_task.sft.examples import Example
from rlcore.engines.logprobs import TokenGroup
from rlcore.engines.trainable import is_frozen
from rlcore.errors import DataError
from rlcore.models.device import own_device
from rlcore.models.families import family_of
from rlcore.models.families.base import FEATURES
from rlcore.models.hf_model import (
    audio_token_id,
    encode_media,
    load_config,
    load_media_encoder,
    load_processor,
    processed,
    tokenizer_of,
)
from rlcore.models.media_cache import MediaCache
from rlcore.models.tokens import tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedExample(TokenGroup):
    """Holds the group of one example: one completion, or several to choose from."""

    prompt_id: str
    """Id of the example (`Example.id`)."""


class ExampleEncoder:
    """Encodes examples with the processor of one checkpoint.

    Args:
        model_path: the checkpoint.
        freeze: patterns as in `model.freeze`. Where they cover the tower, examples carry `audio_states`.
        cache_bytes: bound on the audio that is kept in memory.
        cache_folder: folder that keeps a recording's features, or a frozen tower's output, on disk; None
            keeps nothing on disk.
    """

    def __init__(
        self,
        model_path: str,
        *,
        freeze: tuple[str, ...] = (),
        cache_bytes: int,
        cache_folder: str | None = None,
    ):
        self._tower = _frozen_tower(model_path, freeze)
        self.processor = load_processor(model_path)
        self._tokenizer = tokenizer_of(self.processor)
        self._config = load_config(model_path)
        self._placeholder_id = audio_token_id(self._config)
        self._placeholder = self._tokenizer.convert_ids_to_tokens(self._placeholder_id)
        self._cache: OrderedDict[str, tuple[dict[str, np.ndarray], int]] = OrderedDict()
        self._cache_bytes, self._used_bytes = cache_bytes, 0
        self._disk: MediaCache | None = None
        if cache_folder is not None:
            # What is kept depends on no weight that is trained: not on the projector, nor on a trained tower.
            tower = torch.nn.Module()
            if self._tower is not None:
                tower = self._tower.get_submodule(family_of(self._tower).audio_tower)
            self._disk = MediaCache(cache_folder, tower, self.processor)

    def encode(self, example: Example) -> EncodedExample:
        """Encodes an example as a group of one completion: the target, with the end-of-turn token where the
        target is complete.

        Raises:
            DataError: The prompt of an example with audio does not have exactly one audio placeholder, or the
                prompt of an example without audio has one.
        """
        expected = 0 if example.audio is None else 1
        if example.prompt.count(self._placeholder) != expected:
            raise DataError(
                f"example {example.id}: its prompt must hold {self._placeholder} "
                f"{'never, as it has no audio' if example.audio is None else 'once'}; "
                f"it holds it {example.prompt.count(self._placeholder)} times"
            )
        encoded = self.encode_options(
            example.audio, example.prompt, [(example.target, example.complete)], id=example.id
        )
        if example.emphasis is None or example.weight == 1:
            return encoded
        return replace(encoded, token_weights=(self._weights(example, len(encoded.token_ids[0])),))

    def _weights(self, example: Example, length: int) -> np.ndarray:
        """Returns the weight of every token, float32 [length]: `example.weight` for tokens that hold part of
        the emphasised word, else 1."""
        tokens = self._tokenizer(example.target, add_special_tokens=False, return_offsets_mapping=True)
        weights = np.ones(length, dtype=np.float32)
        spans = [match.span() for match in re.finditer(rf"\b{example.emphasis}\b", example.target)]
        for index, (start, end) in enumerate(tokens["offset_mapping"]):
            if any(start < last and end > first for first, last in spans):
                weights[index] = example.weight
        return weights

    def encode_options(
        self, audio: str | None, prompt: str, options: Sequence[tuple[str, bool]], *, id: str = ""
    ) -> EncodedExample:
        """Encodes several completions of one prompt as one group.

        Args:
            audio: path of the recording; None for text alone.
            prompt: chat-formatted, with one audio placeholder where there is audio.
            options: text of each completion, and whether the end-of-turn token follows it.
            id: `prompt_id` of the group.
        """
        inputs: dict[str, np.ndarray] = {}
        if audio is not None:
            inputs, num_embeddings = self._audio(audio)
            prompt = prompt.replace(self._placeholder, self._placeholder * num_embeddings)
        return EncodedExample(
            prompt_id=id,
            prompt_token_ids=np.asarray(tokens_of(self._tokenizer, prompt), dtype=np.int64),
            token_ids=tuple(
                np.append(self._tokens(text), self._tokenizer.eos_token_id)
                if complete
                else self._tokens(text)
                for text, complete in options
            ),
            media_inputs=inputs,
        )

    def audio_states(self, path: str) -> np.ndarray:
        """Returns the frozen tower's output for one recording, float32 [N, D]; KeyError without a frozen
        tower."""
        inputs, _ = self._audio(path)
        return inputs["audio_states"]

    def _tokens(self, text: str) -> np.ndarray:
        return np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    def _audio(self, path: str) -> tuple[dict[str, np.ndarray], int]:
        """Returns the model's inputs for one recording, and the number of embeddings that the recording
        gives."""
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        extractor = self.processor.feature_extractor
        media = {
            "audio": [model_waveform(path, extractor)],
            "sampling_rate": int(extractor.sampling_rate),
        }
        inputs, num_embeddings = self._inputs(media)
        self._cache[path] = inputs, num_embeddings
        self._used_bytes += sum(array.nbytes for array in inputs.values())
        while self._used_bytes > self._cache_bytes and len(self._cache) > 1:
            _, (old, _) = self._cache.popitem(last=False)
            self._used_bytes -= sum(array.nbytes for array in old.values())
        return inputs, num_embeddings

    def _inputs(self, media: Mapping[str, object]) -> tuple[dict[str, np.ndarray], int]:
        """Takes the inputs from the disk, else from the processor and, where it is frozen, the tower."""
        found = None if self._disk is None else self._disk.get(media)
        if found is None:
            features, num_embeddings = self._features(media)
            found = (*features.values(), np.array([num_embeddings]))
            if self._tower is not None:
                found = (self._states(features),)
            if self._disk is not None:
                self._disk.put(media, found)
        if self._tower is not None:
            return {"audio_states": found[0]}, len(found[0])
        return dict(zip(FEATURES, found, strict=False)), int(found[-1][0])

    def _features(self, media: Mapping[str, object]) -> tuple[dict[str, np.ndarray], int]:
        features, (num_embeddings,) = processed(self._config, self.processor, media)
        return features, num_embeddings

    @torch.inference_mode()
    def _states(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the tower's output, float32 [N, D]."""
        assert self._tower is not None
        inputs = {name: torch.from_numpy(array) for name, array in features.items()}
        return torch.cat(encode_media(self._tower, inputs)).float().cpu().numpy().copy()


def _frozen_tower(model_path: str, freeze: tuple[str, ...]) -> PreTrainedModel | None:
    """Returns the model's tower and projector if a pattern freezes all of the tower, else None. They lie on
    this process's GPU, where it has one."""
    family = family_of(load_config(model_path))
    # A pattern that is part of the tower's own path is part of every name below it.
    if family.audio_tower is None or not is_frozen(f"{family.audio_tower}.", freeze):
        return None
    return load_media_encoder(model_path).to(own_device())
