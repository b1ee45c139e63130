"""Prompts to model inputs: media loaded through the task, tokens expanded by the processor, and in `embeds`
mode the frozen audio tower run once a prompt, its output shared by rollout, reference and learner. In `raw`
mode the processor runs once a prompt, and its features are shared in the same way. Of images and videos it is
always the frozen tower's output that is shared.

This module knows nothing of vLLM.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from rlcore.errors import DataError
from rlcore.models.device import own_device
from rlcore.models.families import families, family_of, policy_config
from rlcore.models.families.base import PICTURES
from rlcore.models.hf_model import (
    Media,
    embed_media,
    load_config,
    load_media_encoder,
    load_processor,
    placeholder_id,
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
    """Model inputs beside tokens, as in `Group`: `audio_embeds` float32 [N, H] or the processor's tensors,
    and of pictures `rlcore.models.families.base.PICTURES`. Empty without media."""
    media: Media
    """Media as the task loaded them, where the engine makes features of them itself: the processor's
    arguments beside `text`. Else empty."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a prompt's media, whatever the text asks about them."""

    inputs: Mapping[str, np.ndarray]
    """`EncodedPrompt.media_inputs`."""
    lengths: Mapping[str, tuple[int, ...]]
    """Number of embeddings of each recording (`audio`), `image` and `video`."""
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
        cache_folder: where embeddings of audio are also kept on disk (`rlcore.models.media_cache`); `None`:
            nowhere.
        sees: False leaves the vision tower out: prompts have the right tokens, and pixels as media inputs.
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
        sees: bool = True,
    ):
        self.processor = load_processor(path)
        self._config = load_config(path)
        self._path = path
        self._load_media = load_media
        self._embeds = media == "embeds" and family_of(self._config).encode_audio is not None
        self._batch_size = batch_size
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[_Key, _Kept] = OrderedDict()
        self._num_bytes = 0
        self._cache_folder = cache_folder
        self._sees = sees
        self._towers: PreTrainedModel | None = None
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
            kept = self._known([prompt for prompt in batch if prompt.media])
            encoded += [self._expanded(p, kept[_key(p)] if p.media else _NOTHING) for p in batch]
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

    def _known(self, prompts: Sequence[Prompt]) -> dict[_Key, _Kept]:
        """Returns what each prompt's media are to the model, from the cache or anew."""
        keys = [_key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._cache}
        self.num_hits += len(prompts) - len(new)
        self.num_misses += len(new)
        kept = {key: self._cache[key] for key in keys if key in self._cache}
        for key in kept:
            self._cache.move_to_end(key)
        if new:
            # In one pass of the tower; without one, no more than one prompt's media are in memory.
            batches = [list(new.values())] if self._embeds else [[prompt] for prompt in new.values()]
            fresh = dict(zip(new, chain.from_iterable(map(self._made, batches)), strict=True))
            kept |= fresh
            self._remember(fresh)
        return kept

    def _made(self, prompts: Sequence[Prompt]) -> list[_Kept]:
        media = [self._load(prompt) for prompt in prompts]
        heard = self._embed(prompts, media) if self._embeds else list(map(self._features, prompts, media))
        return [self._with_pictures(*each) for each in zip(prompts, media, heard, strict=True)]

    def _with_pictures(self, prompt: Prompt, media: Media, heard: _Kept) -> _Kept:
        """Adds what a prompt's images and videos are to the model."""
        if not any(media.get(name) for name in PICTURES.values()):
            return heard
        vision = family_of(self._config).vision
        with _named(prompt):
            if vision is None:
                raise DataError(no_vision(self._config))
            inputs = vision.process(self.processor, media)
        patches = vision.patches(policy_config(self._config))
        grids = {name: array for name, array in inputs.items() if name.endswith("_grid_thw")}
        lengths = {kind: grids.get(f"{kind}_grid_thw", np.zeros((0, 3))).prod(axis=1) for kind in PICTURES}
        if self._sees:
            self.num_encoded += 1
            with torch.inference_mode():
                embeds = vision.encode(
                    self._loaded_towers(), {name: torch.as_tensor(array) for name, array in inputs.items()}
                )
            inputs = {**grids, **{name: e.float().cpu().numpy().copy() for name, e in embeds.items()}}
        of_pictures = {kind: tuple((n // patches).astype(int).tolist()) for kind, n in lengths.items()}
        return _Kept({**heard.inputs, **inputs}, {**heard.lengths, **of_pictures}, heard.media)

    def _features(self, prompt: Prompt, media: Media) -> _Kept:
        """Computes the processor's features of a prompt's recordings."""
        if not media.get("audio"):
            return _NOTHING
        inputs, lengths = self._process(prompt, media)
        takes_them = family_of(self._config).engine_features is not None
        return _Kept(inputs, {"audio": lengths}, {} if takes_them else media)

    def _process(self, prompt: Prompt, media: Media) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
        """Returns the processor's features of recordings, and the number of embeddings of each."""
        with _named(prompt):
            recordings = {name: value for name, value in media.items() if name not in PICTURES.values()}
            return processed(self._config, self.processor, recordings)

    def _placeholder(self, kind: str) -> str:
        token_id = placeholder_id(self._config, kind)
        placeholder: str = tokenizer_of(self.processor).convert_ids_to_tokens(token_id)
        return placeholder

    def _loaded_towers(self) -> PreTrainedModel:
        if self._towers is None:
            self._towers = load_media_encoder(self._path).to(own_device())
        return self._towers

    def _embed(self, prompts: Sequence[Prompt], media: Sequence[Media]) -> list[_Kept]:
        """Reads embeddings of recordings from the disk, else computes them with the tower."""
        if self._disk is None and self._cache_folder is not None:
            self._disk = MediaCache(self._cache_folder, self._loaded_towers(), self.processor)
        with self._reading():
            found = [self._on_disk(m) if m.get("audio") else () for m in media]
        missing = [i for i, embeds in enumerate(found) if embeds is None]
        fresh = self._run_tower([self._process(prompts[i], media[i]) for i in missing])
        for i, embeds in zip(missing, fresh, strict=True):
            found[i] = embeds
            if self._disk is not None:
                with self._reading():
                    self._disk.put(media[i], embeds)
        return [_of_embeddings(embeds) for embeds in found if embeds is not None]

    def _on_disk(self, media: Media) -> tuple[np.ndarray, ...] | None:
        return None if self._disk is None else self._disk.get(media)

    def _run_tower(
        self, processed: Sequence[tuple[Mapping[str, np.ndarray], tuple[int, ...]]]
    ) -> list[tuple[np.ndarray, ...]]:
        """Returns the embeddings of each prompt's recordings, of features and lengths from `_process`."""
        if not processed:
            return []
        self.num_encoded += len(processed)
        with torch.inference_mode():
            rows = embed_media(self._loaded_towers(), stacked([features for features, _ in processed]))
            whole = torch.cat(rows).float().cpu()
        # A recording may have several rows, of windows.
        lengths = [length for _, each in processed for length in each]
        arrays = iter([embeds.numpy().copy() for embeds in whole.split(lengths)])
        return [tuple(next(arrays) for _ in each) for _, each in processed]

    def _expanded(self, prompt: Prompt, kept: _Kept) -> EncodedPrompt:
        """Expands the placeholders as the processor does, one token per embedding. (The engine compares the
        result with its own expansion.)"""
        text = prompt.text
        for kind, lengths in kept.lengths.items():
            placeholder = self._placeholder(kind)
            before, *after = text.split(placeholder)
            if len(after) != len(lengths):
                raise DataError(
                    f"prompt {prompt.id}: {len(after)} {placeholder} in its text, {len(lengths)} {kind}"
                )
            runs = [placeholder * length for length in lengths]
            text = before + "".join(run + rest for run, rest in zip(runs, after, strict=True))
        return EncodedPrompt(
            prompt_token_ids=tuple(tokens_of(tokenizer_of(self.processor), text)),
            media_inputs=kept.inputs,
            media=kept.media,
        )

    def _remember(self, fresh: Mapping[_Key, _Kept]) -> None:
        self._cache.update(fresh)
        self._num_bytes += sum(kept.num_bytes for kept in fresh.values())
        while self._num_bytes > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._num_bytes -= oldest.num_bytes


_NOTHING = _Kept({}, {}, {})
"""What a prompt without media is."""


def no_vision(config: PretrainedConfig) -> str:
    """Returns why a model is given no pictures, and which families take them."""
    takers = [family.name for family in dict.fromkeys(families().values()) if family.vision is not None]
    return (
        f"it has images or videos, which {family_of(config).name} does not take here; "
        f"{' and '.join(takers)} do"
    )


@contextmanager
def _named(prompt: Prompt) -> Iterator[None]:
    """Raises what a processor says against a prompt's media as a DataError that names the prompt."""
    try:
        yield
    except DataError as error:
        raise DataError(f"prompt {prompt.id}: {error}") from error
    except ValueError as error:
        raise DataError(f"prompt {prompt.id}: the processor refused it: {error}") from error


def _of_embeddings(audios: Sequence[np.ndarray]) -> _Kept:
    """Returns what is kept of recordings whose embeddings are [N_i, H] each."""
    if not audios:
        return _NOTHING
    embeds = audios[0] if len(audios) == 1 else np.concatenate(audios)
    return _Kept({"audio_embeds": embeds}, {"audio": tuple(map(len, audios))}, {})


def _key(prompt: Prompt) -> _Key:
    """Returns the cache's key. Ids are unique within a split only, so the media belong to the key."""
    digest = hashlib.sha256()
    try:
        update_digest(digest, dict(prompt.media))
    except TypeError as error:
        raise DataError(f"prompt {prompt.id}: its media cannot be told from others: {error}") from error
    return prompt.id, digest.digest()
