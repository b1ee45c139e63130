"""Makers of tiny, randomly initialised checkpoints of real architectures, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperFeatureExtractor,
)

from rlcore.engines.hf_model import save_checkpoint

TEXT_PROMPT = "<|im_start|>user\nwhat is the emotion?<|im_end|>\n<|im_start|>assistant\n"
AUDIO_PROMPT = TEXT_PROMPT.replace("what", "<|audio_bos|><|AUDIO|><|audio_eos|>what")

_MEDIA_TOKENS = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
_CORPUS = ["the speaker has a high pitch and fast speech so angry <think> </think> system user assistant"] * 5


def tone(index: int, seconds: float = 1.0) -> np.ndarray:
    """A noisy tone, float32 [seconds * 16000]; another index is another sound."""
    rng = np.random.default_rng(index)
    time = np.arange(int(16000 * seconds)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (120 + 40 * index) * time) + 0.05 * rng.standard_normal(len(time))
    return wave.astype(np.float32)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_MEDIA_TOKENS.values()]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=512, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=_MEDIA_TOKENS,
    )


def _text_config(tokenizer: PreTrainedTokenizerFast, **kwargs: object) -> dict[str, object]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        **kwargs,
    }


def _save(
    model: PreTrainedModel, folder: Path, processor: object, tokenizer: PreTrainedTokenizerFast
) -> Path:
    with torch.no_grad():  # a wider initialisation, so that distributions are far from flat
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed_positions" not in name:
                parameter.mul_(3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_checkpoint(model, folder, processor=processor)
    return folder


def make_qwen2_audio(folder: Path, *, chunk_length: int = 3) -> Path:
    """Qwen2-Audio with `chunk_length` second windows: 128 mel bins, 20 ms hops, 12.5 embeddings a second."""
    tokenizer = tiny_tokenizer()
    extractor = WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, hop_length=320, n_fft=1024, chunk_length=chunk_length
    )
    frames = chunk_length * 50
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "d_model": 64,
            "max_source_positions": frames // 2,
        },
        text_config=Qwen2Config(**_text_config(tokenizer, tie_word_embeddings=False)).to_dict(),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config).float()
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    return _save(model, folder, processor, tokenizer)


def make_text(folder: Path, *, tie_word_embeddings: bool = True) -> Path:
    """Qwen2 for text alone."""
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(**_text_config(tokenizer, tie_word_embeddings=tie_word_embeddings))
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).float()
    return _save(model, folder, tokenizer, tokenizer)


def make_qwen2_5_omni(folder: Path) -> Path:
    """The Qwen2.5-Omni thinker. Needs torchvision (rlcore.engines.torchvision_shim)."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = tiny_tokenizer()
    token_id = tokenizer.convert_tokens_to_ids
    text = _text_config(
        tokenizer,
        model_type="qwen2_5_omni_text",
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [4, 6, 6]},
    )
    thinker = {
        "audio_config": {
            "model_type": "qwen2_5_omni_audio_encoder",
            "num_mel_bins": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "d_model": 64,
            "max_source_positions": 1500,
            "n_window": 100,
            "output_dim": 128,
        },
        "vision_config": {
            "model_type": "qwen2_5_omni_vision_encoder",
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0],
        },
        "text_config": text,
        "audio_token_index": token_id("<|AUDIO|>"),
        "image_token_index": token_id("<|IMAGE|>"),
        "video_token_index": token_id("<|VIDEO|>"),
        "audio_start_token_id": token_id("<|audio_bos|>"),
        "audio_end_token_id": token_id("<|audio_eos|>"),
        "vision_start_token_id": token_id("<|vision_bos|>"),
        "vision_end_token_id": token_id("<|vision_eos|>"),
        "user_token_id": 0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(config.thinker_config).float()
    processor = Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(feature_size=32, sampling_rate=16000, chunk_length=30),
        tokenizer=tokenizer,
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    return _save(model, folder, processor, tokenizer)
