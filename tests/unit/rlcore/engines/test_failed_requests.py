"""Requests that vLLM ends unfinished: vLLM's side is scripted, ours is the engine's and the worker's own."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from vllm.exceptions import VLLMValidationError

from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.engines import vllm_engine
from rlcore.engines.engine_loop import EngineLoop
from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.engines.vllm_engine import EngineStats, VLLMEngine
from rlcore.errors import ConfigError
from rlcore.models.families import CAUSAL_LM
from rlcore.models.media import EncodedPrompt
from rlcore.records.timeline import Recorder
from rlcore.types import Prompt, RolloutJob

SAMPLING = Sampling(max_tokens=4, n=2)
ENCODED = EncodedPrompt(prompt_token_ids=(7, 8), media_inputs={}, media={})


class ScriptedVLLM:
    """Ends a request, at the step after it was added, with the reasons that come next for its key."""

    def __init__(self, reasons: dict[str, list[tuple[str | None, ...]]]) -> None:
        self.reasons, self.added, self.running = reasons, list[str](), list[str]()

    def add_request(self, key: str, prompt: object, params: object) -> None:
        self.added.append(key)
        self.running.append(key)

    def abort_request(self, keys: list[str]) -> None:
        self.running = [key for key in self.running if key not in keys]

    def step(self) -> list[SimpleNamespace]:
        running, self.running = self.running, []
        return [
            SimpleNamespace(
                request_id=key,
                finished=True,
                prompt_token_ids=[7, 8],
                prompt_logprobs=None,
                outputs=[sample(reason) for reason in self.reasons[key].pop(0)],
            )
            for key in running
        ]


def sample(reason: str | None) -> SimpleNamespace:
    """Returns vLLM's record of a sample, which has no token where it failed."""
    flat = SimpleNamespace(start_indices=[0, 1], end_indices=[1, 2], token_ids=[5, 6], logprobs=[-1.0, -2.0])
    is_whole = reason in ("stop", "length")
    return SimpleNamespace(
        token_ids=[5, 6] if is_whole else [],
        logprobs=flat if is_whole else None,
        text="",
        finish_reason=reason,
        weight_versions=None,
    )


def engine(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[str, list[tuple[str | None, ...]]]
) -> tuple[VLLMEngine, ScriptedVLLM]:
    monkeypatch.setattr(vllm_engine, "rendered", lambda llm, prompt: prompt)
    monkeypatch.setattr(vllm_engine, "sampling_params", lambda *_, **__: None)
    made, vllm = object.__new__(VLLMEngine), ScriptedVLLM(reasons)
    made._llm = SimpleNamespace(llm_engine=vllm)
    words = WordLevel({str(i): i for i in range(9)}, "0")
    made._tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
    made._running, made._retried, made._mixed, made._banned = {}, set(), "", ()
    made._rendering = threading.Lock()
    made._family, made._embeds, made._audio_id = CAUSAL_LM, True, None
    made.max_model_len, made.policy_version = 99, 3
    made.stats = EngineStats()
    return made, vllm


def ask(made: VLLMEngine, *keys: str) -> None:
    for key in keys:
        made.submit(key, EngineRequest(id=f"prompt {key}", text="", encoded=ENCODED), SAMPLING)


def test_a_request_that_failed_is_begun_anew_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, vllm = engine(
        monkeypatch, {"good": [("stop", "length")], "once": [("stop", "error"), ("stop", "stop")]}
    )
    ask(made, "good", "once")
    first = made.step()
    assert {key: [c.finish_reason for c in row] for key, row in first.items()} == {"good": ["stop", "length"]}
    assert made.num_unfinished == 1 and made.stats.completion_tokens == 4
    assert "prompt once: vLLM ended its generation by error; once more" in caplog.text
    second = made.step()["once"]
    assert [(c.finish_reason, c.token_ids, c.logprobs) for c in second] == [
        ("stop", (5, 6), (-1.0, -2.0))
    ] * 2
    assert vllm.added == ["good", "once", "once"] and made.num_unfinished == 0 and not made._retried


@pytest.mark.parametrize(("reason", "said"), [("error", "error"), ("abort", "abort"), (None, "unfinished")])
def test_one_that_fails_twice_comes_back_as_failed(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, said: str
) -> None:
    made, vllm = engine(monkeypatch, {"a": [(reason, "stop"), ("stop", reason), ("stop", "stop")]})
    ask(made, "a")
    assert made.step() == {}
    completions = made.step()["a"]
    assert [(c.finish_reason, c.has_failed, c.token_ids) for c in completions] == [
        ("stop", False, (5, 6)),
        (said, True, ()),
    ]
    assert vllm.added == ["a", "a"] and made.step() == {}


def test_a_key_that_is_used_again_has_its_own_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    made, vllm = engine(monkeypatch, {"a": [("error",), ("error",), ("stop",)]})
    ask(made, "a")
    made.step()
    made.cancel(["a"])
    ask(made, "a")
    assert made.step() == {}
    assert [c.finish_reason for c in made.step()["a"]] == ["stop"]
    assert vllm.added == ["a"] * 4 and not made._retried


def test_a_job_that_failed_has_no_group_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = engine(monkeypatch, {"0": [("stop", "stop")], "1": [("stop", "error"), ("abort", "stop")]})
    worker = object.__new__(RolloutWorker)
    worker._loop, worker._recorder = EngineLoop(lambda: made), Recorder()
    worker._encoder = SimpleNamespace(stalled_s=0.0)
    worker._jobs = {
        str(i): (RolloutJob(id=i, prompt=Prompt(id=str(i), text=""), draw=0), ENCODED, 1) for i in range(3)
    }
    worker._loop.post("2", None)  # over the context
    worker._loop.call(lambda made: ask(made, "0", "1")).result(10)
    finished = {
        job.id: job for _ in range(3) for job in worker.collect(5.0 if worker._jobs else 0.0).finished
    }
    assert {i: (job.group is None, job.failure) for i, job in finished.items()} == {
        0: (False, None),
        1: (True, "abort"),
        2: (True, None),
    }
    worker._loop.close()


def test_a_prompt_that_vllm_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of more tokens than its cache for embeddings holds, for instance."""
    made, vllm = engine(monkeypatch, {})

    def refuse(key: str, prompt: object, params: object) -> None:
        raise VLLMValidationError("video item with 9000 embedding tokens")

    monkeypatch.setattr(vllm, "add_request", refuse)
    with pytest.raises(ConfigError, match=r"refuses prompt film: video item .* \(max_num_batched_tokens is"):
        made.submit("key", EngineRequest(id="film", text="", encoded=ENCODED), SAMPLING)
    assert made.num_unfinished == 0
