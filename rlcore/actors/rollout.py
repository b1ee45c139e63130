"""The rollout actor: prompts in, groups of completions out. A plain class; it is wrapped where it is spawned,
with `rlcore.engines.vllm_engine.engine_env` in its environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from rlcore.config import ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.media import MediaEncoder
from rlcore.engines.vllm_engine import EngineRequest, Sampling, VLLMEngine, sampling_seed
from rlcore.targets import build_target
from rlcore.types import Group, Prompt
from rlcore.weight_sync.base import Push


class RolloutWorker:
    """Task, media encoder and engine in one process."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        task: TargetConfig,
        *,
        seed: int,
        weight_backend: str = "shared_memory",
        rank: int = 0,
    ):
        self._rollout = rollout
        self._seed = seed
        self._media_encoded = 0
        self._encoder = MediaEncoder(
            model.path,
            build_target(task.target, task.args, where="task").load_media,
            media=model.media,
            device="cuda" if torch.cuda.is_available() else "cpu",
            cache_folder=model.media_cache,
        )
        self._engine = VLLMEngine(
            model.path,
            dtype=model.dtype,
            seed=seed,
            media=model.media,
            engine_args=rollout.engine,
            weight_backend=weight_backend,
            trust_remote_code=model.trust_remote_code,
            rank=rank,
        )

    def ready(self) -> int:
        """Answers once the engine stands, with its policy version: 0 after a (re)start, which is stale until
        weights have been pushed."""
        return self._engine.policy_version

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        step: int,
        greedy: bool = False,
        num_samples: int | None = None,
        policy_version: int | None = None,
    ) -> list[Group]:
        """One group a prompt, in order: `samples_per_prompt` samples, or one greedy answer.

        Raises WeightSyncError where the engine does not hold `policy_version`.

        What is sampled is a function of (seed, step, prompt id, sample), whichever replica does it.
        """
        config = self._rollout
        sampling = Sampling(
            n=1 if greedy else num_samples or config.samples_per_prompt,
            max_tokens=config.max_tokens,
            temperature=0.0 if greedy else config.temperature,
            top_p=1.0 if greedy else config.top_p,
        )
        encoded_before = self._encoder.num_encoded
        encoded = self._encoder.encode(prompts)
        self._media_encoded = self._encoder.num_encoded - encoded_before
        requests = [
            EngineRequest(
                id=prompt.id,
                text=prompt.text,
                encoded=inputs,
                seed=None if greedy else sampling_seed(self._seed, step, prompt.id),
            )
            for prompt, inputs in zip(prompts, encoded, strict=True)
        ]
        completions = self._engine.generate(requests, sampling, policy_version=policy_version)
        return [
            Group(
                prompt=prompt,
                prompt_token_ids=inputs.prompt_token_ids,
                completions=samples,
                media_inputs=inputs.media_inputs,
            )
            for prompt, inputs, samples in zip(prompts, encoded, completions, strict=True)
        ]

    def update_weights(self, push: Push) -> int:
        """Takes part in a push of weights; returns the engine's new policy version."""
        return self._engine.apply_weights(push)

    def stats(self) -> dict[str, Any]:
        """Running totals: seconds, tokens, updates, cache hits of encoded prompts. `media_encoded` is the
        audios that went through the tower for the last `generate` alone."""
        return {
            **asdict(self._engine.stats),
            "policy_version": self._engine.policy_version,
            "media_hits": self._encoder.num_hits,
            "media_misses": self._encoder.num_misses,
            "media_encoded": self._media_encoded,
        }
