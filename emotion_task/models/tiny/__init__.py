"""A tiny, randomly initialised checkpoint of a real architecture, for trying everything without a GPU.

Writes a Hugging Face folder (config, safetensors under the hub's names, tokenizer with chat template,
processor, generation config) that transformers and vLLM both load. Its audio input is real: log-mel
frames through the architecture's own encoder. Nothing elsewhere depends on a model being tiny.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emotion_task.models.tiny.parts import ARCHITECTURES as ARCHITECTURES
from emotion_task.models.tiny.parts import AUDIO_TOKENS as AUDIO_TOKENS
from emotion_task.models.tiny.parts import CHAT_TEMPLATE as CHAT_TEMPLATE
from emotion_task.models.tiny.parts import THINK_TOKENS as THINK_TOKENS
from emotion_task.models.tiny.parts import TinyModelConfig as TinyModelConfig
from emotion_task.models.tiny.parts import train_tokenizer as train_tokenizer


def build_tiny_model(folder: str | Path, texts: Iterable[str], config: TinyModelConfig) -> Path:
    """Writes the checkpoint of `config` into `folder`; `texts` train its tokenizer.

    Returns:
        The folder. Deterministic for the same texts and seed.
    """
    from emotion_task.models.tiny import qwen, transcribers
    from rlcore.models.hf_model import save_checkpoint

    folder = Path(folder)
    build = {
        "qwen2_audio": qwen.qwen2_audio,
        "qwen2_5_omni": qwen.qwen2_5_omni,
        "qwen3_omni": qwen.qwen3_omni,
        "audio_flamingo3": transcribers.audio_flamingo3,
        "glm_asr": transcribers.glm_asr,
        "qwen3_asr": transcribers.qwen3_asr,
    }
    model, processor = build[config.architecture](list(texts), config)
    save_checkpoint(model, folder, processor=processor)
    return folder
