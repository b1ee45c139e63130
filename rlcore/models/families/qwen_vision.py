"""The vision of Qwen2.5-VL (arXiv:2502.13923) and Qwen2.5-Omni: patches of a picture of any size, and
positions in time, height and width."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from rlcore.models.families.base import PICTURES, Features, Media, Vision

_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
"""The processor's name of a kind's patches, float32 [num_patches, values of a patch]."""
_FRAME_RATE = 2.0
"""Frames a second: two of them are one step of a grid in time, which vLLM takes for a second wherever it is
given embeddings."""


def qwen_vision(tower: str, *, seconds: str) -> Vision:
    """Returns the vision of a family.

    Args:
        tower: attribute path of the vision tower.
        seconds: key, after a dot of a part of the config, of the positions that a second takes.
    """

    def positions(
        config: PretrainedConfig, token_ids: np.ndarray, inputs: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        part, _, key = seconds.rpartition(".")
        return grid_positions(config, token_ids, inputs, getattr(getattr(config, part, config), key))

    def encode(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        module = model.get_submodule(tower)
        return {
            f"{kind}_embeds": module(
                inputs[pixels].to(module.device, module.dtype),
                grid_thw=inputs[f"{kind}_grid_thw"].to(module.device),
            ).pooler_output
            for kind, pixels in _PIXELS.items()
            if pixels in inputs
        }

    return Vision(
        tower=tower,
        frame_rate=_FRAME_RATE,
        process=process,
        encode=encode,
        patches=lambda config: config.vision_config.spatial_merge_size**2,
        positions=positions,
    )


def process(processor: ProcessorMixin, media: Media) -> Features:
    """Cuts pictures into patches, as the whole processor would: videos have a size of their own there."""
    tokens = {kind: getattr(processor, f"{kind}_token") for kind in PICTURES}
    given = {name: list(media[name]) for name in PICTURES.values() if media.get(name)}
    text = "".join(tokens[kind] * len(given.get(name, ())) for kind, name in PICTURES.items())
    # Said, because a picture of one or three rows looks like one whose channels stand first.
    as_they_are = {"input_data_format": "channels_last"}
    # The frames are chosen already; of the two caps on their size, the one of the published code.
    frames = {"do_sample_frames": False, "cap_pixels_per_frame": True}
    of_kind = {"images_kwargs": as_they_are, "videos_kwargs": {**as_they_are, **frames}}
    own = {f"{name}_kwargs": of_kind[f"{name}_kwargs"] for name in given}
    inputs = processor(text=text, return_tensors="np", **own, **given)
    names = [name for kind in PICTURES for name in (_PIXELS[kind], f"{kind}_grid_thw")]
    return {name: np.asarray(inputs[name]) for name in names if name in inputs}


def grid_positions(
    config: PretrainedConfig, token_ids: np.ndarray, inputs: Mapping[str, np.ndarray], a_second: float
) -> np.ndarray:
    """Returns positions in time, height and width, int64 [3, P], as vLLM counts them. Text and audio move all
    three by one a token; each picture, and what follows, begins behind the largest before.

    (For what follows a video transformers looks at height and width alone in Qwen2.5-VL, not at the time.)

    Args:
        token_ids: int64 [P], whose runs of placeholders fit the grids.
        a_second: positions in time of a step of a grid.
    """
    merge = config.vision_config.spatial_merge_size
    grids = {
        getattr(config, f"{kind}_token_id"): iter(inputs.get(f"{kind}_grid_thw", ())) for kind in PICTURES
    }
    is_picture = np.isin(token_ids, list(grids))
    pieces: list[np.ndarray] = []
    at = start = 0
    while at < len(token_ids):
        if is_picture[at]:
            time, height, width = next(grids[int(token_ids[at])])
            piece = np.indices((time, height // merge, width // merge)).reshape(3, -1)
            piece[0] = (piece[0] * a_second).astype(np.int64)
        else:
            end = at + int(np.append(is_picture[at:], True).argmax())
            piece = np.tile(np.arange(end - at), (3, 1))
        pieces.append(piece + start)
        at, start = at + piece.shape[1], int(pieces[-1].max()) + 1
    return np.concatenate(pieces, axis=1)
