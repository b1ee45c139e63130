"""Finds out how large a model is, from its config.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlcore.config import LoRAConfig, ModelConfig
from rlcore.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """The sizes of a model: dimensions of its decoder, and parameter counts of its parts."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab: int
    layer: int
    """Parameters of one decoder layer, the mean where layers differ."""
    idle: int = 0
    """Parameters of a layer's experts that a token does not pass, counted in `layer`."""
    embedding: int
    """Parameters of the input embedding."""
    head: int
    """Parameters of the output head; 0 where it is the embedding."""
    audio: int = 0
    """Parameters of audio tower and projector."""
    other_media: int = 0
    """Parameters of further towers (vision)."""
    linear: int = 0
    """Parameters of the language model's linear layers and experts, where the checkpoint has them in
    bfloat16; without an embedding that is the head."""

    @property
    def decoder(self) -> int:
        """Parameters of layers and final norm."""
        return self.num_layers * self.layer + self.hidden

    @property
    def active(self) -> int:
        """Parameters of the decoder that a token passes."""
        return self.decoder - self.num_layers * self.idle

    @property
    def language(self) -> int:
        return self.embedding + self.decoder + self.head

    @property
    def media(self) -> int:
        return self.audio + self.other_media

    @property
    def attention(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_values_per_token(self) -> int:
        """Keys and values that a token leaves in the cache."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    def lora(self, lora: LoRAConfig) -> int:
        """Counts the parameters of adapters on the decoder: rank * (in + out) per linear layer
        (arXiv:2106.09685, 4.1).

        Raises:
            ConfigError: the size of a target is not known.
        """
        h, a, kv = self.hidden, self.attention, self.num_kv_heads * self.head_dim
        widths = {
            "q_proj": h + a,
            "k_proj": h + kv,
            "v_proj": h + kv,
            "o_proj": a + h,
            "gate_proj": h + self.intermediate,
            "up_proj": h + self.intermediate,
            "down_proj": self.intermediate + h,
        }
        unknown = [name for name in lora.target_modules if name not in widths]
        if unknown:
            raise ConfigError(
                f"learner.lora.target_modules: got {unknown[0]}; plan knows the sizes of {', '.join(widths)}"
            )
        return self.num_layers * lora.rank * sum(widths[name] for name in lora.target_modules)

    def adapted(self, lora: LoRAConfig) -> int:
        """Counts the parameters of the blocks that adapters change, attentions or feed-forward networks:
        what a push brings (`rlcore.engines.weights.changed_weights`)."""
        attention = 2 * self.hidden * (self.attention + self.num_kv_heads * self.head_dim)
        is_attention = {name in ("q_proj", "k_proj", "v_proj", "o_proj") for name in lora.target_modules}
        sizes = {True: attention, False: self.layer - attention}
        return self.num_layers * sum(sizes[each] for each in is_attention)


QWEN2_5_OMNI_3B = ModelSizes(
    hidden=2048,
    intermediate=11008,
    num_layers=36,
    num_heads=16,
    num_kv_heads=2,
    head_dim=128,
    vocab=151_936,
    layer=77_076_992,
    embedding=311_164_928,
    head=311_164_928,
    audio=637_676_544,
    other_media=668_684_288,
    linear=3_085_697_024,
)
QWEN2_5_OMNI_7B = ModelSizes(
    hidden=3584,
    intermediate=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    vocab=152_064,
    layer=233_057_792,
    embedding=544_997_376,
    head=544_997_376,
    audio=639_647_232,
    other_media=676_550_144,
    linear=7_070_285_824,
)
QWEN3_OMNI_30B_A3B = ModelSizes(
    hidden=2048,
    intermediate=768,
    num_layers=48,
    num_heads=32,
    num_kv_heads=4,
    head_dim=128,
    vocab=152_064,
    layer=623_120_640,
    idle=566_231_040,
    embedding=311_427_072,
    head=311_427_072,
    audio=647_927_168,
    other_media=538_631_408,
    linear=30_208_425_984,
)
KNOWN = {
    "Qwen/Qwen2.5-Omni-3B": QWEN2_5_OMNI_3B,
    "Qwen/Qwen2.5-Omni-7B": QWEN2_5_OMNI_7B,
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": QWEN3_OMNI_30B_A3B,
    "Qwen/Qwen3-Omni-30B-A3B-Thinking": QWEN3_OMNI_30B_A3B,
}
"""Published checkpoints whose thinker's sizes are kept here, so that they can be planned for offline. The
head is counted beside the embedding; the 3B's is taken to be its own, which errs towards more memory."""


def sizes_of(model: ModelConfig) -> ModelSizes:
    """Returns the sizes of the checkpoint at `model.path`.

    This is a known hub id, or a folder or hub id whose config.json is read and whose modules are built
    without memory (torch's meta device).

    Raises:
        DataError: there is no checkpoint.
        ConfigError: the architecture is not supported.
    """
    if model.path in KNOWN:
        return KNOWN[model.path]
    from rlcore.models.hf_model import load_config

    return sizes_of_config(load_config(model.path))


def sizes_of_config(config: PretrainedConfig) -> ModelSizes:
    """Returns the sizes of the model that a transformers configuration describes."""
    import torch

    from rlcore.models.families import family_of, policy_config
    from rlcore.models.hf_model import decoder_of, model_class_of, multiplied_weights
    from rlcore.models.names import is_media_parameter

    family = family_of(config)
    model_class = model_class_of(family)
    own = policy_config(config)
    with torch.device("meta"):
        model = model_class.from_config(own) if model_class.__name__.startswith("Auto") else model_class(own)
    model.tie_weights()
    is_bfloat16 = any(str(c.dtype).endswith("bfloat16") for c in (config, own, own.get_text_config()))
    text, head = own.get_text_config(), model.get_output_embeddings()
    layers = decoder_of(model).get_submodule("layers")
    embedding = model.get_input_embeddings().weight
    media = {n: p.numel() for n, p in model.named_parameters() if is_media_parameter(model, n)}
    heard = tuple(f"{path}." for path in (family.audio_tower, family.projector) if path)
    audio = sum(count for name, count in media.items() if name.startswith(heard))
    num_heads = text.num_attention_heads
    return ModelSizes(
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", 0),
        num_layers=text.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or num_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // num_heads,
        vocab=text.vocab_size,
        layer=sum(p.numel() for p in layers.parameters()) // text.num_hidden_layers,
        idle=_idle(layers, text) // text.num_hidden_layers,
        embedding=embedding.numel(),
        head=0 if head.weight is embedding else head.weight.numel(),
        audio=audio,
        other_media=sum(media.values()) - audio,
        linear=sum(weight.numel() for weight in multiplied_weights(model)) if is_bfloat16 else 0,
    )


def _idle(layers: nn.ModuleList, text: PretrainedConfig) -> int:
    """Parameters of experts, [E, ...] a tensor, that a token does not pass."""
    experts = [p for name, p in layers.named_parameters() if ".experts." in name and p.ndim == 3]
    return sum(p.numel() // len(p) * (len(p) - text.num_experts_per_tok) for p in experts)
