"""Prompts to model inputs: media loaded through the task, tokens expanded by the processor, and in `embeds`
mode the frozen audio tower run once a prompt, its output shared by rollout, reference and learner.

It knows nothing of vLLM. What was encoded is kept, so a prompt of a later epoch costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlcore.engines.hf_model import embed_media, load_media_encoder, load_processor
from rlcore.errors import DataError
from rlcore.types import Prompt

_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as engines take it."""

    prompt_token_ids: tuple[int, ...]
    """[P] with one placeholder token for each media embedding."""
    media_inputs: Mapping[str, np.ndarray]
    """As in `Group`: `audio_embeds` float32 [N, H], or the processor's tensors; empty without media."""
    media: Mapping[str, Any]
    """What the task loaded: the processor's arguments beside `text`."""

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in (*self.media_inputs.values(), *self.media.get("audio", ())))


class MediaEncoder:
    """Encodes prompts, in batches, with a least-recently-used cache.

    Args:
        path: checkpoint folder or hub id; only its processor and, in `embeds` mode, its tower are loaded.
        load_media: `Task.load_media`.
        media: `embeds` or `raw`, as `model.media`.
        device: where the tower runs.
        batch_size: audios in one pass of the tower.
        cache_bytes: bound on what is kept.
    """

    def __init__(
        self,
        path: str,
        load_media: Callable[[Prompt], Mapping[str, Any]],
        *,
        media: str = "embeds",
        device: str = "cpu",
        batch_size: int = 16,
        cache_bytes: int = 1 << 30,
    ):
        self.processor = load_processor(path)
        self._path = path
        self._load_media = load_media
        self._embeds = media == "embeds"
        self._device = device
        self._batch_size = batch_size
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[str, str, str], EncodedPrompt] = OrderedDict()
        self._num_bytes = 0
        self._tower: torch.nn.Module | None = None
        self.num_hits = 0
        self.num_misses = 0

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Encoded prompts, in order.

        Raises:
            DataError: a prompt's media and its placeholders do not fit (the message names the prompt).
        """
        encoded: dict[int, EncodedPrompt] = {}
        new: list[int] = []
        for index, prompt in enumerate(prompts):
            if (known := self._cache.get(_key(prompt))) is not None:
                self._cache.move_to_end(_key(prompt))
                encoded[index] = known
            else:
                new.append(index)
        self.num_hits += len(encoded)
        self.num_misses += len(new)
        for start in range(0, len(new), self._batch_size):
            indices = new[start : start + self._batch_size]
            for index, result in zip(indices, self._encode_new([prompts[i] for i in indices]), strict=True):
                encoded[index] = result
                self._remember(prompts[index], result)
        return [encoded[index] for index in range(len(prompts))]

    def _encode_new(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        encoded = [self._process(prompt) for prompt in prompts]
        with_media = [e for e in encoded if e.media_inputs]
        if not (self._embeds and with_media):
            return encoded
        names = with_media[0].media_inputs
        batch = {n: torch.from_numpy(np.concatenate([e.media_inputs[n] for e in with_media])) for n in names}
        with torch.inference_mode():
            audios = iter(embed_media(self._load_tower(), batch))
        return [self._with_embeds(e, audios) if e.media_inputs else e for e in encoded]

    def _process(self, prompt: Prompt) -> EncodedPrompt:
        media = dict(self._load_media(prompt)) if prompt.media else {}
        try:
            inputs = dict(self.processor(text=prompt.text, return_tensors="pt", **media))
        except ValueError as error:
            raise DataError(f"prompt {prompt.id}: the processor refused it: {error}") from error
        return EncodedPrompt(
            prompt_token_ids=tuple(inputs["input_ids"][0].tolist()),
            media_inputs={k: v.numpy() for k, v in inputs.items() if k not in _TOKEN_KEYS},
            media=media,
        )

    def _with_embeds(self, encoded: EncodedPrompt, audios: Any) -> EncodedPrompt:
        """Takes as many of the batch's audios as this prompt has; its waveforms are not needed any more."""
        num_audios = len(encoded.media_inputs["input_features"])
        embeds = torch.cat([next(audios) for _ in range(num_audios)]).float().cpu().numpy()
        return EncodedPrompt(
            prompt_token_ids=encoded.prompt_token_ids, media_inputs={"audio_embeds": embeds}, media={}
        )

    def _load_tower(self) -> Any:
        if self._tower is None:
            self._tower = load_media_encoder(self._path).to(self._device)
        return self._tower

    def _remember(self, prompt: Prompt, encoded: EncodedPrompt) -> None:
        self._cache[_key(prompt)] = encoded
        self._num_bytes += encoded.num_bytes
        while self._num_bytes > self._cache_bytes and self._cache:
            _, oldest = self._cache.popitem(last=False)
            self._num_bytes -= oldest.num_bytes


def _key(prompt: Prompt) -> tuple[str, str, str]:
    """Ids are unique within a split only."""
    return prompt.id, prompt.text, repr(prompt.media)
