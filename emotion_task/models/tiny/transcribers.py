"""Tiny Audio Flamingo 3, GLM-ASR and Qwen3-ASR: models that know their recordings by marks of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emotion_task.models.tiny.parts import (
    CHAT_TEMPLATE,
    TinyModelConfig,
    feature_extractor,
    text_config,
    train_tokenizer,
    with_generation_tokens,
)
from emotion_task.models.tiny.qwen import sinusoids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

_AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"
"""How `CHAT_TEMPLATE` writes a recording."""


def _tokenizer(
    texts: list[str], config: TinyModelConfig, audio: tuple[str, ...], **named: object
) -> tuple[PreTrainedTokenizerFast, str]:
    """Returns a tokenizer with the special tokens `audio`, and the chat template that writes them."""
    tokenizer = train_tokenizer(texts, config.vocab_size, list(audio), **named)
    template = CHAT_TEMPLATE.replace(_AUDIO, "".join(audio))
    tokenizer.chat_template = template
    return tokenizer, template


def _window_seconds(config: TinyModelConfig) -> int:
    """Rounds the window up to a whole number of embeddings, as real windows are: in two others the processors
    would count another number than the towers give."""
    seconds = config.window_seconds
    while (seconds * 16000 // config.hop_length) % 8:
        seconds += 1
    return seconds


def audio_flamingo3(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns an Audio Flamingo 3."""
    import torch
    from transformers import (
        AudioFlamingo3Config,
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Processor,
    )

    tokenizer, template = _tokenizer(texts, config, ("<sound>",))
    seconds = _window_seconds(config)
    processor = AudioFlamingo3Processor(
        feature_extractor(config, chunk_length=seconds), tokenizer, chat_template=template
    )
    model_config = AudioFlamingo3Config(
        audio_config={
            "num_mel_bins": config.num_mel_bins,
            "num_hidden_layers": config.encoder_layers,
            "num_attention_heads": config.num_heads,
            "intermediate_size": config.intermediate_size,
            "hidden_size": config.hidden_size,
            "max_source_positions": seconds * 16000 // config.hop_length // 2,
            "initializer_range": 0.05,
        },
        text_config={"model_type": "qwen2", **text_config(config, tokenizer)},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    torch.manual_seed(config.seed)
    model = AudioFlamingo3ForConditionalGeneration(model_config).float()
    with torch.no_grad():
        positions = model.model.audio_tower.embed_positions.weight
        positions.copy_(sinusoids(*positions.shape))
    return with_generation_tokens(model, tokenizer), processor


def glm_asr(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns a GLM-ASR."""
    import torch
    from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrProcessor

    tokenizer, template = _tokenizer(texts, config, ("<|begin_of_audio|>", "<|pad|>", "<|end_of_audio|>"))
    processor = GlmAsrProcessor(
        feature_extractor(config, chunk_length=_window_seconds(config)), tokenizer, chat_template=template
    )
    model_config = GlmAsrConfig(
        audio_config={
            "num_mel_bins": config.num_mel_bins,
            "num_hidden_layers": config.encoder_layers,
            "num_attention_heads": config.num_heads,
            "intermediate_size": 4 * config.hidden_size,  # of four frames that become one
            "hidden_size": config.hidden_size,
            "initializer_range": 0.05,
        },
        text_config={"model_type": "llama", **text_config(config, tokenizer)},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
        tie_word_embeddings=config.tie_word_embeddings,
    )
    torch.manual_seed(config.seed)
    return with_generation_tokens(GlmAsrForConditionalGeneration(model_config).float(), tokenizer), processor


def qwen3_asr(texts: list[str], config: TinyModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Returns a Qwen3-ASR, whose head is tied: vLLM knows no name for another."""
    import torch
    from transformers import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    names = ("audio_bos_token", "audio_token", "audio_eos_token")
    audio = ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
    named = dict(zip(names, audio, strict=True))
    tokenizer, template = _tokenizer(texts, config, audio, extra_special_tokens=named)
    extractor = Qwen3ASRFeatureExtractor(feature_size=config.num_mel_bins)
    processor = Qwen3ASRProcessor(extractor, tokenizer, chat_template=template)
    size = config.hidden_size
    model_config = Qwen3ASRConfig(
        audio_config={
            "num_mel_bins": config.num_mel_bins,
            "encoder_layers": config.encoder_layers,
            "encoder_attention_heads": config.num_heads,
            "encoder_ffn_dim": config.intermediate_size,
            "d_model": size,
            "output_dim": size,
            "downsample_hidden_size": 32,
            "initializer_range": 0.05,
        },
        text_config={
            "model_type": "qwen3",
            **text_config(config, tokenizer),
            "head_dim": size // config.num_heads,
            "tie_word_embeddings": True,
        },
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    torch.manual_seed(config.seed)
    model = Qwen3ASRForConditionalGeneration(model_config).float()
    return with_generation_tokens(model, tokenizer), processor
