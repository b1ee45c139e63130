"""The rollout engine: vLLM in this process, with sampled logprobs kept and weights that can be replaced.

It knows tokens and media, not tasks or rewards. `engine_env` must be in the environment before Python starts
(Ray: `runtime_env`), because vLLM and torch read it when they are imported.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from rlcore.config.weight_media import medium_of
from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.engines.vllm_arguments import engine_arguments
from rlcore.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    MixedWeightsError,
    WeightSyncError,
)
from rlcore.models.environment import engine_env as engine_env
from rlcore.models.hf_model import (
    audio_token_id,
    load_config,
    load_processor,
    media_token_ids,
    tokenizer_of,
)
from rlcore.models.host_memory import give_back
from rlcore.models.media import EncodedPrompt
from rlcore.types import Completion
from rlcore.weight_sync import make_receiver
from rlcore.weight_sync.base import Push

_MIXED_PAUSE_S = 0.01
"""Between two looks of an engine that waits for whole weights."""


@dataclass
class EngineStats:
    """Running totals."""

    start_seconds: float = 0.0
    generate_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    update_seconds: float = 0.0
    updates: int = 0


class VLLMEngine:
    """A vLLM instance with one policy. One a process: vLLM's process groups are the whole process's, and end
    with the first engine that Python collects.

    Args:
        model_path: checkpoint folder or hub id.
        dtype: of weights and activations.
        media: `embeds` (no tower in the engine) or `raw`.
        engine_args: further `vllm.EngineArgs`, as `rollout.engine`.
        weight_backend: medium of weight updates, as `weight_sync.backend`.
        rank: which of the rollout engines this is, for weight updates and errors.
        policy_version: version of the weights in the folder.
        can_sleep: reserve GPU memory so that `sleep` can give it back.
        temperature: of the policy: the model's logits divided by it, for whatever is sampled or scored.

    Raises:
        ConfigError: an engine argument that does not exist or that rlcore sets itself.
        MissingDependencyError: vLLM is not installed.
    """

    def __init__(
        self,
        model_path: str,
        *,
        dtype: str = "float32",
        seed: int = 0,
        media: str = "embeds",
        engine_args: Mapping[str, Any] | None = None,
        weight_backend: str = "shared_memory",
        trust_remote_code: bool = False,
        rank: int = 0,
        policy_version: int = 0,
        can_sleep: bool = False,
        temperature: float = 1.0,
    ):
        start = time.perf_counter()
        try:
            from vllm import LLM
            from vllm.config import WeightTransferConfig
        except ImportError as error:
            raise MissingDependencyError(
                f"vLLM does not import ({error}); install rlcore with the extra `cpu` or `gpu`"
            ) from error
        self._weights = make_receiver(weight_backend, rank=rank, model_path=model_path)
        config = load_config(model_path, trust_remote_code=trust_remote_code)
        self._llm = LLM(
            model_path,
            dtype=dtype,
            seed=seed % 2**32,
            trust_remote_code=trust_remote_code,
            weight_transfer_config=WeightTransferConfig(backend=medium_of(weight_backend).vllm_backend),
            worker_extension_cls="rlcore.engines.vllm_plugin.PolicyTemperature",
            **engine_arguments(config, media, engine_args or {}, can_sleep=can_sleep),
        )
        if temperature != 1:
            self._llm.collective_rpc("divide_logits", args=(temperature,))
        self._weights.attach(self._llm)
        tokenizer = tokenizer_of(load_processor(model_path, trust_remote_code=trust_remote_code))
        self._banned = tuple(media_token_ids(config, tokenizer))
        self._tokenizer = tokenizer
        self._embeds = media == "embeds"
        self._audio_id = audio_token_id(config)
        # Asleep, an engine may forget what the next push brings; a tower in the engine is not pushed.
        self._sleep_level = 2 if self._embeds or self._audio_id is None else 1
        self._is_asleep = False
        self._backend, self._rank = weight_backend, rank
        self._model_path = model_path
        self._mixed = ""  # why the weights are part old, part new
        self.max_model_len: int = self._llm.model_config.max_model_len
        self._llm.update_weight_version(str(policy_version))
        self.policy_version = policy_version
        self._running: dict[str, tuple[EngineRequest, Sampling]] = {}
        self.stats = EngineStats(start_seconds=time.perf_counter() - start)

    def token_ids(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """Ids of tokens as the tokenizer writes them. Raises ConfigError where the vocabulary lacks one."""
        vocabulary: Mapping[str, int] = self._tokenizer.get_vocab()
        if unknown := [token for token in tokens if token not in vocabulary]:
            raise ConfigError(
                f"rollout.banned_tokens: {unknown[0]!r} is no token of {self._model_path}; write it as "
                "tokenizer.json does, for instance <|im_start|>"
            )
        return tuple(vocabulary[token] for token in tokens)

    def submit(self, key: str, request: EngineRequest, sampling: Sampling) -> None:
        """Queues `sampling.n` completions of a prompt; `step` gives them under `key`, which must be unique
        among what is unfinished. Log-probabilities are the policy's own: before the request's temperature,
        bans and top-p.

        After a push that failed midway it waits, with all that runs, for one that succeeds.

        Raises:
            ConfigError: the prompt leaves no room in `max_model_len`.
        """
        assert key not in self._running, key
        num_tokens = len(request.encoded.prompt_token_ids)
        if num_tokens >= self.max_model_len:
            raise ConfigError(
                f"rollout.engine.max_model_len: prompt {request.id} has {num_tokens} tokens, the engine "
                f"takes {self.max_model_len} with the answer; raise it, or shorten the prompt"
            )
        prompt, params = self._prompt(request), self._sampling_params(sampling, request.seed)
        self._llm.llm_engine.add_request(key, self._rendered(prompt), params)
        self._running[key] = (request, sampling)
        self.stats.prompt_tokens += num_tokens

    def step(self) -> dict[str, tuple[Completion, ...]]:
        """Computes the next token of all that runs; what has finished with it, by key.

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
                request, sampling = self._running.pop(output.request_id)
                _check_expansion(request, output.prompt_token_ids)
                completions = tuple(self._completion(sample, sampling) for sample in output.outputs)
                finished[output.request_id] = completions
                self.stats.completion_tokens += sum(len(c.token_ids) for c in completions)
        if finished and not self._running:
            give_back()
        self.stats.generate_seconds += time.perf_counter() - start
        return finished

    def cancel(self, keys: Iterable[str]) -> None:
        """Forgets these requests, finished samples of theirs included. Unknown keys do no harm."""
        known = [key for key in keys if self._running.pop(key, None) is not None]
        self._llm.llm_engine.abort_request(known)

    @property
    def num_unfinished(self) -> int:
        """Requests that were submitted and have neither finished nor been cancelled."""
        return len(self._running)

    def generate(self, requests: Sequence[EngineRequest], sampling: Sampling) -> list[tuple[Completion, ...]]:
        """`sampling.n` completions for each request, in order; nothing else may be running.

        Raises as `submit` and `step`, and WeightSyncError where a push failed midway.
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
        computed with the old ones. Requests that run keep their tokens and go on: their prompt and tokens are
        computed again with the new weights, so every later log-probability is that of the new policy alone.
        Returns the new policy version.

        Raises:
            WeightSyncError: the push is of another backend, does not fit, is damaged or incomplete, or was
                called off; the old weights are untouched.
            MixedWeightsError: the same, but some buckets had been loaded; the engine generates nothing until
                a push succeeds.
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

    def sleep(self) -> None:
        """Gives the GPU memory of weights and cache back, until `wake_up`; nothing may be running. On the CPU
        vLLM gives nothing back."""
        assert not self._running, f"{self.num_unfinished} requests are running"
        if not self._is_asleep:
            self._llm.sleep(level=self._sleep_level)
            self._is_asleep = True

    def wake_up(self, what: str) -> None:
        """Takes the memory of `weights` again, which then want a push, and thereafter that of the
        `kv_cache`."""
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

    def _rendered(self, prompt: dict[str, Any]) -> Any:
        """Tokenised and with its media processed, as vLLM's engine takes it."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        renderer = self._llm.llm_engine.renderer
        parsed = parse_model_prompt(self._llm.model_config, prompt)
        (rendered,) = renderer.render_cmpl([parsed], renderer.default_cmpl_tok_params)
        return rendered

    def _prompt(self, request: EngineRequest) -> dict[str, Any]:
        encoded = request.encoded
        if not encoded.media_inputs:
            return {"prompt_token_ids": list(encoded.prompt_token_ids)}
        if self._embeds:
            embeds = torch.from_numpy(encoded.media_inputs["audio_embeds"])
            lengths = [len(list(run)) for is_audio, run in groupby(self._is_audio(encoded)) if is_audio]
            audios = list(embeds.split(lengths)) if len(lengths) > 1 else embeds[None]
            return {"prompt": request.text, "multi_modal_data": {"audio": {"audio_embeds": audios}}}
        rate = encoded.media["sampling_rate"]
        return {
            "prompt": request.text,
            "multi_modal_data": {"audio": [(waveform, rate) for waveform in encoded.media["audio"]]},
        }

    def _is_audio(self, encoded: EncodedPrompt) -> Iterator[bool]:
        """Token by token. Between two audios stand their marks."""
        return (token == self._audio_id for token in encoded.prompt_token_ids)

    def _sampling_params(self, sampling: Sampling, seed: int | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        banned = {*self._banned, *sampling.banned_token_ids} - {*sampling.allowed_token_ids}
        structured = StructuredOutputsParams(**sampling.structured) if sampling.structured else None
        return SamplingParams(
            n=sampling.n,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=list(sampling.stop),
            include_stop_str_in_output=True,  # its tokens are in token_ids in any case
            structured_outputs=structured,
            seed=seed,
            logprobs=None if sampling.logprob_token_ids else sampling.num_logprobs,
            logprob_token_ids=list(sampling.logprob_token_ids) or None,
            allowed_token_ids=list(sampling.allowed_token_ids) or None,
            logit_bias={token: float("-inf") for token in banned},
            flat_logprobs=True,
            # Token by token, vLLM would also write out each log-probability's token: half of a small model's
            # time. Only stop texts have to be looked for on the way.
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, sample: Any, sampling: Sampling) -> Completion:
        """vLLM lists the sampled token first at every position, then the others that were asked for."""
        flat = sample.logprobs
        top = None
        if sampling.num_logprobs or sampling.logprob_token_ids:
            spans = zip(flat.start_indices, flat.end_indices, strict=True)
            top = tuple(dict(zip(flat.token_ids[a:b], flat.logprobs[a:b], strict=True)) for a, b in spans)
        versions = tuple((int(span.version), span.end - span.start) for span in sample.weight_versions or ())
        text = sample.text  # ends at the stop text, which may end within a token
        if not sampling.stop:
            text = self._tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        return Completion(
            token_ids=tuple(sample.token_ids),
            logprobs=tuple(flat.logprobs[start] for start in flat.start_indices),
            text=text,
            finish_reason=sample.finish_reason,
            policy_version=versions[0][0] if versions else self.policy_version,
            version_spans=versions if len(versions) > 1 else (),
            top_logprobs=top,
        )


def _check_expansion(request: EngineRequest, seen: Sequence[int]) -> None:
    expected = request.encoded.prompt_token_ids
    if tuple(seen) != expected:
        raise DataError(
            f"prompt {request.id}: vLLM reads {len(seen)} tokens, the processor {len(expected)}, differing: "
            "log-probabilities would be another prompt's. Check the checkpoint's processor and the installed "
            "versions of transformers and vLLM"
        )
