"""Writes small random checkpoints of real architectures to measure with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 512
AUDIO_SECONDS = 4
_SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
WORDS = tuple(f"<{i}>" for i in range(VOCABULARY - len(_SPECIAL)))
"""Words of the vocabulary that are one token each."""
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.05,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}


def write_text_model(folder: Path) -> Path:
    """Writes a Qwen2 of 0.4M parameters and returns the folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rlcore.models.hf_model import save_checkpoint

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**_TEXT, tie_word_embeddings=True)).float()
    save_checkpoint(_ending(model), folder, processor=_tokenizer())
    return folder


def write_audio_model(folder: Path) -> Path:
    """Writes a Qwen2-Audio of 1M parameters and returns the folder.

    The model hears `AUDIO_SECONDS` at 16 kHz, as 25 embeddings per second.
    """
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    from rlcore.models.hf_model import save_checkpoint

    extractor = WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, chunk_length=AUDIO_SECONDS, return_attention_mask=True
    )
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "d_model": 128,
            "max_source_positions": 50 * AUDIO_SECONDS,
            "dropout": 0.0,
        },
        text_config={"model_type": "qwen2", **_TEXT, "tie_word_embeddings": False},
        audio_token_index=_SPECIAL.index("<|AUDIO|>"),
        initializer_range=0.05,
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config).float()
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=_tokenizer())
    save_checkpoint(_ending(model), folder, processor=processor)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer by which a prompt has as many tokens as words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(_SPECIAL)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in _SPECIAL])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )


def _ending(model: PreTrainedModel) -> PreTrainedModel:
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    return model
