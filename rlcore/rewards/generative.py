"""Rewards by a generative reward model: a language model, served by vLLM, that grades responses.

The judge reads prompt and response and writes one score token per dimension. The score is the expectation
over the score tokens' probabilities (EmotionThinker, stage 3: R_t = sum_j w_j g_j / 5, with the expected
grade in place of the sampled one, which is smoother).

The judge may observe first: it writes one row of tokens about the media of a prompt, before any response is
read. The subclass puts their probabilities into its question about each of the prompt's K responses.

This module knows no task: a subclass says how the judge is asked and how media are loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rlcore.errors import ConfigError, RewardError
from rlcore.models.tokens import markup_ids, tokens_of
from rlcore.rewards.protocol import Reward
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlcore.engines.sampling import EngineRequest


class GenerativeRewardModel(Reward):
    """A judge of this kind is a generative model that a vLLM engine serves inside the reward's actor.

    All responses of a step are scored in one call of the engine, so that it can batch them. The audio of a
    prompt is encoded once, by the reward model's own tower, and shared by the prompt's K responses.

    Args:
        model_path: folder or hub id of the reward model, with its processor.
        dimensions: name to weight (>= 0, normalised to sum to 1), in the order in which scores are written.
        score_tokens: tokens from the lowest score to the highest, worth 1, 2, ...; each a single token.
        observation_tokens: tokens in which an observation is written, each a single token.
        num_observed: tokens of an observation; 0: the judge does not observe.
        engine: further vLLM engine arguments.
        dtype: dtype of the reward model.
        media_cache: folder that keeps what the tower makes of recordings, as `model.media_cache`.

    Raises:
        ConfigError: weights that cannot be normalised, or a score that the tokenizer splits.
    """

    def __init__(
        self,
        model_path: str,
        *,
        dimensions: Mapping[str, float],
        score_tokens: Sequence[str] = ("1", "2", "3", "4", "5"),
        observation_tokens: Sequence[str] = (),
        num_observed: int = 0,
        engine: Mapping[str, object] | None = None,
        dtype: str = "float32",
        media_cache: str | None = None,
    ):
        # The engine's modules import vLLM's world; a configuration that merely names a reward must not.
        from rlcore.engines.sampling import Sampling
        from rlcore.engines.vllm_engine import VLLMEngine
        from rlcore.models.families import family_of
        from rlcore.models.hf_model import (
            audio_token_id,
            load_config,
            load_processor,
            media_token_ids,
            tokenizer_of,
        )
        from rlcore.models.media import MediaEncoder

        self._weights = normalise_weights(dimensions)
        self.processor = load_processor(model_path)
        self._tokenizer = tokenizer_of(self.processor)
        self._score_ids = score_token_ids(self._tokenizer, score_tokens, length=len(self._weights))
        config = load_config(model_path)
        self._placeholder_id = audio_token_id(config)
        media_tokens = self._tokenizer.convert_ids_to_tokens(media_token_ids(config, self._tokenizer))
        self._reserved = (*special_tokens(self._tokenizer), *media_tokens)
        media = "embeds" if family_of(config).takes_audio_embeds else "raw"
        self._encoder = MediaEncoder(model_path, self.load_media, media=media, cache_folder=media_cache)
        self._engine = VLLMEngine(model_path, dtype=dtype, media=media, engine_args=engine)
        self._observation_ids = score_token_ids(self._tokenizer, observation_tokens, length=num_observed)
        self._num_observed = num_observed

        def row_of(token_ids: tuple[int, ...], length: int) -> Sampling:
            return Sampling(
                max_tokens=length,
                temperature=0.0,
                allowed_token_ids=token_ids,
                logprob_token_ids=token_ids,
            )

        self._sampling = row_of(self._score_ids, len(self._weights))
        self._observing = row_of(self._observation_ids, num_observed) if num_observed else None

    def observe_prompt(self, prompt: Prompt) -> str:
        """Returns the chat-formatted question about the prompt's media alone, with their placeholders."""
        raise NotImplementedError(f"{type(self).__name__} must define observe_prompt")

    def judge_prompt(self, prompt: Prompt, response: str, observed: Sequence[Sequence[float]]) -> str:
        """Returns the chat-formatted question about one response, with the placeholders of the prompt's
        media.

        Args:
            response: text in which no special token of the judge is left.
            observed: probabilities [num_observed, num_tokens] of the observation tokens.
        """
        raise NotImplementedError(f"{type(self).__name__} must define judge_prompt")

    def load_media(self, prompt: Prompt) -> Mapping[str, object]:
        """Returns arguments of the judge's processor beside `text`, as `Task.load_media` does."""
        raise NotImplementedError(f"{type(self).__name__} must define load_media")

    def score(self, group: Group, context: RewardContext) -> Sequence[Score]:
        return self.score_batch([group], context)[0]

    def score_batch(self, groups: Sequence[Group], context: RewardContext) -> list[list[Score]]:
        """Returns scores with `value` in [1 / highest, 1]; `parts` holds each dimension's expected score, 1
        to highest."""
        observed = self.observe([group.prompt for group in groups])
        rows = [self._requests(group, seen) for group, seen in zip(groups, observed, strict=True)]
        fitting = [request for row in rows for request in row if self._fits(request)]
        answers = iter(self._engine.generate(fitting, self._sampling))
        return [[self._score(request, answers) for request in row] for row in rows]

    def observe(self, prompts: Sequence[Prompt]) -> list[list[list[float]]]:
        """Returns each prompt's observation: probabilities [num_observed, num_tokens]."""
        from rlcore.engines.sampling import EngineRequest

        if self._observing is None:
            return [[] for _ in prompts]
        asked = [Prompt(id=p.id, text=self.observe_prompt(p), media=p.media) for p in prompts]
        requests = [
            EngineRequest(id=prompt.id, text=prompt.text, encoded=encoded)
            for prompt, encoded in zip(asked, self._encoder.encode(asked), strict=True)
        ]
        answers = self._engine.generate(requests, self._observing)
        if failed := [answer.finish_reason for (answer,) in answers if answer.has_failed]:
            raise RewardError(f"the judge's engine gave up observing, twice: {failed[0]}")
        return [token_odds(answer, self._observation_ids, self._num_observed) for (answer,) in answers]

    def _requests(self, group: Group, observed: Sequence[Sequence[float]]) -> list[EngineRequest]:
        from rlcore.engines.sampling import EngineRequest
        from rlcore.models.media import EncodedPrompt

        prompt = group.prompt
        bare = Prompt(id=prompt.id, text=self.judge_prompt(prompt, "", observed), media=prompt.media)
        shared = self._encoder.encode([bare])[0]
        requests = []
        for k, completion in enumerate(group.completions):
            text = self.judge_prompt(prompt, without_tokens(completion.text, self._reserved), observed)
            encoded = EncodedPrompt(
                prompt_token_ids=self._tokenise(text, shared.prompt_token_ids),
                media_inputs=shared.media_inputs,
                media=shared.media,
            )
            requests.append(EngineRequest(id=f"{prompt.id}#{k}", text=text, encoded=encoded))
        return requests

    def _tokenise(self, text: str, bare_token_ids: Sequence[int]) -> tuple[int, ...]:
        """Returns the tokens of `text`, in which each recording's placeholder is repeated as the processor
        repeated it in the bare question."""
        if self._placeholder_id is not None:
            placeholder = self._tokenizer.convert_ids_to_tokens(self._placeholder_id)
            is_placeholder = groupby(token == self._placeholder_id for token in bare_token_ids)
            runs = [placeholder * len(list(run)) for is_run, run in is_placeholder if is_run]
            # Placeholders side by side are one run, in the text as among the tokens.
            before, *after = re.split(f"(?:{re.escape(placeholder)})+", text)
            if after and len(after) != len(runs):
                raise ConfigError(
                    f"{type(self).__name__}.judge_prompt: {placeholder} stands at {len(after)} places about "
                    f"a response, at {len(runs)} about an empty one; the recordings must be the same"
                )
            text = before + "".join(run + rest for run, rest in zip(runs, after, strict=bool(after)))
        return tuple(tokens_of(self._tokenizer, text))

    def _fits(self, request: EngineRequest) -> bool:
        return len(request.encoded.prompt_token_ids) + len(self._weights) <= self._engine.max_model_len

    def _score(self, request: EngineRequest, answers: Iterator[Sequence[Completion]]) -> Score:
        if not self._fits(request):
            length = len(request.encoded.prompt_token_ids)
            room = self._engine.max_model_len - len(self._weights)
            return Score(value=0.0, error=f"the judge's prompt has {length} tokens, it takes {room}")
        (completion,) = next(answers)
        if completion.has_failed:
            return Score(value=0.0, error=f"the judge's engine gave up, twice: {completion.finish_reason}")
        scores = expected_scores(completion, self._score_ids, len(self._weights))
        parts = dict(zip(self._weights, scores, strict=True))
        highest = len(self._score_ids)
        return Score(value=sum(w * parts[name] for name, w in self._weights.items()) / highest, parts=parts)


def normalise_weights(dimensions: Mapping[str, float]) -> dict[str, float]:
    """Divides weights by their sum.

    Raises:
        ConfigError: there are none, one is negative, or their sum is 0.
    """
    total = sum(dimensions.values())
    if not dimensions or min(dimensions.values()) < 0 or not 0 < total < math.inf:
        raise ConfigError(f"weights: got {dict(dimensions)}; they must be >= 0, and one of them > 0")
    return {name: weight / total for name, weight in dimensions.items()}


def score_token_ids(
    tokenizer: PreTrainedTokenizerBase, score_tokens: Sequence[str], *, length: int = 2
) -> tuple[int, ...]:
    """Returns the id of each score token.

    Args:
        length: scores that are written in a row.

    Raises:
        ConfigError: a score is not a single token, or a row of scores is read as other tokens, so that a
            model trained on written scores would not have learnt these.
    """

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = []
    for token in score_tokens:
        encoded = encode(token)
        if len(encoded) != 1:
            raise ConfigError(
                f"score token {token!r} is {len(encoded)} tokens for this tokenizer; it must be one"
            )
        ids.append(int(encoded[0]))
    row = "".join([*score_tokens, *score_tokens[::-1]])
    if length > 1 and encode(row) != [*ids, *ids[::-1]]:
        raise ConfigError(f"the tokenizer merges neighbouring scores (it reads {row!r} as {encode(row)})")
    return tuple(ids)


def expected_scores(completion: Completion, score_ids: Sequence[int], num_dimensions: int) -> list[float]:
    """Computes the expected score at each position: sum_s s p(s) / sum_s p(s) over the score tokens, s = 1,
    2, ...

    Args:
        completion: an answer with `top_logprobs` [T] of every score token, T = num_dimensions.
    """
    rows = token_odds(completion, score_ids, num_dimensions)
    return [sum(value * p for value, p in enumerate(row, 1)) for row in rows]


def token_odds(completion: Completion, token_ids: Sequence[int], length: int) -> list[list[float]]:
    """Computes the probabilities [length, num_tokens] of the tokens at each position, over their sum."""
    top = completion.top_logprobs
    assert top is not None and len(top) == length, (completion.token_ids, length)
    rows = []
    for logprobs in top:
        highest = max(logprobs[token] for token in token_ids)
        odds = [math.exp(logprobs[token] - highest) for token in token_ids]
        rows.append([p / sum(odds) for p in odds])
    return rows


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Returns every token that a tokenizer reads as control, not as text. Tags are text, also where they are
    special (`rlcore.models.tokens.markup_ids`): a judge that is asked about a response sees them.

    `all_special_tokens` has only those with a role: in many chat models the begin of a turn has none.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tags = {tokenizer.added_tokens_decoder[token].content for token in markup_ids(tokenizer)}
    return (added | set(tokenizer.all_special_tokens)) - tags


def without_tokens(text: str, tokens: Iterable[str]) -> str:
    """Replaces every spelled-out token of `text` by a space, so that a response cannot end its turn, open
    another or claim media.

    Repeats this until none is left: taking one token out may join the halves of another.
    """
    tokens = sorted(filter(None, tokens), key=len, reverse=True)
    while any(token in text for token in tokens):
        for token in tokens:
            text = text.replace(token, " ")
    return text
