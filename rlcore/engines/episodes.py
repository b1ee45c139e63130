"""Episodes: completions of several turns on an engine that knows single turns.

    begin -> a request per sample -> finished -> the environment is asked -> answered -> the next request ...

Each sample goes on by itself: its turns join the engine's batch as any request does, and nobody waits for
another sample's environment. A sample's next request holds all of its tokens so far, which the engine finds
in its prefix cache. Everything but the environment runs on the engine's thread, between two steps, so that
weights may be replaced between two turns: each turn's tokens have the versions that wrote them.

This module knows neither vLLM nor where environments run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from rlcore.config import EnvironmentConfig
from rlcore.engines.sampling import EngineRequest, Sampling, sampling_seed
from rlcore.environments import Episode, Reply
from rlcore.types import Completion, Observation, Prompt

Completions = tuple[Completion, ...]


class TurnEngine(Protocol):
    """An engine, as far as episodes need one; `rlcore.engines.vllm_engine.VLLMEngine` is one."""

    max_model_len: int

    def submit(self, key: str, request: EngineRequest, sampling: Sampling, prompt: Any = None) -> None: ...

    def cancel(self, keys: Iterable[str]) -> None: ...

    def encode(self, text: str) -> tuple[int, ...] | None: ...


E = TypeVar("E", bound=TurnEngine)


@dataclass(slots=True, eq=False)
class _Sample:
    """One completion that is being written."""

    key: str
    prompt: Prompt
    request: EngineRequest
    sampling: Sampling
    rendered: Any
    turns: list[Completion] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    token_ids: tuple[int, ...] = ()
    completion: Completion | None = None
    """What came of it; None while it is being written."""


class Episodes(Generic[E]):
    """The samples of all jobs that are being written, on the thread of their engine.

    Args:
        config: limits, and what becomes of a failed call.
        stop: texts that call the environment, as `rlcore.environments.Environment.stop`.
        ask: has the environment answer episodes, and gives the reply to each one's function, on any thread.
        resume: has a function of the engine run on its thread, with what it finishes to be collected.
    """

    def __init__(
        self,
        config: EnvironmentConfig,
        stop: Sequence[str],
        ask: Callable[[Sequence[tuple[Episode, Callable[[Reply], None]]]], None],
        resume: Callable[[Callable[[E], Mapping[str, Completions]]], None],
    ):
        self._config, self._stop, self._ask, self._resume = config, tuple(stop), ask, resume
        self._samples: dict[str, list[_Sample]] = {}
        """Samples of each job, by its key."""
        self._running: dict[str, _Sample] = {}
        """Samples whose turn the engine is writing, by the request's key."""
        self._calls: list[tuple[Episode, Callable[[Reply], None]]] = []
        """Calls of the step at hand, which are made together."""

    @property
    def num_unfinished(self) -> int:
        """Number of jobs that were begun and have neither finished nor been cancelled."""
        return len(self._samples)

    def begin(
        self, engine: E, key: str, prompt: Prompt, request: EngineRequest, sampling: Sampling, rendered: Any
    ) -> None:
        """Starts `sampling.n` samples of a prompt, which `finished` will give under `key`. A sample that the
        environment is not asked about is the one that the engine draws without an environment."""
        one = replace(sampling, n=1, stop=(*sampling.stop, *self._stop))
        self._samples[key] = [
            _Sample(f"{key}/{k}", prompt, _seeded(request, k), one, rendered) for k in range(sampling.n)
        ]
        for sample in self._samples[key]:
            self._submit(engine, sample)

    def finished(self, engine: E, turns: Mapping[str, Completions]) -> dict[str, Completions]:
        """Takes the turns that a step has finished; returns the jobs that are whole with them."""
        whole: dict[str, Completions] = {}
        for key, (turn,) in turns.items():
            sample = self._running.pop(key)
            self._add(sample, turn)
            whole |= self._next(engine, sample)
        if self._calls:
            calls, self._calls = self._calls, []
            self._ask(calls)
        return whole

    def cancel(self, engine: E, keys: Iterable[str]) -> None:
        """Forgets jobs; what their environment still answers is not heard."""
        gone = [sample for key in keys for sample in self._samples.pop(key, ())]
        for sample in gone:
            self._running.pop(sample.key, None)
        engine.cancel([sample.key for sample in gone])

    def _submit(self, engine: E, sample: _Sample) -> None:
        left = sample.sampling.max_tokens - len(sample.token_ids)
        limit = min(left, self._config.max_turn_tokens or left)
        request = replace(sample.request, begun=sample.token_ids)
        if request.seed is not None and sample.turns:
            request = replace(request, seed=sampling_seed(request.seed, len(sample.turns)))
        self._running[sample.key] = sample
        engine.submit(sample.key, request, replace(sample.sampling, max_tokens=limit), sample.rendered)

    def _add(self, sample: _Sample, turn: Completion) -> None:
        sample.turns.append(turn)
        sample.token_ids += turn.token_ids

    def _next(self, engine: E, sample: _Sample) -> dict[str, Completions]:
        """Has the environment answer the latest turn, unless the sample ends with it."""
        turn = sample.turns[-1]
        calls = turn.finish_reason == "stop" and (not self._stop or turn.text.endswith(self._stop))
        if not calls:
            return self._end(sample, turn.finish_reason)
        if len(sample.turns) == self._config.max_turns:
            return self._end(sample, "length")
        episode = Episode(
            prompt=sample.prompt,
            turns=tuple(turn.text for turn in sample.turns),
            observations=tuple(observation.text for observation in sample.observations),
        )
        hear = lambda reply: self._resume(lambda engine: self._answered(engine, sample, reply))  # noqa: E731
        self._calls.append((episode, hear))
        return {}

    def _answered(self, engine: E, sample: _Sample, reply: Reply) -> dict[str, Completions]:
        if sample not in self._samples.get(_job(sample), ()):
            return {}  # cancelled meanwhile
        text, error, token_ids = reply.text, reply.error, tuple[int, ...]()
        if error is None and text is None:
            return self._end(sample, "stop")
        if text is not None and error is None:
            token_ids, error = self._observed(engine, text)
        if error is not None:
            text = self._config.on_error
            if text in ("mask", "abort"):
                return self._end(sample, "stop", error=error)
            token_ids = engine.encode(text) or ()
        assert text is not None
        length = len(sample.token_ids) + len(token_ids)
        room = engine.max_model_len - len(sample.request.encoded.prompt_token_ids)
        if length >= min(room, sample.sampling.max_tokens):
            return self._end(sample, "length")
        offset = sum(len(turn.text) for turn in sample.turns)
        sample.observations.append(
            Observation(first=len(sample.token_ids), num_tokens=len(token_ids), offset=offset, text=text)
        )
        sample.token_ids += token_ids
        self._submit(engine, sample)
        return {}

    def _observed(self, engine: E, text: str) -> tuple[tuple[int, ...], str | None]:
        """The tokens of an observation, and what is wrong with them."""
        token_ids, most = engine.encode(text), self._config.max_observation_tokens
        if token_ids is None:
            return (), "the observation holds a media placeholder's token, which stands for no medium"
        if len(token_ids) > most:
            limit = f"rollout.environment.max_observation_tokens is {most}"
            return (), f"the observation has {len(token_ids)} tokens, {limit}"
        return token_ids, None

    def _end(self, sample: _Sample, reason: str, error: str | None = None) -> dict[str, Completions]:
        sample.completion = _joined(sample, reason, error)
        samples = self._samples[_job(sample)]
        completions = tuple(each.completion for each in samples if each.completion is not None)
        if len(completions) < len(samples):
            return {}
        return {_job(sample): completions} if self._samples.pop(_job(sample)) else {}


def _job(sample: _Sample) -> str:
    return sample.key.rpartition("/")[0]


def _seeded(request: EngineRequest, k: int) -> EngineRequest:
    """The request of sample k alone."""
    return request if request.seed is None else replace(request, seed=request.seed + k)


def _joined(sample: _Sample, reason: str, error: str | None) -> Completion:
    """Turns and observations as one completion."""
    logprobs: list[float] = []
    spans: list[tuple[int, int]] = []
    between = [*sample.observations, None]
    for turn, observation in zip(sample.turns, between[: len(sample.turns)], strict=False):
        logprobs += turn.logprobs
        spans += turn.spans
        if observation is not None:
            logprobs += [0.0] * observation.num_tokens
            spans.append((spans[-1][0], observation.num_tokens))
    merged = _merged(spans)
    return Completion(
        token_ids=sample.token_ids,
        logprobs=tuple(logprobs),
        text="".join(turn.text for turn in sample.turns),
        finish_reason=reason,
        policy_version=merged[0][0],
        version_spans=merged if len(merged) > 1 else (),
        observations=tuple(sample.observations),
        error=error,
    )


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Puts neighbours of one version together."""
    merged: list[tuple[int, int]] = []
    for version, count in [span for span in spans if span[1]] or spans[:1]:
        if merged and merged[-1][0] == version:
            merged[-1] = (version, merged[-1][1] + count)
        else:
            merged.append((version, count))
    return tuple(merged)
