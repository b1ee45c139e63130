"""Made-up models of real shapes, and batches for them. Nothing is read from disk but a config.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from rlcore.algorithms.aggregation import BatchTotals
from rlcore.config import AlgorithmConfig
from rlcore.engines import scorer
from rlcore.engines.shares import PolicyObjective
from rlcore.models.families import family_of, policy_config
from rlcore.models.hf_model import audio_token_id, load_config
from rlcore.types import TrainGroup

FRAMES_PER_EMBEDDING = 4
"""Mel frames, 10 ms each, that Qwen2.5-Omni's tower makes one embedding of."""


def text_config(*, tiny: bool) -> PretrainedConfig:
    """Returns the configuration of a Qwen2 of 0.5B."""
    config = transformers.Qwen2Config(
        vocab_size=512 if tiny else 151_936,
        hidden_size=64 if tiny else 896,
        intermediate_size=128 if tiny else 4864,
        num_hidden_layers=2 if tiny else 24,
        num_attention_heads=2 if tiny else 14,
        num_key_value_heads=1 if tiny else 2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )
    return config


def omni_config(*, tiny: bool) -> PretrainedConfig:
    """Returns the configuration of a Qwen2.5-Omni whose language model and tower are the 7B's; its vision
    tower is small, as no prompt has pictures."""
    hidden = 128 if tiny else 3584
    text: dict[str, Any] = {"hidden_size": hidden, "tie_word_embeddings": False}
    audio: dict[str, Any] = {"output_dim": hidden}
    tokens = {"vision_start_token_id": 151_652, "vision_end_token_id": 151_653}
    if tiny:
        text |= {
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 512,
        }
        text |= {"num_key_value_heads": 2, "layer_types": ["full_attention"] * 2}
        text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}}
        audio |= {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}
        tokens = {"audio_token_id": 511, "image_token_id": 510, "video_token_id": 509}
        tokens |= {"vision_start_token_id": 508, "vision_end_token_id": 507}
    thinker = transformers.Qwen2_5OmniThinkerConfig(
        text_config=text,
        audio_config=audio,
        vision_config={"hidden_size": 64, "num_heads": 2, "out_hidden_size": hidden, "depth": 1},
        tie_word_embeddings=False,
        **tokens,
    )
    config = transformers.Qwen2_5OmniConfig(thinker_config=thinker.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen2_5OmniModel"]
    for part in (config, config.thinker_config, config.thinker_config.text_config):
        part.dtype = "bfloat16"
    return config


def build(config: PretrainedConfig, device: str) -> PreTrainedModel:
    """Makes a model on its device, in float32 with weights that bfloat16 holds, as those of a checkpoint."""
    model_class = getattr(transformers, family_of(config).model_class)
    own = policy_config(config)
    torch.manual_seed(0)
    with torch.device(device):
        is_auto = model_class.__name__.startswith("Auto")
        model = model_class.from_config(own, dtype=torch.float32) if is_auto else model_class(own)
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16().float()
    return model.eval()


@contextmanager
def made_up(config: PretrainedConfig, folder: Path, device: str) -> Iterator[str]:
    """Yields a model path from which a learner gets `build(config)` for the length of the block: gigabytes
    are neither written nor read."""
    config.save_pretrained(folder)
    loader = scorer.load_model
    scorer.load_model = lambda path, **_: build(load_config(path), device)
    try:
        yield str(folder)
    finally:
        scorer.load_model = loader


def make_groups(
    config: PretrainedConfig,
    *,
    num_groups: int,
    prompt: int,
    samples: int,
    completion: int,
    audio_tokens: int = 0,
) -> list[TrainGroup]:
    """Makes prompts of `prompt` text tokens and `audio_tokens` placeholders, with `samples` completions
    each."""
    rng = np.random.default_rng(0)
    text, placeholder = policy_config(config).get_text_config(), audio_token_id(config)
    largest = min(text.vocab_size, placeholder or text.vocab_size, 150_000) - 16

    def tokens(count: int) -> np.ndarray:
        return rng.integers(10, largest, size=count)

    def media() -> dict[str, np.ndarray]:
        if not audio_tokens:
            return {}
        frames = audio_tokens * FRAMES_PER_EMBEDDING
        features = rng.normal(size=(1, 128, frames)).astype(np.float32)
        return {"input_features": features, "feature_attention_mask": np.ones((1, frames), dtype=np.int64)}

    def logprobs() -> tuple[np.ndarray, ...]:
        return tuple(np.full(completion, -2.0, dtype=np.float32) for _ in range(samples))

    heard = np.full(audio_tokens, placeholder or 0)
    return [
        TrainGroup(
            prompt_id=str(index),
            prompt_token_ids=np.concatenate([tokens(2), heard, tokens(prompt - 2)]),
            token_ids=tuple(tokens(completion) for _ in range(samples)),
            rollout_logprobs=logprobs(),
            reference_logprobs=logprobs(),
            advantages=rng.normal(size=samples).astype(np.float32),
            media_inputs=media(),
        )
        for index in range(num_groups)
    ]


def objective_of(groups: Sequence[TrainGroup]) -> PolicyObjective:
    """Returns the loss of these groups as one global batch."""
    lengths = [len(tokens) for group in groups for tokens in group.token_ids]
    totals = BatchTotals(num_tokens=sum(lengths), num_sequences=len(lengths), max_tokens=max(lengths))
    return PolicyObjective(totals=totals, algorithm=AlgorithmConfig(), recompute_logprobs=False)


def free_port() -> str:
    """Returns a port for a process group."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
