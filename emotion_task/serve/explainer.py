"""One replica: a recording in, an explanation out.

    recording -> measured (threads) -> heard by the tower (one thread) -> vLLM, with all other requests

The engine steps on its own thread for as long as there is work (`rlcore.engines.engine_loop`), so that
requests join and leave its batch at every token. This module knows neither HTTP nor Ray.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.audio_window import model_waveform
from emotion_task.explain import calibration_of
from emotion_task.labels import EMOTIONS, labels_beside
from emotion_task.parsing import Parsed, parse_response
from emotion_task.prompt import emotion_messages
from emotion_task.records import Utterance
from emotion_task.serve.ask import Ask
from emotion_task.serve.config import ServeConfig
from emotion_task.serve.explanation import explanation_of
from emotion_task.serve.label_odds import LabelOdds
from emotion_task.serve.recording import curves_of, measured_utterance
from emotion_task.serve.refused import MALFORMED, Refused
from rlcore.engines.engine_loop import EngineLoop
from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import Messages, format_prompt
from rlcore.models.families import family_of
from rlcore.models.hf_model import audio_token_id, load_config, tokenizer_of
from rlcore.models.media import EncodedPrompt, MediaEncoder
from rlcore.models.tokens import opened_tag
from rlcore.types import Completion, Prompt

_HANG_S = 120.0
"""Seconds without a token after which an engine counts as dead."""
_CHAT_ROOM = 256
"""Tokens that a client's own question may have more than the model's."""


class Explainer:
    """Holds a model's engine, and explains recordings, many at once.

    Raises:
        ConfigError, DataError: the model, its labels or its calibration cannot be used.
    """

    def __init__(self, model_path: str, config: ServeConfig, num_gpus: float):
        self._config = config
        self._labels = list(config.labels or labels_beside(model_path) or EMOTIONS)
        self._calibration = calibration_of(model_path, config.calibration)
        self._files = tempfile.TemporaryDirectory(prefix="emotion-serve-")
        self._numbers = itertools.count()
        self._media: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, asyncio.Future[Completion]] = {}
        self._error: BaseException | None = None
        hf_config = load_config(model_path)
        check_hears(model_path, audio_token_id(hf_config))
        media = "embeds" if family_of(hf_config).takes_audio_embeds else "raw"
        self._encoder = MediaEncoder(
            model_path, lambda prompt: self._media[prompt.id], media=media, cache_bytes=64 << 20
        )
        self._extractor = self._encoder.processor.feature_extractor
        self._tokenizer = tokenizer_of(self._encoder.processor)
        self._prompt = format_prompt(self._encoder.processor, emotion_messages(self._labels))
        self._odds = LabelOdds(self._tokenizer, self._prompt, self._labels)
        self._measuring = ThreadPoolExecutor(max(1, int(config.num_cpus)), "measuring")
        self._encoding = ThreadPoolExecutor(1, "encoding")
        longest = min(self._longest_prompt(), int(hf_config.get_text_config().max_position_embeddings))
        self._loop = EngineLoop(
            lambda: VLLMEngine(
                model_path,
                dtype=config.dtype or ("bfloat16" if num_gpus else "float32"),
                media=media,
                engine_args={"max_model_len": longest, **config.engine},
            )
        )
        threading.Thread(target=self._collect, name="collector", daemon=True).start()

    async def explain(self, ask: Ask) -> dict[str, Any]:
        """Explains a recording and returns what docs/guides/serve.md lists.

        Raises:
            Refused: the request cannot be answered.
        """
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        name = str(next(self._numbers))
        path = Path(self._files.name) / name
        try:
            read = loop.run_in_executor(self._measuring, self._read, path, ask)
            utterance, waveform, curves = await read
            measured_s = time.perf_counter() - start
            self._media[name] = {"audio": [waveform], "sampling_rate": int(self._extractor.sampling_rate)}
            prompt = self._prompt if ask.messages is None else self._chat(ask.messages)
            completion, num_prompt_tokens = await self._complete(name, prompt, ask)
            answer = opened_tag(prompt, completion.text) + completion.text
            parsed = parse_response(answer)
            odds = None if parsed is None else await self._probabilities(name, prompt, parsed, completion)
        finally:
            self._media.pop(name, None)
            path.unlink(missing_ok=True)
        return {
            **explanation_of(answer, odds, utterance, self._labels),
            "finish_reason": completion.finish_reason,
            "heard_s": round(len(waveform) / int(self._extractor.sampling_rate), 3),
            "tokens": {"prompt": num_prompt_tokens, "completion": len(completion.token_ids)},
            "seconds": {"measuring": round(measured_s, 4), "all": round(time.perf_counter() - start, 4)},
            **({"curves": curves} if curves else {}),
        }

    def check(self) -> None:
        """Raises where the engine is of no more use: it failed, or makes no token any more."""
        if self._error is not None:
            raise RuntimeError(f"the engine failed: {self._error}") from self._error
        if (stalled_s := self._loop.state().stalled_s) > _HANG_S:
            raise RuntimeError(f"the engine has made no step for {stalled_s:.0f} s")

    def _longest_prompt(self) -> int:
        """Returns the tokens of the longest recording's prompt and its answer; the tower is warm then."""
        rate = int(self._extractor.sampling_rate)
        noise = np.random.default_rng(0).standard_normal(int(self._config.max_seconds * rate)) / 10
        waveform = noise.astype(np.float32)[: int(getattr(self._extractor, "chunk_length", 1e9) * rate)]
        self._media["longest"] = {"audio": [waveform], "sampling_rate": rate}
        encoded = self._encode("longest", self._prompt)
        del self._media["longest"]
        return len(encoded.prompt_token_ids) + self._config.max_tokens + _CHAT_ROOM

    def _read(self, path: Path, ask: Ask) -> tuple[Utterance, np.ndarray, dict[str, Any] | None]:
        path.write_bytes(ask.recording)
        utterance = measured_utterance(
            path,
            text=ask.text,
            gender=ask.gender,
            calibration=self._calibration,
            max_seconds=self._config.max_seconds,
        )
        curves = asdict(curves_of(path, utterance.measured or {})) if ask.curves else None
        return utterance, model_waveform(path, self._extractor), curves

    def _chat(self, messages: Messages) -> str:
        try:
            return format_prompt(self._encoder.processor, messages)
        except ConfigError as error:
            raise Refused(MALFORMED, f"messages: {error}") from error

    def _encode(self, name: str, text: str) -> EncodedPrompt:
        (encoded,) = self._encoder.encode([Prompt(id=name, text=text, media={"audio": name})])
        return encoded

    async def _complete(self, name: str, prompt: str, ask: Ask) -> tuple[Completion, int]:
        loop = asyncio.get_running_loop()
        try:
            encoded = await loop.run_in_executor(self._encoding, self._encode, name, prompt)
        except DataError as error:
            raise Refused(MALFORMED, f"The model cannot read this request: {error}") from error
        num_tokens, longest = len(encoded.prompt_token_ids), self._loop.engine.max_model_len
        if num_tokens >= longest:
            raise Refused(
                MALFORMED, f"The prompt has {num_tokens} tokens; the model takes {longest} with its answer."
            )
        settings = {"max_tokens": self._config.max_tokens, "temperature": 0.0, **ask.sampling}
        sampling = Sampling(**settings, logprob_token_ids=self._odds.token_ids)
        request = EngineRequest(id=name, text=prompt, encoded=encoded, seed=ask.seed)
        return await self._generate(name, request, sampling), num_tokens

    async def _probabilities(
        self, name: str, prompt: str, parsed: Parsed, completion: Completion
    ) -> dict[str, float] | None:
        kept = self._odds.kept(completion)
        if kept is not None:
            return kept
        texts = self._odds.texts(prompt, parsed.think)
        loop = asyncio.get_running_loop()
        encode = [loop.run_in_executor(self._encoding, self._encode, name, text) for text, _ in texts]
        encoded = await asyncio.gather(*encode)
        if max(len(each.prompt_token_ids) for each in encoded) >= self._loop.engine.max_model_len:
            return None
        sampling = Sampling(max_tokens=1, temperature=0.0, scores_prompt=True)
        scored = await asyncio.gather(
            *(
                self._generate(f"{name}.{n}", EngineRequest(id=name, text=text, encoded=each), sampling)
                for n, ((text, _), each) in enumerate(zip(texts, encoded, strict=True))
            )
        )
        return self._odds.scored(scored, [num_own for _, num_own in texts])

    async def _generate(self, key: str, request: EngineRequest, sampling: Sampling) -> Completion:
        """Waits for the engine's answer; whoever stops waiting takes the request out of the engine."""
        loop = asyncio.get_running_loop()
        rendered = await loop.run_in_executor(self._encoding, self._loop.engine.render, request)
        future = self._waiting[key] = loop.create_future()
        try:
            submit = self._loop.call(lambda engine: engine.submit(key, request, sampling, rendered))
            await asyncio.shield(asyncio.wrap_future(submit))  # a call that is cancelled would end the loop
            completion = await future
        except BaseException:
            self._loop.call(lambda engine: engine.cancel([key]))
            raise
        finally:
            self._waiting.pop(key, None)
        if completion.has_failed:
            raise RuntimeError(f"vLLM gave up this request twice: {completion.finish_reason}")
        return completion

    def _collect(self) -> None:
        """Hands finished answers to those who wait, for as long as the engine works."""
        try:
            while True:
                for key, completions in self._loop.collect(1.0).items():
                    assert completions is not None, "nothing is posted here"
                    if (future := self._waiting.get(key)) is not None:
                        future.get_loop().call_soon_threadsafe(_settle, future, completions[0])
        except BaseException as error:  # of the engine: nobody who waits will be answered
            self._error = error
            for future in list(self._waiting.values()):
                future.get_loop().call_soon_threadsafe(_settle, future, RuntimeError(f"the engine: {error}"))


def _settle(future: asyncio.Future[Completion], result: Completion | RuntimeError) -> None:
    """Answers one who waits, unless that one has stopped waiting."""
    if future.done():
        return
    if isinstance(result, Completion):
        future.set_result(result)
    else:
        future.set_exception(result)


def check_hears(model_path: str, audio_id: int | None) -> None:
    """Refuses a model for text alone.

    Raises:
        ConfigError: names it.
    """
    if audio_id is None:
        raise ConfigError(f"{model_path}: a model for text alone, which hears nothing; name a speech model")
