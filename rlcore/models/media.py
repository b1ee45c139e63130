"""Prompts to model inputs: media loaded through the task, tokens expanded by the processor, and in `embeds`
mode the frozen audio tower run once a prompt, its output shared by rollout, reference and learner. In `raw`
mode the processor runs once a prompt, and its features are shared in the same way.

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
from rlcore.models.families import family_of
from rlcore.models.hf_model import (
    Media,
    audio_token_id,
    embed_media,
    load_config,
    load_media_encoder,
    load_processor,
    processed,
    stacked,
    tokenizer_of,
    whole_hops,
)
from rlcore.models.media_cache import MediaCache
from rlcore.models.tokens import tokens_of
from rlcore.records.digest import update_digest
from rlcore.types import Prompt

_Key: TypeAlias = tuple[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as engines take prompts: tokens and media."""

    prompt_token_ids: tuple[int, ...]
    """[P] with one placeholder token for each media embedding."""
    media_inputs: Mapping[str, np.ndarray]
    """Model inputs beside tokens, as in `Group`: `audio_embeds` float32 [N, H], or the processor's tensors.
    Empty without media."""
    media: Media
    """Media as the task loaded them, where the engine makes features of them itself: the processor's
    arguments beside `text`. Else empty."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What is kept of a prompt's media, whatever the text asks about them."""

    inputs: Mapping[str, np.ndarray]
    """`EncodedPrompt.media_inputs`."""
    lengths: tuple[int, ...]
    """Number of embeddings of each recording."""
    media: Media
    """`EncodedPrompt.media`."""

    @property
    def num_bytes(self) -> int:
        arrays = [*self.inputs.values(), *self.media.get("audio", ())]
        return sum(np.asarray(array).nbytes for array in arrays)


class MediaEncoder:
    """Encodes prompts, in batches. Media go through processor and, in `embeds` mode, tower once, however many
    texts ask about them (a reward model asks K times). What comes out is kept, least recently used dropped
    first. The tower runs on this process's GPU, where there is one.

    Args:
        path: checkpoint folder or hub id; only its processor and, in `embeds` mode, its tower are loaded.
        load_media: gives a prompt's media: `Task.load_media`.
        media: `embeds` or `raw`, as `model.media`.
        batch_size: number of prompts in one pass of the tower.
        cache_bytes: most bytes of embeddings or features that are kept in memory.
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
        self._cache: OrderedDict[_Key, _Heard] = OrderedDict()
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
            heard = self._heard([prompt for prompt in batch if prompt.media])
            encoded += [self._expanded(p, heard[_key(p)] if p.media else _SILENCE) for p in batch]
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

    def _heard(self, prompts: Sequence[Prompt]) -> dict[_Key, _Heard]:
        """Returns what each prompt's media are to the model, from the cache or anew."""
        keys = [_key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._cache}
        self.num_hits += len(prompts) - len(new)
        self.num_misses += len(new)
        heard = {key: self._cache[key] for key in keys if key in self._cache}
        for key in heard:
            self._cache.move_to_end(key)
        if new:
            made = self._embed(list(new.values())) if self._embeds else map(self._features, new.values())
            fresh = dict(zip(new, made, strict=True))
            heard |= fresh
            self._remember(fresh)
        return heard

    def _features(self, prompt: Prompt) -> _Heard:
        """Computes the processor's features of a prompt's media."""
        media = self._load(prompt)
        if not media.get("audio"):
            return _SILENCE
        inputs, lengths = self._process(prompt, media)
        takes_them = family_of(self._config).engine_features is not None
        return _Heard(inputs, lengths, {} if takes_them else media)

    def _process(self, prompt: Prompt, media: Media) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
        """Returns the processor's features of some media, and the number of embeddings of each recording."""
        try:
            return processed(self._config, self.processor, media)
        except DataError as error:
            raise DataError(f"prompt {prompt.id}: {error}") from error
        except ValueError as error:
            raise DataError(f"prompt {prompt.id}: the processor refused it: {error}") from error

    @property
    def _placeholder(self) -> str:
        placeholder: str = tokenizer_of(self.processor).convert_ids_to_tokens(self._placeholder_id)
        return placeholder

    def _embed(self, prompts: Sequence[Prompt]) -> list[_Heard]:
        """Reads embeddings from the disk, else computes them with the tower."""
        if self._tower is None:
            self._tower = load_media_encoder(self._path).to(own_device())
            if self._cache_folder is not None:
                self._disk = MediaCache(self._cache_folder, self._tower, self.processor)
        media = [self._load(prompt) for prompt in prompts]
        with self._reading():
            found = [self._kept(m) if m.get("audio") else () for m in media]
        missing = [i for i, embeds in enumerate(found) if embeds is None]
        fresh = self._run_tower([self._process(prompts[i], media[i]) for i in missing])
        for i, embeds in zip(missing, fresh, strict=True):
            found[i] = embeds
            if self._disk is not None:
                with self._reading():
                    self._disk.put(media[i], embeds)
        return [_of_embeddings(embeds) for embeds in found if embeds is not None]

    def _kept(self, media: Media) -> tuple[np.ndarray, ...] | None:
        return None if self._disk is None else self._disk.get(media)

    def _run_tower(
        self, processed: Sequence[tuple[Mapping[str, np.ndarray], tuple[int, ...]]]
    ) -> list[tuple[np.ndarray, ...]]:
        """Returns the embeddings of each prompt's recordings, of features and lengths from `_process`."""
        if not processed:
            return []
        assert self._tower is not None, "_embed loads the tower"
        self.num_encoded += len(processed)
        with torch.inference_mode():
            rows = embed_media(self._tower, stacked([features for features, _ in processed]))
            whole = torch.cat(rows).float().cpu()
        # A recording may have several rows, of windows.
        lengths = [length for _, each in processed for length in each]
        arrays = iter([embeds.numpy().copy() for embeds in whole.split(lengths)])
        return [tuple(next(arrays) for _ in each) for _, each in processed]

    def _expanded(self, prompt: Prompt, heard: _Heard) -> EncodedPrompt:
        """Expands the placeholders as the processor does, one token per embedding. (The engine compares the
        result with its own expansion.)"""
        text = prompt.text
        if heard.lengths:
            placeholder = self._placeholder
            before, *after = text.split(placeholder)
            if len(after) != len(heard.lengths):
                raise DataError(
                    f"prompt {prompt.id}: {len(after)} {placeholder} in its text, {len(heard.lengths)} audio"
                )
            runs = [placeholder * length for length in heard.lengths]
            text = before + "".join(run + rest for run, rest in zip(runs, after, strict=True))
        return EncodedPrompt(
            prompt_token_ids=tuple(tokens_of(tokenizer_of(self.processor), text)),
            media_inputs=heard.inputs,
            media=heard.media,
        )

    def _remember(self, fresh: Mapping[_Key, _Heard]) -> None:
        self._cache.update(fresh)
        self._num_bytes += sum(heard.num_bytes for heard in fresh.values())
        while self._num_bytes > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._num_bytes -= oldest.num_bytes


_SILENCE = _Heard({}, (), {})
"""What a prompt without media is."""


def _of_embeddings(audios: Sequence[np.ndarray]) -> _Heard:
    """Returns what is kept of recordings whose embeddings are [N_i, H] each."""
    if not audios:
        return _SILENCE
    embeds = audios[0] if len(audios) == 1 else np.concatenate(audios)
    return _Heard({"audio_embeds": embeds}, tuple(map(len, audios)), {})


def _key(prompt: Prompt) -> _Key:
    """Returns the cache's key. Ids are unique within a split only, so the media belong to the key."""
    digest = hashlib.sha256()
    try:
        update_digest(digest, dict(prompt.media))
    except TypeError as error:
        raise DataError(f"prompt {prompt.id}: its media cannot be told from others: {error}") from error
    return prompt.id, digest.digest()
