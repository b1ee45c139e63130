"""The rollout engine: vLLM in this process, with sampled logprobs kept and weights that can be replaced.

The engine knows tokens and media, not tasks or rewards. `engine_env` must be in the environment before Python
starts (Ray: `runtime_env`), because vLLM and torch read their variables when they are imported.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlcore.config.weight_media import medium_of
from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.engines.shared_gpu import build_in_turn
from rlcore.engines.vllm_arguments import engine_arguments
from rlcore.engines.vllm_records import (
    check_expansion,
    completion_of,
    rendered,
    sampling_params,
    vllm_prompt,
)
from rlcore.errors import ConfigError, MissingDependencyError, MixedWeightsError, WeightSyncError
from rlcore.models.engine_environment import engine_env as engine_env
from rlcore.models.families import family_of
from rlcore.models.hf_model import (
    audio_token_id,
    load_config,
    load_processor,
    media_token_ids,
    tokenizer_of,
)
from rlcore.models.host_memory import give_back
from rlcore.models.tokens import markup_ids
from rlcore.types import Completion
from rlcore.weight_sync import make_receiver
from rlcore.weight_sync.base import Push

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.inputs import EngineInput

logger = logging.getLogger(__name__)

_MIXED_PAUSE_S = 0.01
"""Pause between two looks of an engine that waits for whole weights."""


@dataclass
class EngineStats:
    """Running totals of one engine."""

    start_seconds: float = 0.0
    """Seconds from the constructor's call until the engine stood."""
    generate_seconds: float = 0.0
    """Seconds in steps."""
    prompt_tokens: int = 0
    """Tokens of submitted prompts."""
    completion_tokens: int = 0
    """Tokens of finished completions."""
    update_seconds: float = 0.0
    """Seconds in pushes that succeeded."""
    updates: int = 0
    """Pushes that succeeded."""


class VLLMEngine:
    """A vLLM instance with one policy. A process holds one at most: vLLM's process groups are the whole
    process's, and end with the first engine that Python collects.

    Args:
        model_path: checkpoint folder or hub id.
        dtype: number format of weights and activations.
        head_dtype: `auto`, or `float32` for logits that are not rounded to `dtype`, as `model.head_dtype`.
        media: `embeds` (no tower in the engine) or `raw`.
        engine_args: further `vllm.EngineArgs`, as `rollout.engine`.
        weight_backend: medium of weight updates, as `weight_sync.backend`.
        rank: which of the rollout engines this is, for weight updates and errors.
        policy_version: version of the weights in the folder.
        can_sleep: reserve GPU memory so that `sleep` can give it back.
        temperature: the policy's. The model's logits are divided by this, for whatever is sampled or scored.

    Raises:
        ConfigError: an engine argument that does not exist or that rlcore sets itself, or vLLM's build is for
            GPUs and none is seen.
        MissingDependencyError: vLLM is not installed.
    """

    def __init__(
        self,
        model_path: str,
        *,
        dtype: str = "float32",
        head_dtype: str = "auto",
        seed: int = 0,
        media: str = "embeds",
        engine_args: Mapping[str, object] | None = None,
        weight_backend: str = "shared_memory",
        rank: int = 0,
        policy_version: int = 0,
        can_sleep: bool = False,
        temperature: float = 1.0,
    ):
        start = time.perf_counter()
        try:
            from vllm import LLM
            from vllm.config import WeightTransferConfig
            from vllm.platforms import current_platform
        except ImportError as error:
            raise MissingDependencyError(
                f"vLLM does not import ({error}); install rlcore with the extra `cpu` or `gpu`"
            ) from error
        if current_platform.is_unspecified():
            raise ConfigError(
                "vLLM finds no device to run on: the installed build is for GPUs, and none is seen here. "
                "`rlcore doctor` says why; on CPUs install the extra `cpu` instead (make env)"
            )
        self._weights = make_receiver(weight_backend, rank=rank, model_path=model_path)
        config = load_config(model_path)
        arguments = {
            "model": model_path,
            "dtype": dtype,
            "seed": seed % 2**32,
            "weight_transfer_config": WeightTransferConfig(backend=medium_of(weight_backend).vllm_backend),
            "worker_extension_cls": "rlcore.engines.vllm_plugin.WorkerExtension",
            **engine_arguments(config, media, engine_args or {}, can_sleep=can_sleep, head_dtype=head_dtype),
        }
        self._llm = build_in_turn(LLM, arguments)
        if temperature != 1:
            self._llm.collective_rpc("divide_logits", args=(temperature,))
        if family_of(config).vision is not None:
            self._llm.collective_rpc("keep_pictures_apart")
        self._weights.attach(self._llm)
        tokenizer = tokenizer_of(load_processor(model_path))
        self._banned = tuple(media_token_ids(config, tokenizer))
        self._tokenizer = tokenizer
        self._embeds = media == "embeds"
        self._rendering = threading.Lock()
        self._family, self._audio_id = family_of(config), audio_token_id(config)
        # Asleep, an engine may forget what the next push brings; a tower in the engine is not pushed.
        # The check of a first push sleeps at this level: all is seen to come back, before any training.
        self._sleep_level = 2 if self._embeds or self._audio_id is None else 1
        self._is_asleep = False
        self._backend, self._rank = weight_backend, rank
        self._model_path = model_path
        self._mixed = ""  # why the weights are part old, part new
        self.max_model_len: int = self._llm.model_config.max_model_len
        self._llm.update_weight_version(str(policy_version))
        self.policy_version = policy_version
        self._running: dict[str, tuple[EngineRequest, Sampling]] = {}
        self._retried: set[str] = set()
        """Keys of what runs a second time, because it failed."""
        self.stats = EngineStats(start_seconds=time.perf_counter() - start)

    def token_ids(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """Returns the ids of tokens, written as in the tokenizer.

        Raises:
            ConfigError: the vocabulary lacks a token.
        """
        vocabulary: Mapping[str, int] = self._tokenizer.get_vocab()
        if unknown := [token for token in tokens if token not in vocabulary]:
            raise ConfigError(
                f"rollout.banned_tokens: {unknown[0]!r} is no token of {self._model_path}; write it as "
                "tokenizer.json does, for instance <|im_start|>"
            )
        return tuple(vocabulary[token] for token in tokens)

    def render(self, request: EngineRequest) -> EngineInput:
        """Makes a prompt ready for `submit`: tokens, and media as vLLM takes them. Any thread may call this
        while the engine steps."""
        prompt = vllm_prompt(request, self._family, embeds=self._embeds, audio_id=self._audio_id)
        with self._rendering:
            return rendered(self._llm, prompt)

    def submit(
        self, key: str, request: EngineRequest, sampling: Sampling, prompt: EngineInput | None = None
    ) -> None:
        """Queues `sampling.n` completions of a prompt; `step` gives them under `key`, which must be unique
        among what is unfinished. Log-probabilities are the policy's own: before the request's temperature,
        bans and top-p.

        After a push that failed midway the request waits, with all that run, for a push that succeeds.

        Args:
            prompt: what `render` made of the request on another thread; None renders here.

        Raises:
            ConfigError: the prompt leaves no room in `max_model_len`, or vLLM refuses it: one video has more
                tokens than its cache for embeddings, which holds `max_num_batched_tokens`.
        """
        assert key not in self._running, key
        num_tokens = len(request.encoded.prompt_token_ids)
        if num_tokens >= self.max_model_len:
            raise ConfigError(
                f"rollout.engine.max_model_len: prompt {request.id} has {num_tokens} tokens, the engine "
                f"takes {self.max_model_len} with the answer; raise it, or shorten the prompt"
            )
        from vllm.exceptions import VLLMValidationError

        has_markup = bool(markup_ids(self._tokenizer))
        params = sampling_params(sampling, seed=request.seed, banned=self._banned, has_markup=has_markup)
        try:
            self._llm.llm_engine.add_request(key, prompt or self.render(request), params)
        except VLLMValidationError as error:
            raise ConfigError(
                f"rollout.engine: vLLM refuses prompt {request.id}: {error} (max_num_batched_tokens is the "
                "least size of that cache)"
            ) from error
        self._running[key] = (request, sampling)
        self.stats.prompt_tokens += num_tokens

    def step(self) -> dict[str, tuple[Completion, ...]]:
        """Computes the next token of all that runs, and returns what has finished with it, by key. A request
        that vLLM ends unfinished (`error`, `abort`) is begun anew once. Completions that have failed twice
        are returned (`Completion.has_failed`).

        Raises:
            DataError: vLLM expanded a prompt's media otherwise than the encoder did.
        """
        start = time.perf_counter()
        finished: dict[str, tuple[Completion, ...]] = {}
        if self._mixed:  # what runs waits for a whole push, and is computed anew then
            time.sleep(_MIXED_PAUSE_S)
            return finished
        for output in self._llm.llm_engine.step():
            if output.finished and output.request_id in self._running:
                completions = self._finish(output)
                if self._is_retried(output.request_id, completions):
                    continue
                del self._running[output.request_id]
                finished[output.request_id] = completions
                self.stats.completion_tokens += sum(len(c.token_ids) for c in completions)
        if finished and not self._running:
            give_back()
        self.stats.generate_seconds += time.perf_counter() - start
        return finished

    def _finish(self, output: RequestOutput) -> tuple[Completion, ...]:
        request, sampling = self._running[output.request_id]
        check_expansion(request, output.prompt_token_ids)
        return tuple(
            completion_of(
                sample,
                sampling,
                tokenizer=self._tokenizer,
                policy_version=self.policy_version,
                of_prompt=output.prompt_logprobs,
            )
            for sample in output.outputs
        )

    def _is_retried(self, key: str, completions: Sequence[Completion]) -> bool:
        """Begins a request anew that has failed for the first time; says whether it did."""
        failed = [completion.finish_reason for completion in completions if completion.has_failed]
        if not failed or key in self._retried:
            self._retried.discard(key)
            return False
        request, sampling = self._running.pop(key)
        logger.warning("prompt %s: vLLM ended its generation by %s; once more", request.id, failed[0])
        self.submit(key, request, sampling)
        self._retried.add(key)
        return True

    def cancel(self, keys: Iterable[str]) -> None:
        """Forgets the requests of these keys, with their finished samples. Unknown keys do no harm."""
        keys = list(keys)
        self._retried.difference_update(keys)
        known = [key for key in keys if self._running.pop(key, None) is not None]
        self._llm.llm_engine.abort_request(known)

    @property
    def num_unfinished(self) -> int:
        """Number of requests that were submitted and have neither finished nor been cancelled."""
        return len(self._running)

    def generate(self, requests: Sequence[EngineRequest], sampling: Sampling) -> list[tuple[Completion, ...]]:
        """Generates `sampling.n` completions for each request, in order; nothing else may be running.

        Raises:
            ConfigError: a prompt leaves no room in `max_model_len`.
            DataError: vLLM expanded a prompt's media otherwise than the encoder did.
            WeightSyncError: a push failed midway, and none has succeeded since.
        """
        self.check_whole()
        assert not self._running, f"{self.num_unfinished} requests are running"
        finished: dict[str, tuple[Completion, ...]] = {}
        try:
            for index, request in enumerate(requests):
                self.submit(str(index), request, sampling)
            while self._running:
                finished |= self.step()
        except BaseException:
            self.cancel(list(self._running))
            raise
        return [finished[str(index)] for index in range(len(requests))]

    def apply_weights(self, push: Push) -> int:
        """Takes part in a push: replaces the weights, in place, between two steps, and forgets everything
        computed with the old ones. Requests that run keep their tokens and go on. Their prompt and tokens are
        computed again with the new weights, so every later log-probability is that of the new policy alone.
        Returns the new policy version.

        Raises:
            WeightSyncError: the push is of another backend, does not fit, is damaged or incomplete, or was
                called off; the old weights are untouched.
            MixedWeightsError: the push failed when some buckets had been loaded; the engine generates nothing
                until a push succeeds.
        """
        start = time.perf_counter()
        if push.backend != self._backend:
            raise WeightSyncError(f"a push by {push.backend!r} reached an engine of {self._backend!r}")
        try:
            self._weights.take(self._llm, push)
        except WeightSyncError as error:
            if isinstance(error, MixedWeightsError):
                self._mixed = str(error)
            raise
        except Exception as error:  # whatever a worker process or vLLM's messaging made of it
            self._mixed = str(error)
            raise MixedWeightsError(f"weights of version {push.version}: {error}") from error
        if not self._llm.llm_engine.reset_prefix_cache(reset_running_requests=True):
            raise WeightSyncError(
                f"rollout[{self._rank}]: what was computed with old weights could not be dropped"
            )
        if not self._embeds:
            self._llm.llm_engine.reset_encoder_cache()
        self.policy_version, self._mixed = push.version, ""
        self.stats.update_seconds += time.perf_counter() - start
        self.stats.updates += 1
        return push.version

    def weight_digests(self) -> dict[str, str]:
        """Returns the sha256 of every parameter's bytes, by its name in vLLM and the rank of its worker."""
        workers: list[dict[str, str]] = self._llm.collective_rpc("compute_weight_checksums")
        return {name: digest for worker in workers for name, digest in worker.items()}

    def forget_weights(self) -> None:
        """Sets the weights that a push brings to zero, so that one that a push leaves out is seen. Nothing is
        generated until a push has succeeded."""
        self._mixed = "its weights were set to zero, to be brought by a push"
        self._llm.collective_rpc("forget_weights")

    def sleep(self) -> None:
        """Gives the GPU memory of weights and cache back, until `wake_up`; nothing may be running. On the CPU
        vLLM gives nothing back."""
        assert not self._running, f"{self.num_unfinished} requests are running"
        if not self._is_asleep:
            self._llm.sleep(level=self._sleep_level)
            self._is_asleep = True

    def wake_up(self, what: str) -> None:
        """Takes the memory of what `sleep` gave back: of `weights`, which then need a push, and after them of
        the `kv_cache`."""
        if self._is_asleep:
            self._is_asleep = not self._llm.wake_up([what])

    def check_version(self, wanted: int) -> None:
        """Raises WeightSyncError where the engine holds weights older than `wanted`."""
        if self.policy_version < wanted:
            raise WeightSyncError(
                f"rollout[{self._rank}] is stale: it holds version {self.policy_version} of the weights, "
                f"version {wanted} was asked for; push them to it again"
            )

    def check_whole(self) -> None:
        """Raises WeightSyncError where a push failed midway, and none has succeeded since."""
        if self._mixed:
            raise WeightSyncError(
                f"rollout[{self._rank}] cannot generate since a push failed midway: {self._mixed}"
            )
