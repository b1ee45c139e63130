"""A tiny, randomly initialised checkpoint of a real architecture, for trying everything without a GPU.

Writes a Hugging Face folder (config, safetensors under the hub's names, tokenizer with chat template,
processor, generation config) that transformers and vLLM both load. Its audio input is real: log-mel
frames through the architecture's own encoder. Nothing elsewhere depends on a model being tiny.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerFast,
        ProcessorMixin,
        WhisperFeatureExtractor,
    )

Settings = dict[str, object]
"""Keyword arguments of a transformers configuration."""

ARCHITECTURES = ("qwen2_audio", "qwen2_5_omni", "qwen3_omni")

THINK_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
"""Tags that are ordinary (not special) tokens of their own, so that decoding keeps them."""

AUDIO_TOKENS = {
    "audio_bos_token": "<|audio_bos|>",
    "audio_token": "<|AUDIO|>",
    "audio_eos_token": "<|audio_eos|>",
}
OMNI_TOKENS = {
    **AUDIO_TOKENS,
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class TinyModelConfig:
    """Sizes of the tiny checkpoint. The defaults train to a useful model in minutes on two cores."""

    architecture: str = "qwen2_audio"
    hidden_size: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 384
    vocab_size: int = 800
    """Upper bound of the tokens; the byte alphabet and the merges that the texts support may need fewer."""
    num_mel_bins: int = 128
    hop_length: int = 320
    """Hop in samples: 20 ms at 16 kHz. The wide `n_fft` resolves single harmonics, which carry pitch."""
    n_fft: int = 1024
    window_seconds: int = 3
    """Audio is padded to this window (Qwen2-Audio); vLLM then takes embeddings instead of waveforms."""
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"tiny.architecture: got {self.architecture!r}, allowed are {', '.join(ARCHITECTURES)}"
            )
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"tiny.hidden_size: {self.hidden_size} is not a multiple of tiny.num_heads ({self.num_heads})"
            )
        if self.hidden_size // self.num_heads < 32:
            raise ConfigError(
                f"tiny.hidden_size: {self.hidden_size} over tiny.num_heads ({self.num_heads}) gives heads of "
                f"{self.hidden_size // self.num_heads}; vLLM's attention on a CPU takes 32 and more"
            )


def build_tiny_model(folder: str | Path, texts: Iterable[str], config: TinyModelConfig) -> Path:
    """Writes the checkpoint of `config` into `folder`; `texts` train its tokenizer.

    Returns:
        The folder. Deterministic for the same texts and seed.
    """
    from rlcore.models.hf_model import save_checkpoint

    folder = Path(folder)
    build = {"qwen2_audio": _qwen2_audio, "qwen2_5_omni": _qwen2_5_omni, "qwen3_omni": _qwen3_omni}
    model, processor = build[config.architecture](list(texts), config)
    save_checkpoint(model, folder, processor=processor)
    return folder


def train_tokenizer(
    texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str], **named: object
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer in which `<think>` and its kin are single ordinary tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(THINK_TOKENS),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in THINK_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        **named,
    )


def _feature_extractor(config: TinyModelConfig, **override: int) -> WhisperFeatureExtractor:
    from transformers import WhisperFeatureExtractor

    sizes = {"hop_length": config.hop_length, "n_fft": config.n_fft, "chunk_length": config.window_seconds}
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins,
        sampling_rate=16000,
        return_attention_mask=True,
        **(sizes | override),
    )


def _text_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Settings:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.decoder_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        # Ten times smaller hidden sizes than the hub's models want a wider initialisation.
        "initializer_range": 0.05,
    }


def _qwen2_audio(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    import torch
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = train_tokenizer(texts, config.vocab_size, list(AUDIO_TOKENS.values()))
    tokenizer.add_special_tokens({"additional_special_tokens": list(AUDIO_TOKENS.values())})
    processor = Qwen2AudioProcessor(
        feature_extractor=_feature_extractor(config), tokenizer=tokenizer, chat_template=CHAT_TEMPLATE
    )
    num_frames = config.window_seconds * 16000 // config.hop_length
    model_config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": config.num_mel_bins,
            "encoder_layers": config.encoder_layers,
            "encoder_attention_heads": config.num_heads,
            "encoder_ffn_dim": config.intermediate_size,
            "d_model": config.hidden_size,
            "max_source_positions": num_frames // 2,
            "dropout": 0.0,
        },
        text_config={"model_type": "qwen2", **_text_config(config, tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        initializer_range=0.05,
    )
    torch.manual_seed(config.seed)
    model = Qwen2AudioForConditionalGeneration(model_config).float()
    with torch.no_grad():
        # The architecture keeps these positions frozen; its checkpoints hold Whisper's sinusoids, not noise.
        positions = model.model.audio_tower.embed_positions.weight
        positions.copy_(_sinusoids(*positions.shape))
    return _with_generation_tokens(model, tokenizer), processor


def _sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, float32 [length, channels]: sines, then cosines, of rising wavelength."""
    import torch

    steps = torch.arange(channels // 2) / (channels // 2 - 1)
    angles = torch.arange(length)[:, None] * 10000.0 ** -steps[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _qwen2_5_omni(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns the thinker of Qwen2.5-Omni (text out)."""
    import transformers as hf

    classes = hf.Qwen2_5OmniConfig, hf.Qwen2_5OmniProcessor, hf.Qwen2_5OmniThinkerForConditionalGeneration
    parts: dict[str, Settings]
    parts = {"audio": {"n_window": 100}, "vision": {"fullatt_block_indexes": [0]}, "text": {}, "rope": {}}
    return _omni(texts, config, classes, "qwen2_5_omni", parts, token="token_index", patch=14)


def _qwen3_omni(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns the thinker of Qwen3-Omni, a mixture of four experts of which two answer for a token."""
    import transformers as hf

    classes = hf.Qwen3OmniMoeConfig, hf.Qwen3OmniMoeProcessor, hf.Qwen3OmniMoeThinkerForConditionalGeneration
    parts: dict[str, Settings] = {
        "audio": {"n_window": 50, "downsample_hidden_size": 32},
        "vision": {
            "deepstack_visual_indexes": [],
            "num_position_embeddings": 64,
            "image_size": 128,
            "apply_vit_abs_pos_embed": True,
        },
        "text": {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": config.intermediate_size // 2,
        },
        "rope": {"interleaved": True, "mrope_interleaved": True},
    }
    return _omni(texts, config, classes, "qwen3_omni_moe", parts, token="token_id", patch=16)


def _omni(
    texts: list[str],
    config: TinyModelConfig,
    classes: tuple[type[PretrainedConfig], type[ProcessorMixin], type[PreTrainedModel]],
    name: str,
    parts: dict[str, Settings],
    *,
    token: str,
    patch: int,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns an Omni thinker, whose encoder needs no fixed window, of (config, processor, model) `classes`;
    `parts` are its own settings beside those that all have."""
    import torch

    config_class, processor_class, model_class = classes
    processor = _omni_processor(texts, config, processor_class, patch)
    tokenizer, size = processor.tokenizer, config.hidden_size
    token_id, half_head = tokenizer.convert_tokens_to_ids, size // config.num_heads // 2
    audio = {
        "num_mel_bins": config.num_mel_bins,
        "encoder_layers": config.encoder_layers,
        "encoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.intermediate_size,
        "d_model": size,
        "max_source_positions": 1500,
        "output_dim": size,
    }
    # No prompt enters the vision encoder: as small as may be.
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": size}
    # Time, height and width share the rotary half-dimensions; audio moves all three alike.
    sections = [half_head // 4, half_head * 3 // 8, half_head * 3 // 8]
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections, **parts["rope"]}
    text = {"rope_parameters": rope, **_text_config(config, tokenizer)}
    thinker = {
        "audio_config": {"model_type": f"{name}_audio_encoder", **audio, **parts["audio"]},
        "vision_config": {"model_type": f"{name}_vision_encoder", **vision, **parts["vision"]},
        "text_config": {"model_type": f"{name}_text", **text, **parts["text"]},
        **{f"{kind}_{token}": token_id(f"<|{kind.upper()}|>") for kind in ("audio", "image", "video")},
        "audio_start_token_id": token_id("<|audio_bos|>"),
        "audio_end_token_id": token_id("<|audio_eos|>"),
        "vision_start_token_id": token_id("<|vision_bos|>"),
        "vision_end_token_id": token_id("<|vision_eos|>"),
        "user_token_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.05,
    }
    model_config = config_class(thinker_config=thinker, enable_audio_output=False)
    torch.manual_seed(config.seed)
    model = model_class(model_config.thinker_config).float()
    return _with_generation_tokens(model, tokenizer), processor


def _omni_processor(
    texts: list[str], config: TinyModelConfig, processor_class: type[ProcessorMixin], patch: int
) -> ProcessorMixin:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return processor_class(
        image_processor=Qwen2VLImageProcessor(patch_size=patch),
        video_processor=Qwen2VLVideoProcessor(patch_size=patch),
        feature_extractor=_feature_extractor(config, hop_length=160, n_fft=400, chunk_length=300),
        tokenizer=train_tokenizer(
            texts, config.vocab_size, list(OMNI_TOKENS.values()), extra_special_tokens=OMNI_TOKENS
        ),
        chat_template=CHAT_TEMPLATE,
    )


def _with_generation_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
