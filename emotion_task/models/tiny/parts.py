"""The parts of tiny checkpoints: their sizes, tokenizer, feature extractor and text decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlcore.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, WhisperFeatureExtractor

Settings = dict[str, object]
"""Keyword arguments of a transformers configuration."""

ARCHITECTURES = ("qwen2_audio", "qwen2_5_omni", "qwen3_omni", "audio_flamingo3", "glm_asr", "qwen3_asr")

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
    "{% elif part['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class TinyModelConfig:
    """Sizes of the tiny checkpoint. The defaults train to a useful model in minutes on two cores."""

    architecture: str = "qwen2_audio"
    """Name in `emotion_task.models.tiny.ARCHITECTURES`."""
    hidden_size: int = 128
    """Width of encoder and decoder."""
    encoder_layers: int = 2
    """Layers of the audio encoder."""
    decoder_layers: int = 2
    """Layers of the language model."""
    num_heads: int = 4
    """Attention heads of a layer."""
    intermediate_size: int = 384
    """Width of the feed-forward layers."""
    vocab_size: int = 800
    """Upper bound of the tokens; the byte alphabet and the merges that the texts support may need fewer."""
    num_mel_bins: int = 128
    """Mel bands that the encoder hears."""
    hop_length: int = 320
    """Hop in samples: 20 ms at 16 kHz. The wide `n_fft` resolves single harmonics, which carry pitch."""
    n_fft: int = 1024
    """Samples of a frame's Fourier transform."""
    window_seconds: int = 3
    """Audio is padded to this window (Qwen2-Audio); vLLM then takes embeddings instead of waveforms."""
    max_position_embeddings: int = 1024
    """Tokens of the longest sequence."""
    tie_word_embeddings: bool = False
    """The output layer shares the weights of the input embeddings."""
    seed: int = 0
    """Seed of the weights."""

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


def feature_extractor(config: TinyModelConfig, **override: int) -> WhisperFeatureExtractor:
    from transformers import WhisperFeatureExtractor

    sizes = {"hop_length": config.hop_length, "n_fft": config.n_fft, "chunk_length": config.window_seconds}
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins,
        sampling_rate=16000,
        return_attention_mask=True,
        **(sizes | override),
    )


def text_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Settings:
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


def with_generation_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
