"""Text models: whatever transformers loads as a causal language model."""

from __future__ import annotations

from rlcore.models.families.base import Family

CAUSAL_LM = Family(
    name="text (any *ForCausalLM)", architectures=(), model_class="AutoModelForCausalLM", decoder="model"
)
