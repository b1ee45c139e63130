"""The rollout actor: prompts in, groups of completions out as they finish. A plain class, wrapped where
actors are spawned, with `rlcore.engines.vllm_engine.engine_env` in its environment and `NUM_THREADS` threads.

The engine steps on its own thread for as long as there is work (`rlcore.engines.engine_loop`); the actor's
threads queue prompts, wait for finished groups, and answer for the state of the engine at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace

from rlcore.actors.environment_pool import EnvironmentPool
from rlcore.config import ModelConfig, RolloutConfig, TargetConfig
from rlcore.config.targets import build_target
from rlcore.engines.engine_loop import Completions, EngineLoop
from rlcore.engines.episodes import Episodes
from rlcore.engines.sampling import EngineRequest, Sampling, sampling_seed
from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.errors import ConfigError, EnvironmentFailedError
from rlcore.models.media import EncodedPrompt, MediaEncoder
from rlcore.models.tokens import opened_tag
from rlcore.records.timeline import Recorder, Span
from rlcore.task import Task
from rlcore.types import Completion, FinishedJob, Group, Prompt, RolloutJob
from rlcore.weight_sync.base import Push

NUM_THREADS = 8
"""Calls at once: one waits for groups, one may wait for weights, the others answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """A rollout actor's answer to `RolloutWorker.collect`."""

    finished: tuple[FinishedJob, ...]
    """Jobs that have finished since the last report."""
    policy_version: int
    """Version of the weights that the engine holds."""
    num_unfinished: int
    """Requests in the engine."""
    stalled_s: float
    """Seconds that the engine has been in its present step or call, or the media encoder in its present file,
    whichever is longer."""
    spans: tuple[Span, ...]
    """The actor's work since the last report, for the timeline."""


class RolloutWorker:
    """Task, media encoder and engine in one process. `rank` is the actor's place among the rollout actors."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        task: TargetConfig,
        *,
        seed: int,
        weight_backend: str = "shared_memory",
        rank: int = 0,
        can_sleep: bool = False,
    ):
        self._rollout, self._seed = rollout, seed
        self._actor, self._recorder = f"rollout[{rank}]", Recorder()
        built: Task = build_target(task.target, task.args, where="task")
        self._encoder = MediaEncoder(
            model.path,
            built.load_media,
            media=model.media,
            cache_folder=model.media_cache,
        )
        self._encoding = threading.Lock()
        self._jobs: dict[str, tuple[RolloutJob, EncodedPrompt, int]] = {}
        self._episodes: Episodes[VLLMEngine] | None = None
        self._failure: BaseException | None = None
        """What went wrong as an episode was to go on."""
        if rollout.environment.target is not None:
            environment = EnvironmentPool(rollout.environment, f"environment of {self._actor}", self._fail)
            self._episodes = Episodes(
                rollout.environment, environment.stop(), environment.ask, self._resume_episode
            )
        self._loop = EngineLoop(
            lambda: VLLMEngine(
                model.path,
                dtype=model.engine_dtype(rollout.num_gpus),
                head_dtype=model.head_dtype,
                seed=seed,
                media=model.media,
                engine_args=rollout.engine,
                weight_backend=weight_backend,
                rank=rank,
                can_sleep=can_sleep,
                temperature=rollout.temperature,
            ),
            on_busy=lambda start, end: self._record("generate", start, end),
            on_finished=None if self._episodes is None else self._episodes.finished,
        )
        self._banned = self._loop.engine.token_ids(rollout.banned_tokens)

    def ready(self) -> int:
        """Answers once the engine stands, with the policy version: 0 after a (re)start, which is stale until
        weights have been pushed."""
        return self._loop.engine.policy_version

    def submit(self, jobs: Sequence[RolloutJob], policy_version: int | None = None) -> None:
        """Encodes the prompts while the engine steps, and queues them, all before its next step; returns at
        once after.
        `policy_version` is the version that the caller believes the engine to hold, or a later one by now.

        Raises:
            WeightSyncError: the engine holds an older one. Where a push failed midway, its prompts wait for
                the next one.
            ConfigError: a prompt leaves no room for an answer and `rollout.over_context` is `error`.
            DataError: a prompt's media cannot be loaded, or do not fit its text.
        """
        # One call at a time: the encoder has a cache, and prompts keep their order.
        with self._encoding, self._recorder.span(self._actor, "encode"):
            entries = []
            for job, encoded, num_encoded in self._encode(jobs):
                key = str(job.id)
                self._jobs[key] = (job, encoded, num_encoded)
                if len(encoded.prompt_token_ids) < self._loop.engine.max_model_len:
                    request = self._request(job, encoded)
                    # Rendered here: the engine's thread steps meanwhile.
                    rendered = self._loop.engine.render(request)
                    entries.append((key, request, self._sampling(job), rendered))
                elif self._rollout.over_context == "drop":
                    self._loop.post(key, None)
                else:
                    del self._jobs[key]
                    raise ConfigError(
                        f"prompt {job.prompt.id} has {len(encoded.prompt_token_ids)} tokens, the engine "
                        f"takes {self._loop.engine.max_model_len} with the answer: raise "
                        "rollout.engine.max_model_len, or set rollout.over_context=drop"
                    )

        def enter(engine: VLLMEngine) -> None:
            if policy_version is not None:
                engine.check_version(policy_version)
            for key, request, sampling, rendered in entries:
                if self._episodes is None:
                    engine.submit(key, request, sampling, rendered)
                elif key in self._jobs:
                    prompt = self._jobs[key][0].prompt
                    self._episodes.begin(engine, key, prompt, request, sampling, rendered)

        self._loop.call(enter).result()

    def collect(self, timeout_s: float) -> RolloutReport:
        """Reports the jobs that have finished since the last call; waits for one up to `timeout_s`.

        Raises EnvironmentFailedError where a completion's environment failed and its `on_error` is `abort`.
        """
        finished = self._loop.collect(timeout_s)
        if self._failure is not None:
            raise self._failure
        state = self._loop.state()
        done = []
        for key, completions in finished.items():
            if entry := self._jobs.pop(key, None):  # else it was cancelled as it finished
                self._check_environment(entry[0], completions or ())
                done.append(_finished(*entry, completions))
        return RolloutReport(
            finished=tuple(done),
            policy_version=self._loop.engine.policy_version,
            num_unfinished=state.num_unfinished,
            stalled_s=max(state.stalled_s, self._encoder.stalled_s),
            spans=tuple(self._recorder.take()),
        )

    def cancel(self, job_ids: Iterable[int]) -> None:
        """Ends the generation of these jobs; they will not be collected."""
        keys = [str(job_id) for job_id in job_ids]
        for key in keys:
            self._jobs.pop(key, None)
        end = VLLMEngine.cancel if self._episodes is None else self._episodes.cancel
        self._loop.call(lambda engine: end(engine, keys)).result()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        step: int,
        greedy: bool = False,
        num_samples: int | None = None,
        policy_version: int | None = None,
    ) -> list[Group]:
        """Generates one group per prompt, in order: `samples_per_prompt` samples, or one greedy answer. For
        callers that have this worker to themselves.

        Every sample is a function of (seed, step, prompt id, sample), whichever replica draws it.

        Raises:
            WeightSyncError: the engine holds weights older than `policy_version`, or a push failed midway.
            ConfigError: a prompt leaves no room for an answer and `rollout.over_context` is `error`.
            DataError: a prompt's media cannot be loaded, or do not fit its text.
        """
        self._loop.call(VLLMEngine.check_whole).result()
        jobs = [
            RolloutJob(id=i, prompt=prompt, draw=step, greedy=greedy, num_samples=num_samples)
            for i, prompt in enumerate(prompts)
        ]
        self.submit(jobs, policy_version)
        groups: dict[int, Group] = {}
        num_refused = 0
        while len(groups) + num_refused < len(jobs):
            for done in self.collect(1.0).finished:
                num_refused += done.group is None
                if done.group is not None:
                    groups[done.id] = done.group
        return [groups[job_id] for job_id in sorted(groups)]

    def update_weights(self, push: Push) -> int:
        """Takes pushed weights between two steps of the engine, whose requests go on with them; returns the
        engine's new policy version."""

        def apply(engine: VLLMEngine) -> int:
            with self._recorder.span(self._actor, "update_weights"):
                return engine.apply_weights(push)

        return self._loop.call(apply).result()

    def weight_digests(self) -> dict[str, str]:
        """Returns the sha256 of every parameter of the engine, by name, as `VLLMEngine.weight_digests`."""
        return self._loop.call(VLLMEngine.weight_digests).result()

    def forget_weights(self) -> None:
        """Sets the weights that a push brings to zero, until the next one, as `VLLMEngine.forget_weights`."""
        self._loop.call(VLLMEngine.forget_weights).result()

    def sleep(self) -> None:
        """Gives the engine's GPU memory back, until `wake_up`."""
        with self._recorder.span(self._actor, "sleep"):
            self._loop.call(VLLMEngine.sleep).result()

    def wake_up(self, what: str) -> None:
        """Takes GPU memory again that `sleep` gave back: of the `weights`, then of the `kv_cache`."""
        with self._recorder.span(self._actor, "wake_up"):
            self._loop.call(lambda engine: engine.wake_up(what)).result()

    def stats(self) -> dict[str, float]:
        """Returns running totals: seconds, tokens, updates, cache hits of encoded prompts, audios encoded."""
        num_episodes = 0 if self._episodes is None else self._episodes.num_unfinished
        return {
            **asdict(self._loop.engine.stats),
            "policy_version": self._loop.engine.policy_version,
            "num_unfinished": self._loop.state().num_unfinished + num_episodes,
            "media_hits": self._encoder.num_hits,
            "media_misses": self._encoder.num_misses,
            "media_encoded": self._encoder.num_encoded,
        }

    def _encode(self, jobs: Sequence[RolloutJob]) -> list[tuple[RolloutJob, EncodedPrompt, int]]:
        before = self._encoder.num_encoded
        encoded = self._encoder.encode([job.prompt for job in jobs])
        # The tower takes prompts in batches: which of them were new is told of the first alone.
        news = [self._encoder.num_encoded - before] + [0] * (len(jobs) - 1)
        return list(zip(jobs, encoded, news[: len(jobs)], strict=True))

    def _request(self, job: RolloutJob, encoded: EncodedPrompt) -> EngineRequest:
        seed = None if job.greedy else sampling_seed(self._seed, job.draw, job.prompt.id)
        return EngineRequest(id=job.prompt.id, text=job.prompt.text, encoded=encoded, seed=seed)

    def _sampling(self, job: RolloutJob) -> Sampling:
        config = self._rollout
        sampling = Sampling(
            max_tokens=config.max_tokens,
            temperature=0.0,
            stop=config.stop,
            banned_token_ids=self._banned,
            structured=config.structured,
        )
        if job.greedy:
            return sampling
        return replace(
            sampling,
            n=job.num_samples or config.samples_per_prompt,
            temperature=1.0,
            top_p=config.top_p,
        )

    def _resume_episode(self, function: Callable[[VLLMEngine], Mapping[str, Completions]]) -> None:
        """Has an episode go on between two steps of the engine."""

        def resume(engine: VLLMEngine) -> None:
            for key, completions in function(engine).items():
                self._loop.post(key, completions)

        def look(resumed: Future[None]) -> None:
            if (error := resumed.exception()) is not None:
                self._fail(error)

        self._loop.call(resume).add_done_callback(look)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _check_environment(self, job: RolloutJob, completions: Sequence[Completion]) -> None:
        if self._rollout.environment.on_error != "abort":
            return
        for k, completion in enumerate(completions):
            if completion.error is not None:
                raise EnvironmentFailedError(
                    f"rollout.environment: failed on completion {k} of prompt {job.prompt.id!r}: "
                    f"{completion.error} (rollout.environment.on_error is `abort`; `mask` or a text lets the "
                    "run go on)"
                )

    def _record(self, phase: str, start: float, end: float) -> None:
        self._recorder.add([Span(actor=self._actor, phase=phase, start=start, end=end)])


def _finished(
    job: RolloutJob, encoded: EncodedPrompt, num_encoded: int, completions: tuple[Completion, ...] | None
) -> FinishedJob:
    """A group is whole: where one sample failed, the baseline of the others would be of fewer answers."""
    failure = next((c.finish_reason for c in completions or () if c.has_failed), None)
    group = None if completions is None or failure else _group(job, encoded, completions)
    return FinishedJob(id=job.id, group=group, num_encoded=num_encoded, failure=failure)


def _group(job: RolloutJob, encoded: EncodedPrompt, completions: tuple[Completion, ...]) -> Group:
    return Group(
        prompt=job.prompt,
        prompt_token_ids=encoded.prompt_token_ids,
        completions=tuple(_whole(job.prompt.text, completion) for completion in completions),
        media_inputs=encoded.media_inputs,
    )


def _whole(prompt: str, completion: Completion) -> Completion:
    """Rewards and metrics read an answer alone: where the prompt has opened its tag, they would miss it."""
    opened = opened_tag(prompt, completion.text)
    if not opened:
        return completion
    seen = [replace(each, offset=each.offset + len(opened)) for each in completion.observations]
    return replace(completion, text=opened + completion.text, observations=tuple(seen))
