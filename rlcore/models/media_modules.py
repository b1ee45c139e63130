"""Taking encoders and projectors out of a model that is given their output, and putting them back; and what
goes through them where a rank has no media.

A policy whose media arrive as embeddings never enters its tower: outside the model, the tower costs no
accelerator memory and no partitioning, and is still there when a whole checkpoint has to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from rlcore.models.families import family_of


class HasMedia(Protocol):
    """A group with the model inputs of its media: `TrainGroup`, or what a supervised loss takes."""

    @property
    def media_inputs(self) -> Mapping[str, np.ndarray]:
        """Model inputs beside tokens, as in `rlcore.types.Group`."""
        ...


def detach_media_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Takes encoders and projectors out of a model, in which None stands in each one's place. Returns them by
    attribute path, in the model's order."""
    paths = [path for path in family_of(model.config).media_modules if _has(model, path)]
    modules = {path: model.get_submodule(path) for path in paths}
    for path in modules:
        _set(model, path, None)
    return modules


def attach_media_modules(model: PreTrainedModel, modules: Mapping[str, nn.Module]) -> None:
    """Puts back what `detach_media_modules` took out."""
    for path, module in modules.items():
        _set(model, path, module)


def to_encode(media_inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns those of a group's media inputs that go through a tower or projector: neither embeddings nor
    the grids of pictures, whose embeddings are always made before."""
    done = ("_embeds", "_grid_thw")
    return {name: array for name, array in media_inputs.items() if not name.endswith(done)}


def silent_media(groups: Sequence[HasMedia]) -> dict[str, np.ndarray] | None:
    """Returns media of zeros in the form of what any rank has for tower or projector; None where no rank has
    any. Collective."""
    mine = next((found for g in groups if (found := to_encode(g.media_inputs))), {})
    forms: list[dict[str, tuple[tuple[int, ...], str]]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(
        forms, {n: (np.asarray(a)[:1].shape, np.asarray(a).dtype.str) for n, a in mine.items()}
    )
    form = next((form for form in forms if form), None)
    if form is None:
        return None
    return {
        name: (np.ones if name.endswith("_mask") else np.zeros)(shape, dtype)
        for name, (shape, dtype) in form.items()
    }


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _set(model: nn.Module, path: str, module: nn.Module | None) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
