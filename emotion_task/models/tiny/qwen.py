"""Tiny Qwen2-Audio, and the thinkers of Qwen2.5-Omni and Qwen3-Omni."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emotion_task.models.tiny.parts import (
    AUDIO_TOKENS,
    CHAT_TEMPLATE,
    OMNI_TOKENS,
    Settings,
    TinyModelConfig,
    feature_extractor,
    text_config,
    train_tokenizer,
    with_generation_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin


def qwen2_audio(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns a Qwen2-Audio."""
    import torch
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = train_tokenizer(texts, config.vocab_size, list(AUDIO_TOKENS.values()))
    tokenizer.add_special_tokens({"additional_special_tokens": list(AUDIO_TOKENS.values())})
    processor = Qwen2AudioProcessor(
        feature_extractor=feature_extractor(config), tokenizer=tokenizer, chat_template=CHAT_TEMPLATE
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
        text_config={"model_type": "qwen2", **text_config(config, tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        initializer_range=0.05,
    )
    torch.manual_seed(config.seed)
    model = Qwen2AudioForConditionalGeneration(model_config).float()
    with torch.no_grad():
        # The architecture keeps these positions frozen; its checkpoints hold Whisper's sinusoids, not noise.
        positions = model.model.audio_tower.embed_positions.weight
        positions.copy_(sinusoids(*positions.shape))
    return with_generation_tokens(model, tokenizer), processor


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, float32 [length, channels]: sines, then cosines, of rising wavelength."""
    import torch

    steps = torch.arange(channels // 2) / (channels // 2 - 1)
    angles = torch.arange(length)[:, None] * 10000.0 ** -steps[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def qwen2_5_omni(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns the thinker of Qwen2.5-Omni (text out)."""
    import transformers as hf

    classes = hf.Qwen2_5OmniConfig, hf.Qwen2_5OmniProcessor, hf.Qwen2_5OmniThinkerForConditionalGeneration
    parts: dict[str, Settings]
    parts = {"audio": {"n_window": 100}, "vision": {"fullatt_block_indexes": [0]}, "text": {}, "rope": {}}
    return _omni(texts, config, classes, "qwen2_5_omni", parts, token="token_index", patch=14)


def qwen3_omni(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
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
    # Few prompts enter the vision encoder: as small as may be.
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": size}
    # Time, height and width share the rotary half-dimensions; audio moves all three alike.
    sections = [half_head // 4, half_head * 3 // 8, half_head * 3 // 8]
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections, **parts["rope"]}
    text = {"rope_parameters": rope, **text_config(config, tokenizer)}
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
    return with_generation_tokens(model, tokenizer), processor


def _omni_processor(
    texts: list[str], config: TinyModelConfig, processor_class: type[ProcessorMixin], patch: int
) -> ProcessorMixin:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return processor_class(
        image_processor=Qwen2VLImageProcessor(patch_size=patch),
        video_processor=Qwen2VLVideoProcessor(patch_size=patch),
        feature_extractor=feature_extractor(config, hop_length=160, n_fft=400, chunk_length=300),
        tokenizer=train_tokenizer(
            texts, config.vocab_size, list(OMNI_TOKENS.values()), extra_special_tokens=OMNI_TOKENS
        ),
        chat_template=CHAT_TEMPLATE,
    )
