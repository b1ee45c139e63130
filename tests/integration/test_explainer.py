"""A replica of the service without Ray: measuring, tower and vLLM in this process. Its probabilities are
those of transformers, however they are come by."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from spoken import speech
from tiny_models import make_qwen2_5_omni, make_qwen2_audio, teach

from emotion_task.audio_window import trim_silence
from emotion_task.prompt import emotion_messages
from emotion_task.serve.ask import Ask
from emotion_task.serve.config import ServeConfig
from emotion_task.serve.explainer import Explainer
from emotion_task.serve.refused import Refused
from rlcore.models.chat_template import format_prompt
from rlcore.models.hf_model import load_model, load_processor

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]

LABELS = ("happy", "sad", "angry")
THINK = "the speaker has a high pitch and fast speech"


def wav(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


VOICE = speech(num_syllables=9).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_qwen2_audio(tmp_path_factory.mktemp("taught"))
    prompt = format_prompt(load_processor(str(folder)), emotion_messages(LABELS))
    answers = {
        i: f"<think>{THINK}</think><answer>{label}</answer>" for i, label in enumerate(("angry", "sad"))
    }
    return str(teach(folder, prompt, answers))


@pytest.fixture(scope="module")
def explainer(model: str) -> Explainer:
    return Explainer(model, ServeConfig(labels=LABELS, max_seconds=10.0, max_tokens=96), 0.0)


def expected(model: str, reasoning: str, firsts: bool) -> dict[str, float]:
    """The labels' probabilities by transformers' own forward, from the waveform: of their first tokens, or of
    whole labels."""
    network, processor = load_model(model), load_processor(model)
    prompt = format_prompt(processor, emotion_messages(LABELS))
    audio: dict[str, Any] = {"audio": [trim_silence(VOICE, 16000)[: 3 * 16000]], "sampling_rate": 16000}
    sums = []
    for label in LABELS:
        text = f"{prompt}<think>{reasoning}</think><answer>{label}</answer>"
        inputs = processor(text=text, return_tensors="pt", **audio)
        with torch.no_grad():
            logprobs = network(**inputs).logits[0, :-1].log_softmax(-1)
        ids = inputs["input_ids"][0, 1:]
        own = logprobs.gather(1, ids[:, None])[:, 0]
        num_end = len(processor.tokenizer.encode(f"{label}</answer>", add_special_tokens=False))
        sums.append(own[-num_end] if firsts else own[-num_end:].sum())
    return dict(zip(LABELS, torch.stack(sums).softmax(0).tolist(), strict=True))


def test_an_explanation_and_its_probabilities(explainer: Explainer, model: str) -> None:
    async def explain() -> list[dict[str, Any]]:
        ask = Ask(recording=wav(VOICE), gender="male")
        kept = await explainer.explain(ask)
        odds, ids = explainer._odds, explainer._odds.token_ids
        assert len(ids) == 3
        odds.token_ids = ()  # as where two labels begin alike
        scored = await explainer.explain(ask)
        odds.token_ids = ids
        return [kept, scored]

    kept, scored = asyncio.run(explain())
    assert kept["answer"] == scored["answer"] and kept["label"] in LABELS
    assert kept["probabilities"] == pytest.approx(expected(model, kept["reasoning"], True), abs=1e-4)
    assert scored["probabilities"] == pytest.approx(expected(model, kept["reasoning"], False), abs=1e-4)
    assert max(kept["probabilities"], key=kept["probabilities"].__getitem__) == kept["label"]
    assert kept["reasoning"] == THINK
    assert [(c["type"], c["value"], c["verdict"]) for c in kept["claims"]] == [
        ("pitch_level", "high", "unmeasured"),
        ("speed_level", "fast", "unmeasured"),
    ]
    assert kept["measured"]["duration_s"] == pytest.approx(len(VOICE) / 16000)
    assert kept["heard_s"] == pytest.approx(min(3.0, len(trim_silence(VOICE, 16000)) / 16000), abs=1e-3)


def test_many_at_once_each_gets_its_own(explainer: Explainer) -> None:
    voices = [speech(num_syllables=n).astype(np.float32) for n in range(5, 11)]

    async def explain() -> list[Any]:
        asks = [Ask(recording=wav(voice)) for voice in voices] + [Ask(recording=b"no sound")]
        together = await asyncio.gather(*map(explainer.explain, asks), return_exceptions=True)
        given_up = asyncio.create_task(explainer.explain(asks[0]))
        while not explainer._waiting:
            await asyncio.sleep(0.001)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        alone = [await explainer.explain(ask) for ask in asks[:2]]
        return [*together, *alone]

    *answers, refused, first, second = asyncio.run(explain())
    assert isinstance(refused, Refused) and refused.status == 415
    lengths = [round(answer["measured"]["duration_s"] * 16000) for answer in answers]
    assert lengths == list(map(len, voices))
    for together, alone in zip(answers, (first, second), strict=False):
        assert {**together, "seconds": 0, "probabilities": 0} == {**alone, "seconds": 0, "probabilities": 0}
        assert together["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)
    assert not explainer._media and not explainer._waiting and not list(Path(explainer._files.name).iterdir())
    assert explainer._loop.engine.num_unfinished == 0
    explainer.check()


def test_a_question_of_the_clients_own(explainer: Explainer) -> None:
    def chat(text: str) -> Ask:
        content = [{"type": "audio"}, {"type": "text", "text": text}]
        return Ask(
            recording=wav(VOICE),
            messages=[{"role": "user", "content": content}],
            sampling={"max_tokens": 5, "temperature": 1.0},
            seed=1,
        )

    async def explain() -> None:
        first, second = [await explainer.explain(chat("what is the pitch?")) for _ in range(2)]
        assert first["tokens"]["completion"] <= 5 and first["answer"] == second["answer"]
        with pytest.raises(Refused, match="tokens; the model takes"):
            await explainer.explain(chat("what is the pitch? " * 100))
        with pytest.raises(Refused, match="cannot read this request"):
            await explainer.explain(chat("<|AUDIO|>"))

    asyncio.run(explain())


def test_an_omni_folder_that_knows_nothing_yet(tmp_path: Path) -> None:
    """An answer outside the schema has no label; the measurement is there all the same."""
    explainer = Explainer(str(make_qwen2_5_omni(tmp_path / "omni")), ServeConfig(max_tokens=16), 0.0)
    answer = asyncio.run(explainer.explain(Ask(recording=wav(VOICE), curves=True)))
    assert answer["label"] is None and answer["probabilities"] is None and answer["claims"] == []
    assert answer["heard_s"] == pytest.approx(len(trim_silence(VOICE, 16000)) / 16000, abs=1e-3)
    assert answer["finish_reason"] == "length" and len(answer["curves"]["peaks"]) == 800
