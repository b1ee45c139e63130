"""Qwen2.5-VL (arXiv:2502.13923): a vision tower and Qwen2, for images and videos without sound."""

from __future__ import annotations

from rlcore.models.families.base import Family
from rlcore.models.families.qwen_vision import qwen_vision

QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    model_class="Qwen2_5_VLForConditionalGeneration",
    decoder="model.language_model",
    renames=((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
    language_prefixes=("model.", "lm_head."),
    vision=qwen_vision("model.visual", seconds="vision_config.tokens_per_second"),
)
