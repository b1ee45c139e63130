"""Prompts to model inputs: media loaded through the task, tokens expanded by the processor, and in `embeds`
mode the frozen audio tower run once a prompt, its output shared by rollout, reference and learner.

This module knows nothing of vLLM.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from transformers import PreTrainedModel

from rlcore.errors import DataError
from rlcore.models.device import own_device
from rlcore.models.hf_model import (
    Media,
    audio_token_id,
    embed_media,
    load_config,
    load_media_encoder,
    load_processor,
    stacked,
    tokenizer_of,
    whole_hops,
    without_padding,
)
from rlcore.models.media_cache import MediaCache
from rlcore.models.tokens import special_tokens_argument, tokens_of
from rlcore.records.digest import update_digest
from rlcore.types import Prompt

_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids")
_Key: TypeAlias = tuple[str, bytes]
_Audios: TypeAlias = tuple[np.ndarray, ...]
"""A prompt's audios as embeddings, [N_i, H] each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as engines take prompts: tokens and media."""

    prompt_token_ids: tuple[int, ...]
    """[P] with one placeholder token for each media embedding."""
    media_inputs: Mapping[str, np.ndarray]
    """Model inputs beside tokens, as in `Group`: `audio_embeds` float32 [N, H], or the processor's tensors.
    Empty without media."""
    media: Media
    """Media as the task loaded them, in `raw` mode: the processor's arguments beside `text`. Else empty."""


class MediaEncoder:
    """Encodes prompts, in batches. In `embeds` mode an audio goes through the tower once, however many texts
    ask about the audio (a reward model asks K times). Embeddings are kept, least recently used dropped first.
    The tower runs on this process's GPU, where there is one.

    Args:
        path: checkpoint folder or hub id; only its processor and, in `embeds` mode, its tower are loaded.
        load_media: gives a prompt's media: `Task.load_media`.
        media: `embeds` or `raw`, as `model.media`.
        batch_size: number of prompts in one pass of the tower.
        cache_bytes: most bytes of embeddings that are kept in memory.
        cache_folder: where embeddings are also kept on disk (`rlcore.models.media_cache`); `None`: nowhere.
    """

    def __init__(
        self,
        path: str,
        load_media: Callable[[Prompt], Media],
        *,
        media: str = "embeds",
        batch_size: int = 16,
        cache_bytes: int = 1 << 30,
        cache_folder: str | None = None,
    ):
        self.processor = load_processor(path)
        self._config = load_config(path)
        self._placeholder_id = audio_token_id(self._config)
        self._path = path
        self._load_media = load_media
        self._embeds = media == "embeds"
        self._batch_size = batch_size
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[_Key, _Audios] = OrderedDict()
        self._num_bytes = 0
        self._cache_folder = cache_folder
        self._tower: PreTrainedModel | None = None
        self._disk: MediaCache | None = None
        self._reading_since: float | None = None
        self.num_hits = 0
        self.num_misses = 0
        self.num_encoded = 0

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Encodes prompts, in order.

        Raises:
            DataError: a prompt's media cannot be loaded, or do not fit its placeholders (the message names
                the prompt).
        """
        encoded: list[EncodedPrompt] = []
        for start in range(0, len(prompts), self._batch_size):
            batch = prompts[start : start + self._batch_size]
            if self._embeds:
                audios = self._audios([p for p in batch if p.media])
                for prompt in batch:
                    of_prompt = audios.get(_key(prompt))
                    encoded.append(
                        self._with_embeds(prompt, of_prompt) if of_prompt else self._process(prompt)
                    )
            else:
                encoded += [self._process(prompt) for prompt in batch]
        return encoded

    @property
    def stalled_s(self) -> float:
        """Seconds that the file at hand, a recording or an entry of the cache, has taken to read or write; 0
        without one. Other threads may ask. (A tower may be slow, a disk may hang.)"""
        since = self._reading_since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._reading_since = time.monotonic()
        try:
            yield
        finally:
            self._reading_since = None

    def _load(self, prompt: Prompt) -> Media:
        try:
            with self._reading():
                return whole_hops(self._config, self.processor, self._load_media(prompt))
        except Exception as error:  # the boundary to the task's code
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"prompt {prompt.id}: its media cannot be loaded: {reason}") from error

    def _process(self, prompt: Prompt, media: Media | None = None) -> EncodedPrompt:
        """Encodes a prompt with the model's own processor."""
        if media is None:
            media = self._load(prompt) if prompt.media else {}
        try:
            special = special_tokens_argument(tokenizer_of(self.processor), prompt.text)
            inputs = dict(self.processor(text=prompt.text, return_tensors="pt", **media, **special))
        except ValueError as error:
            raise DataError(f"prompt {prompt.id}: the processor refused it: {error}") from error
        return EncodedPrompt(
            prompt_token_ids=tuple(inputs["input_ids"][0].tolist()),
            media_inputs=without_padding(
                self._config, {k: v.numpy() for k, v in inputs.items() if k not in _TOKEN_KEYS}
            ),
            media=media,
        )

    def _audios(self, prompts: Sequence[Prompt]) -> dict[_Key, _Audios]:
        """Returns each prompt's audios as embeddings, from the cache or the tower."""
        new = {_key(prompt): prompt for prompt in prompts if _key(prompt) not in self._cache}
        self.num_hits += len(prompts) - len(new)
        self.num_misses += len(new)
        audios = {_key(p): self._cache[_key(p)] for p in prompts if _key(p) in self._cache}
        for key in audios:
            self._cache.move_to_end(key)
        if new:
            fresh = dict(zip(new, self._embed(list(new.values())), strict=True))
            audios |= fresh
            self._remember(fresh)
        return audios

    def _embed(self, prompts: Sequence[Prompt]) -> list[_Audios]:
        """Reads embeddings from the disk, else computes them with the tower."""
        if self._tower is None:
            self._tower = load_media_encoder(self._path).to(own_device())
            if self._cache_folder is not None:
                self._disk = MediaCache(self._cache_folder, self._tower, self.processor)
        media = [self._load(prompt) for prompt in prompts]
        with self._reading():
            found = [self._disk.get(m) if self._disk is not None else None for m in media]
        missing = [i for i, embeds in enumerate(found) if embeds is None]
        fresh = self._run_tower([self._process(prompts[i], media[i]).media_inputs for i in missing])
        for i, embeds in zip(missing, fresh, strict=True):
            found[i] = embeds
            if self._disk is not None:
                with self._reading():
                    self._disk.put(media[i], embeds)
        return [embeds for embeds in found if embeds is not None]

    def _run_tower(self, features: Sequence[Mapping[str, np.ndarray]]) -> list[_Audios]:
        if not features:
            return []
        assert self._tower is not None, "_embed loads the tower"
        self.num_encoded += len(features)
        with torch.inference_mode():
            embeds = embed_media(self._tower, stacked(features))
            arrays = iter([embed.float().cpu().numpy().copy() for embed in embeds])
            return [tuple(next(arrays) for _ in f["input_features"]) for f in features]

    def _with_embeds(self, prompt: Prompt, audios: _Audios) -> EncodedPrompt:
        """Expands the placeholders as the processor does, one token per embedding. (The engine compares the
        result with its own expansion.)"""
        tokenizer = tokenizer_of(self.processor)
        placeholder = tokenizer.convert_ids_to_tokens(self._placeholder_id)
        before, *after = prompt.text.split(placeholder)
        if len(after) != len(audios):
            raise DataError(
                f"prompt {prompt.id}: {len(after)} {placeholder} in its text, {len(audios)} audio"
            )
        text = before + "".join(placeholder * len(a) + rest for a, rest in zip(audios, after, strict=True))
        return EncodedPrompt(
            prompt_token_ids=tuple(tokens_of(tokenizer, text)),
            media_inputs={"audio_embeds": audios[0] if len(audios) == 1 else np.concatenate(audios)},
            media={},
        )

    def _remember(self, fresh: Mapping[_Key, _Audios]) -> None:
        self._cache.update(fresh)
        self._num_bytes += sum(map(_num_bytes, fresh.values()))
        while self._num_bytes > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._num_bytes -= _num_bytes(oldest)


def _key(prompt: Prompt) -> _Key:
    """Returns the cache's key. Ids are unique within a split only, so the media belong to the key."""
    digest = hashlib.sha256()
    try:
        update_digest(digest, dict(prompt.media))
    except TypeError as error:
        raise DataError(f"prompt {prompt.id}: its media cannot be told from others: {error}") from error
    return prompt.id, digest.digest()


def _num_bytes(audios: Sequence[np.ndarray]) -> int:
    return sum(audio.nbytes for audio in audios)
