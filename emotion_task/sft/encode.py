"""From supervised examples to the engine's token groups: tokens of prompt and target, features of the audio.

The audio of an utterance is asked about many times (several traces and attributes), so its features are made
once and kept, up to a bound in bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_task.audio_window import model_waveform
from emotion_task.sft.examples import Example
from rlcore.engines.hf_model import audio_token_id, load_config, load_processor, tokenizer_of
from rlcore.engines.logprobs import TokenGroup
from rlcore.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedExample(TokenGroup):
    """One group of one completion."""

    prompt_id: str
    """`Example.id`"""


class ExampleEncoder:
    """Encodes examples with the processor of one checkpoint."""

    def __init__(self, model_path: str, *, cache_bytes: int):
        self._processor = load_processor(model_path)
        self._tokenizer = tokenizer_of(self._processor)
        self._placeholder_id = audio_token_id(load_config(model_path))
        self._placeholder = self._tokenizer.convert_ids_to_tokens(self._placeholder_id)
        self._cache: OrderedDict[str, tuple[dict[str, np.ndarray], int]] = OrderedDict()
        self._cache_bytes, self._used_bytes = cache_bytes, 0

    def encode(self, example: Example) -> EncodedExample:
        """One group of one completion: the target, with the end-of-turn token where it is complete.

        Raises:
            DataError: the example's prompt does not have exactly one audio placeholder.
        """
        if example.prompt.count(self._placeholder) != 1:
            raise DataError(
                f"example {example.id}: its prompt must hold {self._placeholder} once, "
                f"it holds it {example.prompt.count(self._placeholder)} times"
            )
        inputs, num_embeddings = self._audio(example.audio)
        prompt = example.prompt.replace(self._placeholder, self._placeholder * num_embeddings)
        target = self._tokenizer(example.target, add_special_tokens=False)["input_ids"]
        if example.complete:
            target = [*target, self._tokenizer.eos_token_id]
        return EncodedExample(
            prompt_id=example.id,
            prompt_token_ids=np.asarray(
                self._tokenizer(prompt, add_special_tokens=False)["input_ids"], dtype=np.int64
            ),
            token_ids=(np.asarray(target, dtype=np.int64),),
            media_inputs=inputs,
        )

    def _audio(self, path: str) -> tuple[dict[str, np.ndarray], int]:
        """The processor's tensors of one recording, and the number of embeddings it becomes."""
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        extractor = self._processor.feature_extractor
        encoded: Any = self._processor(
            text=self._placeholder,
            audio=[model_waveform(path, extractor)],
            sampling_rate=extractor.sampling_rate,
            return_tensors="np",
        )
        num_embeddings = int((encoded["input_ids"] == self._placeholder_id).sum())
        inputs = {name: np.asarray(encoded[name]) for name in ("input_features", "feature_attention_mask")}
        self._cache[path] = inputs, num_embeddings
        self._used_bytes += sum(array.nbytes for array in inputs.values())
        while self._used_bytes > self._cache_bytes and len(self._cache) > 1:
            _, (old, _) = self._cache.popitem(last=False)
            self._used_bytes -= sum(array.nbytes for array in old.values())
        return inputs, num_embeddings
