"""Lets a model answer, and finish answers whose reasoning it is given, on vLLM.

    prompt + recording                      -> the model's own answer
    prompt + recording + forced reasoning   -> the label that it then writes
    the same + a label                      -> how likely that label was

Labels begin where tokens do: the forced text ends before the first token in which the labels differ, so that
no tokenization is forced on the model that it would not write itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from emotion_task.audio_window import model_waveform
from emotion_task.parsing import format_response, normalise_label, parse_response
from rlcore.models.tokens import left_to_write, opened_tag, tokens_of
from rlcore.types import Prompt

if TYPE_CHECKING:
    from rlcore.engines.sampling import EngineRequest, Sampling
    from rlcore.types import Completion

_ROOM = 32
"""Tokens that a label and its tags may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """A reasoning to be finished."""

    audio: str
    think: str
    conclusion: tuple[str, str] | None
    """What the reasoning's last sentence says before and after the label; None: the reasoning is closed."""
    label: str
    """Label whose probability is asked for."""

    def response(self, label: str) -> str:
        """Returns the whole answer with a label."""
        before, after = self.conclusion or ("", "")
        think = f"{self.think} {before} {label}{after}" if self.conclusion else self.think
        return format_response(think, label)

    @property
    def beginning(self) -> str:
        """Part of every `response` that comes before the label."""
        if self.conclusion:
            return f"<think>{self.think} {self.conclusion[0]}"
        return format_response(self.think, "").removesuffix("</answer>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Holds what a model makes of a reasoning."""

    label: str | None
    """Label that it writes; None where none can be read."""
    logprob: float
    """Log-probability, in nats, of `Forced.label` and all that follows it in the answer, from the first token
    in which labels differ."""


class Answerer:
    """Holds a model's engine, in an actor.

    Args:
        prompt: chat-formatted question, with one audio placeholder.
        labels: options of the question.
        max_tokens: longest answer of the model's own.
        dtype: number format of the weights.
        engine: further vLLM engine arguments.
    """

    def __init__(
        self,
        model_path: str,
        prompt: str,
        labels: Sequence[str],
        max_tokens: int,
        dtype: str,
        engine: Mapping[str, object],
    ):
        from rlcore.models.families import family_of
        from rlcore.models.hf_model import load_config, tokenizer_of
        from rlcore.models.media import MediaEncoder

        config = load_config(model_path)
        media = "embeds" if family_of(config).takes_audio_embeds else "raw"
        self._encoder = MediaEncoder(model_path, self._load, media=media)
        self._tokenizer = tokenizer_of(self._encoder.processor)
        self._prompt, self._labels, self._max_tokens = prompt, tuple(labels), max_tokens
        self._longest: int = config.get_text_config().max_position_embeddings
        self._build: Mapping[str, Any] = {"model_path": model_path, "dtype": dtype, "media": media}
        self._engine: Any = None
        self._engine_args = engine

    def answer(self, audio: Sequence[str]) -> list[str]:
        """Returns the model's own greedy answer to each recording."""
        from rlcore.engines.sampling import Sampling

        requests = self._requests([(path, self._prompt) for path in audio])
        completions = self._generate(requests, Sampling(max_tokens=self._max_tokens, temperature=0.0))
        return [opened_tag(self._prompt, each.text) + each.text for each in completions]

    def finish(self, forced: Sequence[Forced]) -> list[Finished]:
        """Returns what the model makes of each reasoning."""
        from rlcore.engines.sampling import Sampling

        begun = {(f.think, f.conclusion): self._begun(f) for f in forced}
        asked = self._requests([(f.audio, begun[f.think, f.conclusion][0]) for f in forced])
        wholes = [self._written(f.response(f.label)) for f in forced]
        scored = self._requests([(f.audio, text) for f, text in zip(forced, wholes, strict=True)])
        sampling = Sampling(max_tokens=_ROOM, temperature=0.0, stop=("</answer>",))
        written = self._generate(asked, sampling)
        scores = self._generate(scored, Sampling(max_tokens=1, temperature=0.0, scores_prompt=True))
        finished = []
        for each, whole, answer, score in zip(forced, wholes, written, scores, strict=True):
            text, num_shared = begun[each.think, each.conclusion]
            num_scored = len(self._tokens(whole)) - num_shared
            assert score.prompt_logprobs is not None
            response = opened_tag(self._prompt, "</think>") + text.removeprefix(self._prompt) + answer.text
            parsed = parse_response(response)
            label = None if parsed is None else normalise_label(parsed.answer, self._labels)
            finished.append(Finished(label=label, logprob=sum(score.prompt_logprobs[-num_scored:])))
        return finished

    def _written(self, answer: str) -> str:
        return self._prompt + left_to_write(self._prompt, answer)

    def _begun(self, forced: Forced) -> tuple[str, int]:
        """Returns the text from which the model goes on, and the number of tokens that the answers with each
        label share."""
        wholes = [self._tokens(self._written(forced.response(label))) for label in self._labels]
        same = takewhile(lambda column: len(set(column)) == 1, zip(*wholes, strict=False))
        shared = [column[0] for column in same]
        text = self._written(forced.beginning)
        while self._tokens(text) != shared[: len(self._tokens(text))]:
            text = text[:-1]
        return text, len(shared)

    def _tokens(self, text: str) -> list[int]:
        return tokens_of(self._tokenizer, text)

    def _requests(self, asked: Sequence[tuple[str, str]]) -> list[EngineRequest]:
        from rlcore.engines.sampling import EngineRequest

        prompts = [Prompt(id=audio, text=text, media={"audio": audio}) for audio, text in asked]
        return [
            EngineRequest(id=prompt.id, text=prompt.text, encoded=encoded)
            for prompt, encoded in zip(prompts, self._encoder.encode(prompts), strict=True)
        ]

    def _generate(self, requests: Sequence[EngineRequest], sampling: Sampling) -> list[Completion]:
        if self._engine is None:
            from rlcore.engines.vllm_engine import VLLMEngine

            # Room for an answer as long as it may be, and for the words that a rewriting adds.
            longest = max(len(request.encoded.prompt_token_ids) for request in requests)
            room = min(longest + 2 * self._max_tokens + _ROOM, self._longest)
            self._engine = VLLMEngine(**self._build, engine_args={**self._engine_args, "max_model_len": room})
        return [completion for (completion,) in self._engine.generate(requests, sampling)]

    def _load(self, prompt: Prompt) -> dict[str, Any]:
        extractor = self._encoder.processor.feature_extractor
        waveform = model_waveform(prompt.media["audio"], extractor)
        return {"audio": [waveform], "sampling_rate": int(extractor.sampling_rate)}
