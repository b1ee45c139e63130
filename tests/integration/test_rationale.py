"""A small model that was really trained to name what it claims, whatever it hears: its label moves with the
claims, and with nothing else. The log-probabilities are those of transformers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_models import tone

from emotion_task.audio_window import model_waveform
from emotion_task.claims.finder import find_claims
from emotion_task.cli import main
from emotion_task.cot import TemplateWriter
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.parsing import format_response
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.prompt import emotion_messages
from emotion_task.records import Utterance, write_manifest
from emotion_task.sft.encode import ExampleEncoder
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.chat_template import format_prompt
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.long]
LEVELS = {"gloat": "high", "sad": "low"}
"""A label of one's own, which the tokenizer does not know as a word."""
NUM_STEPS, BATCH_SIZE = 120, 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for index in range(24):
        audio = folder / f"{index}.wav"
        soundfile.write(audio, tone(index % 5, 0.5), 16000)
        emotion = list(LEVELS)[index % 2]
        split = "train" if index < 12 else "eval"
        level = LEVELS[emotion]
        rows.append(
            Utterance(id=str(index), audio=str(audio), emotion=emotion, split=split, energy_level=level)
        )
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def model(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(
        tmp_path_factory.mktemp("base"), tokenizer_corpus(), TinyModelConfig(encoder_layers=1)
    )
    model, processor = load_model(str(folder)), load_processor(str(folder))
    encoder = ExampleEncoder(str(folder), freeze=("audio_tower",), cache_bytes=1 << 20)
    prompt = format_prompt(processor, emotion_messages(sorted(LEVELS)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    rng, writer = random.Random(0), TemplateWriter()
    for _ in range(NUM_STEPS):
        batch = []
        for _ in range(BATCH_SIZE):
            label = rng.choice(sorted(LEVELS))
            think = " ".join(writer.describe({"energy_level": LEVELS[label]}, None, rng))
            audio = str(manifest.parent / f"{rng.randrange(12)}.wav")
            batch.append(encoder.encode_options(audio, prompt, [(format_response(think, label), True)]))
        scored = completion_logprobs(model, batch)
        (-scored.logprobs.sum() / scored.mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    trained = tmp_path_factory.mktemp("trained")
    save_checkpoint(model, trained, processor=processor)
    return trained


def test_a_label_that_rests_on_the_claims_moves_with_them(
    manifest: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--manifest", str(manifest), "--labels", *sorted(LEVELS), "--out", str(tmp_path)]
    assert main(["rationale", str(model), *arguments, "--max-tokens", "32"]) == 0
    assert "| claims swapped | 100.0 [100.0, 100.0] | 100.0 [100.0, 100.0] |" in capsys.readouterr().out
    report = json.loads((tmp_path / "rationale.json").read_text())
    moved = {form: each["value"] for form, each in report["moved"].items()}
    assert moved == {"own": 0, "paraphrased": 0, "claims": 1, "voice": 0, "both": 1}
    assert report["logprob"]["claims"]["high"] < -2 and abs(report["logprob"]["voice"]["value"]) < 1
    assert report["num_tested"] + sum(report["left_out"].values()) == report["num_utterances"] == 12

    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == report["num_tested"] > 0
    policy, processor = load_model(str(model)), load_processor(str(model))
    row = rows[0]
    audio = str(manifest.parent / f"{row['id']}.wav")
    for form in ("own", "paraphrased", "claims"):
        made = row["forms"][form]
        expected = answer_logprob(policy, processor, audio, begun(made), row["label"])
        assert made["logprob"] == pytest.approx(expected, abs=1e-3)
        energy = find_claims(begun(made))["energy_level"]
        assert energy == LEVELS[row["label"] if form != "claims" else row["donor_emotion"]]


def begun(made: dict[str, str]) -> str:
    return made["begun"].removeprefix("<think>").removesuffix("</think><answer>")


def answer_logprob(policy: torch.nn.Module, processor: object, audio: str, think: str, label: str) -> float:
    """The label's log-probability with what follows, by transformers, from where the two labels differ."""
    prompt = format_prompt(processor, emotion_messages(sorted(LEVELS)))
    waveform = model_waveform(audio, processor.feature_extractor)

    def inputs_of(name: str) -> dict[str, torch.Tensor]:
        text = prompt + format_response(think, name)
        return processor(text=text, audio=[waveform], sampling_rate=16000, return_tensors="pt")

    inputs, *others = [inputs_of(name) for name in (label, *sorted(LEVELS))]
    columns = zip(*[each["input_ids"][0].tolist() for each in others], strict=False)
    start = next(at for at, column in enumerate(columns) if len(set(column)) > 1)
    with torch.no_grad():
        logprobs = policy(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    return float(logprobs[start - 1 : -1].gather(-1, ids[start:, None]).sum())
