"""Settings of the policy, and of classes that are plugged in by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rlcore.config.checks import check, one_of, without_tilde
from rlcore.config.io import MAY_CHANGE, Arguments

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""Pattern of `package.module:Name`."""
MISSING = "???"
"""Default of a key that must be set."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy to train, and how its media reach the engines."""

    path: str = MISSING
    """Folder or hub id of a Hugging Face checkpoint with its processor."""
    dtype: str | None = None
    """Dtype of the rollout engines and their weights, `float32` or `bfloat16`; null: bfloat16 on GPUs, else
    float32. Learner and reference have `learner.precision`."""
    head_dtype: str = "auto"
    """Dtype of the output layer's products: `auto`, as the other layers', or `float32`, from their bfloat16
    operands, in learner, reference and engines alike. Logits rounded to bfloat16 are off by up to 0.4 %."""
    freeze: tuple[str, ...] = ("audio_tower", "multi_modal_projector", "visual")
    """Parameters whose name contains one of these are not trained. Names of encoders and projectors of any
    known family may be missing from the model at hand; any other pattern must match."""
    media: str = "embeds"
    """`embeds`: the frozen tower runs once a prompt and vLLM takes its output; `raw`: vLLM runs the tower."""
    media_cache: str | None = field(default=None, metadata=MAY_CHANGE)
    """Folder that keeps the frozen tower's embeddings from run to run, by content and weights."""

    def __post_init__(self) -> None:
        without_tilde(self, "path", "media_cache")
        if self.dtype is not None:
            one_of(self, "dtype", "float32", "bfloat16")
        one_of(self, "head_dtype", "auto", "float32")
        one_of(self, "media", "embeds", "raw")

    def engine_dtype(self, num_gpus: float) -> str:
        """Returns the dtype of rollout engines of `num_gpus` each."""
        return self.dtype or ("bfloat16" if num_gpus > 0 else "float32")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """A class of your own, by name, with its arguments."""

    target: str = MISSING
    """Name of the class, as `package.module:Class`."""
    args: Arguments = field(default_factory=dict)
    """Arguments of its constructor."""

    def __post_init__(self) -> None:
        ok = self.target == MISSING or TARGET.fullmatch(self.target)
        check(bool(ok), "target", self.target, "a class as package.module:Class")
