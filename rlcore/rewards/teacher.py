"""On-policy distillation: a teacher's view of each token that the policy sampled, as the token's advantage.

The advantage of token y_t is log p(y_t | x, y_<t) - log π(y_t | x, y_<t), with p the teacher and π the policy
that sampled: the negative of the one-sample estimate of the token's reverse KL, whose gradient the policy
then follows. Sources: on-policy distillation (GKD, arXiv 2306.13649), MiniLLM (arXiv 2306.08543, whose tokens
answer for later ones too), and Thinking Machines 2025, "On-Policy Distillation" (as here, token by token).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.config.targets import build_target
from rlcore.errors import ConfigError, DataError
from rlcore.rewards.protocol import Reward
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlcore.engines.sampling import EngineRequest


class Teacher(Reward):
    """The teacher is a larger model of the policy's tokenizer, which vLLM serves inside the reward's actor.

    All answers of a call go to the engine at once. The recordings of a prompt go through the teacher's own
    tower, once for the prompt's K answers. A score's `value` is minus the mean reverse KL per token, in nats:
    0 is a policy that gives its tokens the teacher's probabilities.

    Args:
        model_path: folder or hub id of the teacher, with its processor.
        policy_path: folder or hub id of the policy (`${model.path}`).
        task: the task that loads the prompts' media (`${task.target}`); null for text alone.
        task_args: arguments of the task (`${task.args}`).
        engine: further vLLM engine arguments.
        dtype: dtype of the teacher.
        media_cache: folder that keeps what the tower makes of recordings, as `model.media_cache`.

    Raises:
        ConfigError: the teacher reads or writes other tokens than the policy.
    """

    def __init__(
        self,
        model_path: str,
        policy_path: str,
        *,
        task: str | None = None,
        task_args: Mapping[str, Any] | None = None,
        engine: Mapping[str, object] | None = None,
        dtype: str = "float32",
        media_cache: str | None = None,
    ):
        # The engine's modules import vLLM's world; a configuration that merely names a reward must not.
        from rlcore.engines.sampling import Sampling
        from rlcore.engines.vllm_engine import VLLMEngine
        from rlcore.models.families import family_of
        from rlcore.models.hf_model import load_config, load_processor, tokenizer_of
        from rlcore.models.media import MediaEncoder

        teacher, policy = (tokenizer_of(load_processor(path)) for path in (model_path, policy_path))
        check_same_tokens(teacher, policy, model_path, policy_path)
        self._task = None if task is None else build_target(task, task_args or {}, where="args.task")
        media = "embeds" if family_of(load_config(model_path)).takes_audio_embeds else "raw"
        self._encoder = MediaEncoder(model_path, self._load_media, media=media, cache_folder=media_cache)
        self._engine = VLLMEngine(model_path, dtype=dtype, media=media, engine_args=engine)
        self._sampling = Sampling(max_tokens=1, temperature=0.0, scores_prompt=True)

    def _load_media(self, prompt: Prompt) -> Mapping[str, object]:
        if self._task is None:
            raise ConfigError("args.task: got null, and a prompt has media; write ${task.target}")
        media: Mapping[str, object] = self._task.load_media(prompt)
        return media

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        return self.score_batch([group], context)[0]

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        rows = [self._requests(group) for group in groups]
        fitting = [request for row in rows for request in row if self._fits(request)]
        answers = iter(self._engine.generate(fitting, self._sampling))
        return [
            [self._score(request, c, answers) for request, c in zip(row, group.completions, strict=True)]
            for row, group in zip(rows, groups, strict=True)
        ]

    def _requests(self, group: Group) -> list[EngineRequest]:
        from rlcore.engines.sampling import EngineRequest
        from rlcore.models.families.base import PICTURES

        prompt = group.prompt
        (encoded,) = self._encoder.encode([prompt])
        if any(name.startswith(tuple(PICTURES)) for name in encoded.media_inputs):
            raise DataError(f"prompt {prompt.id}: a teacher takes text and recordings, and it has pictures")
        return [
            EngineRequest(
                id=f"{prompt.id}#{k}", text=prompt.text, encoded=encoded, begun=completion.token_ids
            )
            for k, completion in enumerate(group.completions)
        ]

    def _fits(self, request: EngineRequest) -> bool:
        return len(request.token_ids) < self._engine.max_model_len

    def _score(
        self, request: EngineRequest, completion: Completion, answers: Iterator[Sequence[Completion]]
    ) -> Score:
        if not self._fits(request):
            room = self._engine.max_model_len - 1
            return Score(
                0.0, error=f"prompt and answer have {len(request.token_ids)} tokens, the teacher takes {room}"
            )
        (answer,) = next(answers)
        if answer.has_failed or answer.prompt_logprobs is None:
            return Score(0.0, error=f"the teacher's engine gave up, twice: {answer.finish_reason}")
        return score_of(completion, answer.prompt_logprobs)


def score_of(completion: Completion, prompt_logprobs: Sequence[float]) -> Score:
    """Returns the score of an answer, whose tokens come last in the teacher's `prompt_logprobs`. What an
    environment wrote into the answer has no advantage and enters no mean."""
    advantages = token_advantages(prompt_logprobs, completion.logprobs)
    advantages[~completion.is_sampled] = 0.0
    mean = advantages.sum() / max(1, completion.num_sampled)
    return Score(float(mean), token_advantages=tuple(advantages.tolist()))


def token_advantages(prompt_logprobs: Sequence[float], logprobs: Sequence[float]) -> np.ndarray:
    """Computes log p - log π of an answer's tokens, float64 [T].

    Args:
        prompt_logprobs: the teacher's log-probabilities of prompt and answer, which come last.
        logprobs: [T] of the policy.
    """
    own = np.asarray(logprobs, dtype=np.float64)
    return np.asarray(prompt_logprobs[len(prompt_logprobs) - len(own) :], dtype=np.float64) - own


def check_same_tokens(
    teacher: PreTrainedTokenizerBase,
    policy: PreTrainedTokenizerBase,
    teacher_path: str,
    policy_path: str,
) -> None:
    """Checks that every token of the policy is the teacher's token of the same id.

    Raises:
        ConfigError: one is not; says which, and what the teacher has in its place.
    """
    theirs = {id: token for token, id in teacher.get_vocab().items()}
    differing = sorted((id, token) for token, id in policy.get_vocab().items() if theirs.get(id) != token)
    if differing:
        id, token = differing[0]
        raise ConfigError(
            f"args.model_path: {teacher_path} has another tokenizer than the policy {policy_path}: of the "
            f"policy's tokens {len(differing)} differ, the first is {token!r} ({id}), for the teacher "
            f"{theirs.get(id)!r}. A teacher must have the policy's own tokens"
        )
