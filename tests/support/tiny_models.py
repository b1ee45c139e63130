"""Makes tiny, randomly initialised checkpoints of real architectures, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

from emotion_task.models.tiny import (
    AUDIO_TOKENS,
    CHAT_TEMPLATE,
    TinyModelConfig,
    build_tiny_model,
    train_tokenizer,
)
from emotion_task.models.tiny.parts import OMNI_TOKENS
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint

TEXT_PROMPT = "<|im_start|>user\nwhat is the emotion?<|im_end|>\n<|im_start|>assistant\n"
AUDIO_PROMPT = TEXT_PROMPT.replace("what", "<|audio_bos|><|AUDIO|><|audio_eos|>what")

_CORPUS = ["the speaker has a high pitch and fast speech so angry <think> </think> system user assistant"] * 5


def tone(index: int, seconds: float = 1.0) -> np.ndarray:
    """Returns a noisy tone at 16 kHz, float32 [seconds * 16000]; another index is another sound."""
    rng = np.random.default_rng(index)
    time = np.arange(int(16000 * seconds)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (120 + 40 * index) * time) + 0.05 * rng.standard_normal(len(time))
    return wave.astype(np.float32)


def make_qwen2_audio(folder: Path, *, chunk_length: int = 3) -> Path:
    """Writes a Qwen2-Audio with windows of `chunk_length` seconds: 128 mel bins, 20 ms hops, 12.5 embeddings
    per second."""
    return build_tiny_model(folder, _CORPUS, TinyModelConfig(window_seconds=chunk_length))


def make_qwen2_5_omni(folder: Path) -> Path:
    """Writes a Qwen2.5-Omni thinker, which needs torchvision (rlcore.engines.torchvision_shim)."""
    return build_tiny_model(folder, _CORPUS, TinyModelConfig(architecture="qwen2_5_omni"))


def make_qwen3_omni(folder: Path) -> Path:
    """Writes a Qwen3-Omni thinker, a mixture of experts, which needs torchvision
    (rlcore.engines.torchvision_shim)."""
    return build_tiny_model(folder, _CORPUS, TinyModelConfig(architecture="qwen3_omni"))


def make_qwen2_5_vl(folder: Path) -> Path:
    """Writes a Qwen2.5-VL of two heads, which needs torchvision (rlcore.engines.torchvision_shim)."""
    tokenizer = train_tokenizer(_CORPUS, 400, list(OMNI_TOKENS.values()), extra_special_tokens=OMNI_TOKENS)
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        video_processor=transformers.Qwen2VLVideoProcessor(),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    token_id = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    ).to_dict()
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "model_type": "qwen2_5_vl_text", "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token_id("<|IMAGE|>"),
        video_token_id=token_id("<|VIDEO|>"),
        vision_start_token_id=token_id("<|vision_bos|>"),
        vision_end_token_id=token_id("<|vision_eos|>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_checkpoint(model, folder, processor=processor)
    return folder


def make_causal_lm(folder: Path, architecture: str, **settings: Any) -> Path:
    """Writes a text model of another architecture, such as `Granite` or `Qwen3Moe`."""
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        **settings,
    )
    torch.manual_seed(0)
    getattr(transformers, f"{architecture}ForCausalLM")(config).float().save_pretrained(folder)
    train_tokenizer(_CORPUS, 320, list(AUDIO_TOKENS.values())).save_pretrained(folder)
    return folder


def make_text(folder: Path, *, tie_word_embeddings: bool = True) -> Path:
    """Writes a Qwen2 for text alone."""
    tokenizer = train_tokenizer(_CORPUS, 512, list(AUDIO_TOKENS.values()))
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tie_word_embeddings,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).float()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_checkpoint(model, folder, processor=tokenizer)
    return folder


def make_family(folder: Path, architecture: str, *, window: int = 3) -> Path:
    """Writes one of `emotion_task.models.tiny.ARCHITECTURES`, with windows of so many seconds. Where vLLM
    runs the tower itself, windows have 30 seconds, in hops of 10 ms."""
    hops = {"hop_length": 160, "n_fft": 400} if window == 30 else {}
    config = TinyModelConfig(architecture=architecture, window_seconds=window, **hops)
    return build_tiny_model(folder, _CORPUS, config)


def audio_prompt(path: Path | str, question: str = "what is the emotion?") -> str:
    """Returns a question about one recording, as a checkpoint's own chat template writes it."""
    content = [{"type": "audio"}, {"type": "text", "text": question}]
    text: str = load_processor(str(path)).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text


def teach(folder: Path, prompt: str, answers: dict[int, str], steps: int = 60) -> Path:
    """Teaches a checkpoint to give an answer to each tone (`tone`), so that engines have something to say."""
    processor, model = load_processor(str(folder)), load_model(str(folder)).train()
    rows = []
    for index, answer in answers.items():
        audio = {"audio": [tone(index)], "sampling_rate": 16000}
        inputs = processor(text=prompt + answer + processor.tokenizer.eos_token, return_tensors="pt", **audio)
        num_prompt = processor(text=prompt, return_tensors="pt", **audio)["input_ids"].shape[1]
        labels = inputs["input_ids"].clone()
        labels[:, :num_prompt] = -100
        rows.append({**inputs, "labels": labels})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        sum(model(**row).loss for row in rows).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_checkpoint(model.eval(), folder, processor=processor)
    return folder
