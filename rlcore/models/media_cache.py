"""Audio embeddings of a frozen tower on disk, by content and weights: what one run has encoded, the next
reads.

The folder of a tower is the digest of its weights and of its processor's settings; a file's name is the
digest of what the task loaded. Nothing needs to be invalidated: other weights or another recording are other
names. This module knows neither prompts nor how an embedding is made.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from rlcore.models.families import Media
from rlcore.records.digest import update_digest
from rlcore.records.files import replaced

logger = logging.getLogger(__name__)

_FORMAT = "1"


class MediaCache:
    """Embeddings of one tower, in `folder`; shared by processes, which may write the same entry at once."""

    def __init__(
        self, folder: str | Path, tower: nn.Module, processor: ProcessorMixin | PreTrainedTokenizerBase
    ):
        digest = hashlib.sha256(_FORMAT.encode())
        for name, tensor in sorted(tower.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        digest.update(json.dumps(_settings(processor), sort_keys=True, default=_listed).encode())
        self._folder = Path(folder) / digest.hexdigest()[:24]
        self._has_warned = False

    def get(self, media: Media) -> tuple[np.ndarray, ...] | None:
        """Reads the embeddings [N_i, H] of each audio; None where they were never made, or cannot be read."""
        try:
            arrays = load_file(self._path(media))
        except (OSError, SafetensorError, TypeError):
            return None
        return tuple(arrays[str(i)] for i in range(len(arrays)))

    def put(self, media: Media, embeds: Sequence[np.ndarray]) -> None:
        """Keeps the embeddings of some media, where the disk takes them: the first failure is logged, and
        none stops the run."""
        try:
            with replaced(self._path(media), is_shared=True) as unfinished:
                save_file({str(i): np.ascontiguousarray(e) for i, e in enumerate(embeds)}, unfinished)
        except (OSError, SafetensorError, TypeError) as error:
            if not self._has_warned:
                logger.warning("model.media_cache: %s does not keep all: %s", self._folder, error)
            self._has_warned = True

    def _path(self, media: Media) -> Path:
        digest = hashlib.sha256()
        update_digest(digest, media)
        return self._folder / f"{digest.hexdigest()[:40]}.safetensors"


def _settings(processor: ProcessorMixin | PreTrainedTokenizerBase) -> dict[str, object]:
    extractor = getattr(processor, "feature_extractor", None)
    return extractor.to_dict() if extractor is not None else {}


def _listed(value: object) -> object:
    # Whole: the text of a long array leaves its middle out.
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
