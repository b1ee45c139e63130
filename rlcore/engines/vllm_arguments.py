"""The arguments that vLLM is built with: the platform's, those of the model's media, and the user's,
checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields

from transformers import PretrainedConfig

from rlcore.config.rollout import num_workers
from rlcore.errors import ConfigError
from rlcore.models.families import family_of

_OWN_ARGUMENTS = {
    "model": "model.path",
    "dtype": "model.dtype",
    "trust_remote_code": None,
    "limit_mm_per_prompt": "model.media",
    "enable_mm_embeds": "model.media",
    "mm_processor_cache_gb": None,
    "weight_transfer_config": "weight_sync.backend",
    "seed": "seed",
    "enable_sleep_mode": "cluster.colocate",
    "logprobs_mode": None,
    "worker_extension_cls": None,
}
"""Engine arguments that rlcore sets itself, and the key that decides them."""

_CPU_ARGUMENTS = {
    "enforce_eager": True,
    "distributed_executor_backend": "uni",  # one process: start-up takes seconds, not a minute
    "block_size": 32,  # the default 128 gives short prompts no prefix caching
    "kv_cache_memory_bytes": 256 << 20,
    # A prompt prefilled in parts has its generator wound back, which CPU generators cannot do (RuntimeError).
    "enable_chunked_prefill": False,
    "gpu_memory_utilization": 0.05,  # of the RAM; the cache has its size already
}


def engine_arguments(
    config: PretrainedConfig,
    media: str,
    engine_args: Mapping[str, object],
    *,
    can_sleep: bool = False,
    head_dtype: str = "auto",
) -> dict[str, object]:
    """Returns arguments of `vllm.LLM` for a model of this configuration, but for those that `VLLMEngine`
    gives.

    Args:
        media: `embeds` or `raw`, as `model.media`.
        engine_args: the user's (`rollout.engine`), which win.
        can_sleep: whether the engine must be able to give its GPU memory back.
        head_dtype: `auto` or `float32`, as `model.head_dtype`.

    Raises:
        ConfigError: one of `engine_args` is unknown or rlcore's own, or vLLM takes no embeddings for the
            model.
    """
    from vllm.platforms import current_platform

    is_cpu = current_platform.is_cpu()
    platform = _CPU_ARGUMENTS if is_cpu else _gpu_arguments(engine_args, can_sleep)
    # Left out, vLLM would also take weights that are pickled (*.bin, *.pt), which the learner never does.
    weights = {"load_format": "safetensors"}
    arguments = {**weights, **platform, **_media_arguments(config, media), **_checked(engine_args)}
    if head_dtype == "float32":
        overrides = engine_args.get("hf_overrides") or {}
        assert isinstance(overrides, Mapping), type(overrides)
        arguments["hf_overrides"] = {**overrides, "head_dtype": "float32"}
    return arguments


def _gpu_arguments(engine_args: Mapping[str, object], can_sleep: bool) -> dict[str, object]:
    # On the CPU vLLM refuses the argument, and its `sleep` does nothing.
    arguments: dict[str, object] = {"enable_sleep_mode": can_sleep}
    if num_workers(engine_args) > 1:
        # In a Ray actor vLLM would choose Ray's, which needs a bundle for each GPU; the actor has them all.
        arguments["distributed_executor_backend"] = "mp"
    return arguments


def _media_arguments(config: PretrainedConfig, media: str) -> dict[str, object]:
    family = family_of(config)
    if not family.media_modules:
        return {}
    # What was made of media is kept by `MediaEncoder`; vLLM's own cache wants prompts in one order.
    arguments: dict[str, object] = {"mm_processor_cache_gb": 0}
    # No limit holds for embeddings; 0 leaves a tower out.
    limits = {"audio": 0, "image": 0, "video": 0}
    if family.audio_tower is None:
        return {**arguments, "limit_mm_per_prompt": limits, "enable_mm_embeds": True}
    if media == "embeds":
        if not family.takes_audio_embeds:
            raise ConfigError(
                f"model.media: vLLM takes no audio embeddings for {config.architectures[0]}; set it to raw"
            )
        return {"limit_mm_per_prompt": limits, "enable_mm_embeds": True}
    # vLLM takes features by the way of embeddings.
    by_features = family.engine_features is not None
    return {**arguments, "limit_mm_per_prompt": {**limits, "audio": 8}, "enable_mm_embeds": by_features}


def _checked(engine_args: Mapping[str, object]) -> dict[str, object]:
    from vllm import EngineArgs

    known = sorted({f.name for f in fields(EngineArgs)} - set(_OWN_ARGUMENTS))
    for name in engine_args:
        if name in _OWN_ARGUMENTS:
            key = _OWN_ARGUMENTS[name]
            hint = f"set {key} instead" if key else "it cannot be changed"
            raise ConfigError(f"rollout.engine.{name}: rlcore sets this argument itself; {hint}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean rollout.engine.{near[0]}?" if near else "vllm.EngineArgs lists them"
            raise ConfigError(f"rollout.engine.{name}: vLLM has no such argument; {hint}")
    return dict(engine_args)
