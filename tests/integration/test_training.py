"""Everything for real on some seconds of synthetic speech: the supervised job, the loop with every actor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from emotion_task.config import SupervisedConfig
from emotion_task.corpora.synthetic import build_corpus
from emotion_task.cot.template import TemplateWriter
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.prosody.annotation import annotate
from emotion_task.records import read_manifest
from emotion_task.sft.encode import ExampleEncoder
from emotion_task.sft.examples import Example, format_examples
from emotion_task.sft.job import run_supervised
from emotion_task.sft.mixing import mix
from emotion_task.sft.tasks import MixtureConfig
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    ModelConfig,
    PTRConfig,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.engines.logprobs import completion_logprobs
from rlcore.errors import PlacementError, StoppedError
from rlcore.models.hf_model import load_model, load_processor
from rlcore.records.tracking import read_metrics
from rlcore.run import evaluate, ray_session, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

CLUSTER = ClusterConfig(num_cpus=2, placement_timeout_s=10)
MAX_STEPS = 3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with an annotated corpus and a model; Ray is up while the tests run."""
    folder = tmp_path_factory.mktemp("line")
    manifest = build_corpus(folder / "corpus", num_train=40, num_eval=12, seed=3, progress=False)
    annotate(manifest, folder / "annotated", num_workers=0, progress=False)
    build_tiny_model(folder / "base", tokenizer_corpus(), TinyModelConfig())
    # Published models have it so: transformers loads it, and refuses to save it.
    generation = folder / "base" / "generation_config.json"
    generation.write_text(json.dumps({**json.loads(generation.read_text()), "temperature": 0.6}))
    with ray_session(CLUSTER):
        yield folder


def _config(workspace: Path, name: str, **sections: object) -> RunConfig:
    base = str(workspace / "base")
    engine = {"max_model_len": 256, "max_num_seqs": 32, "kv_cache_memory_bytes": 64 << 20}
    args = {"manifest": str(workspace / "annotated" / "manifest.jsonl"), "model_path": base}
    rule = {"num_cpus": 0.05}
    config = RunConfig(
        run_dir=str(workspace / name),
        seed=5,
        model=ModelConfig(path=base),
        task=TargetConfig(target="emotion_task.task:EmotionTask", args=args),
        rollout=RolloutConfig(num_cpus=0.4, samples_per_prompt=3, max_tokens=16, engine=engine),
        rewards={
            "format": RewardConfig(target="emotion_task.rewards:FormatReward", weight=0.3, **rule),
            "outcome": RewardConfig(target="emotion_task.rewards:OutcomeReward", **rule),
            "reasoning": RewardConfig(
                target="emotion_task.rewards:ReasoningReward",
                args={"model_path": base, "engine": engine},
                weight=0.5,
                num_cpus=0.4,
            ),
        },
        algorithm=AlgorithmConfig(
            kl_coef=0.04, ptr=PTRConfig(outcome="outcome", reasoning="reasoning", schedule="constant")
        ),
        learner=LearnerConfig(num_ranks=2, num_cpus=0.3, lr=1e-3),
        reference=ReferenceConfig(num_cpus=0.2, sync_every=2, sync_weight=0.5),
        train=TrainConfig(num_steps=MAX_STEPS, prompts_per_step=4, checkpoint_every=1, max_eval_prompts=6),
        cluster=CLUSTER,
    )
    return replace(config, **sections)


def _samples(run_dir: str | Path, step: int, split: str = "train") -> list[dict]:
    rows = map(json.loads, (Path(run_dir) / "samples.jsonl").read_text().splitlines())
    return [row for row in rows if row["step"] == step and row["split"] == split]


def test_a_run_does_what_it_says_and_a_killed_one_resumes_as_if_it_had_not_been(workspace):
    whole = _config(workspace, "whole")
    summary = train(whole)

    assert summary["steps"] == MAX_STEPS and summary["stopped_by"] is None
    assert summary["rewards"]["reasoning"]["target"] == "emotion_task.rewards:ReasoningReward"
    assert len(summary["rewards"]["format"]["sha256"]) == 64
    rows = read_metrics(whole.run_dir)
    assert [row["step"] for row in rows] == list(range(MAX_STEPS + 1))
    steps = rows[1:]
    # Rollout and learner agree on the same tokens, and the reference is the policy that training starts from.
    assert max(row["logprob_max_diff"] for row in steps) < 1e-4
    assert steps[0]["kl"] < 1e-9 < steps[-1]["kl"]
    # One push before the first step, one after each; a completion carries the version that wrote it.
    assert [row["policy_version"] for row in steps] == [2, 3, 4]
    assert [row["media/encoded"] for row in steps] == [4, 4, 4]  # the prompts of a step, not their samples
    for step in range(1, MAX_STEPS + 1):
        samples = _samples(whole.run_dir, step)
        assert len(samples) == 4 * 3
        assert {sample["policy_version"] for sample in samples} == {step}
        assert len({sample["prompt"] for sample in samples}) == 4
        for sample in samples:
            parts = sample["scores"]["reasoning"]["parts"]
            assert set(parts) == {"factual", "interpretation", "completeness", "fluency", "structure"}
            assert all(1 <= grade <= 5 for grade in parts.values())
            expected = 0.3 * sample["scores"]["format"]["value"] + sample["scores"]["outcome"]["value"]
            expected += 0.5 * sample["scores"]["reasoning"]["value"]
            assert sample["reward"] == pytest.approx(expected, abs=1e-6)  # no right answers yet: tau is 1
    # The update moved the language model and left the frozen tower alone.
    before, after = load_model(whole.model.path), load_model(summary["model"])
    moved = {
        name: (parameter - dict(after.named_parameters())[name]).abs().max().item()
        for name, parameter in before.named_parameters()
    }
    assert all(change == 0 for name, change in moved.items() if "audio_tower" in name)
    assert moved["model.language_model.layers.0.self_attn.q_proj.weight"] > 0
    assert (Path(whole.run_dir) / "plots" / "rewards.png").stat().st_size > 1000
    _assert_same_generation_settings(summary["model"], whole.model.path)

    # What a kill leaves behind that comes after the last step's rows and before its checkpoint is whole.
    killed = _config(workspace, "killed")
    shutil.copytree(whole.run_dir, killed.run_dir)
    for written_later in (f"checkpoints/step_{MAX_STEPS:06d}", "model"):
        shutil.rmtree(Path(killed.run_dir) / written_later)
    (Path(killed.run_dir) / "summary.json").unlink()
    after = train(killed, resume=True)["after"]
    *kept, again = read_metrics(killed.run_dir)
    assert kept == rows[:-1] and again["step"] == MAX_STEPS  # the other steps were not done anew
    pairs = zip(*(_samples(config.run_dir, MAX_STEPS) for config in (killed, whole)), strict=True)
    for mine, uninterrupted in pairs:
        assert mine["prompt"] == uninterrupted["prompt"] and mine["text"] == uninterrupted["text"]
        assert mine["reward"] == pytest.approx(uninterrupted["reward"], abs=1e-5)
    assert again["kl"] == pytest.approx(rows[-1]["kl"], rel=1e-4)  # to the reference that moved after step 2
    assert after["reward/reasoning"] == pytest.approx(summary["after"]["reward/reasoning"], abs=1e-5)

    # An evaluation of the exported policy by a fresh engine is the evaluation that the run ended with.
    cheap = {name: whole.rewards[name] for name in ("format", "outcome")}
    exported = replace(whole.model, path=summary["model"])
    evaluate(replace(whole, model=exported, rewards=cheap, algorithm=AlgorithmConfig()))
    answers = [
        [(sample["prompt"], sample["text"]) for sample in _samples(folder, step, "eval")]
        for folder, step in ((whole.run_dir, MAX_STEPS), (Path(whole.run_dir) / "eval", 0))
    ]
    assert len(answers[0]) == 6 and answers[0] == answers[1]


def test_a_placement_that_does_not_fit_is_an_error_that_says_what_is_missing(workspace):
    greedy = _config(workspace, "greedy", learner=LearnerConfig(num_ranks=2, num_cpus=8))
    began = time.monotonic()
    with pytest.raises(PlacementError, match=r"2 x learner \(8 CPU.*\n.*cluster: 2 CPU"):
        train(greedy)
    assert time.monotonic() - began < 30


def test_a_disturbed_supervised_job_ends_like_one_that_was_left_alone(workspace):
    utterances = read_manifest(workspace / "annotated" / "manifest.jsonl")
    train_split = [utterance for utterance in utterances if utterance.split == "train"]
    config = SupervisedConfig(
        num_steps=16,
        batch_size=8,
        checkpoint_every=2,
        learner=LearnerConfig(num_ranks=2, num_cpus=0.9, lr=3e-3, lr_schedule="cosine"),
    )
    mixture = MixtureConfig(weights={"energy": 0.5, "reasoning": 0.5}, seed=1)
    questions, held_back = mix(train_split, mixture, TemplateWriter(), num_examples=16 * 8, num_validation=9)
    base = str(workspace / "base")
    processor = load_processor(base)
    examples, validation = format_examples(processor, questions), format_examples(processor, held_back)
    job = {"seed": 1, "name": "sft", "validation": validation}
    folder = workspace / "sft"
    threading.Thread(target=_kill_and_stop, args=(folder / "metrics.jsonl",), daemon=True).start()
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM after sft step \d+, with a checkpoint"):
        run_supervised(examples, base, folder, config, **job)
    assert not [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in p.name()]

    model = run_supervised(examples, base, folder, config, **job)

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 17))  # nothing lost, nothing twice
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    # The model is that of the checkpoint with the lowest loss on examples that no step saw.
    measured = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    assert list(measured) == list(range(2, 17, 2))
    assert _loss(str(model), validation) == pytest.approx(min(measured.values()), abs=1e-5)

    # Left alone, fed by Ray Data, and with room for two of the four ranks that it would like: the same to the
    # bit.
    alone = replace(config, min_ranks=1, ingest_cpus=0.1, learner=replace(config.learner, num_ranks=4))
    undisturbed = run_supervised(examples, base, workspace / "sft_alone", alone, **job)
    losses = [
        json.loads(x)["loss"] for x in (workspace / "sft_alone" / "metrics.jsonl").read_text().splitlines()
    ]
    print(f"final loss: disturbed {rows[-1]['loss']:.9f}, left alone {losses[-1]:.9f}")
    assert losses == [row["loss"] for row in rows]
    _assert_same_weights(undisturbed, model)
    _assert_same_generation_settings(model, base)
    # Checkpoints are the engine's state alone: the model is beside them.
    assert not list((folder / "train").glob("step_*/model"))


def _assert_same_generation_settings(one: str | Path, other: str | Path) -> None:
    texts = [(Path(each) / "generation_config.json").read_bytes() for each in (one, other)]
    assert texts[0] == texts[1] and b"0.6" in texts[0]


def _loss(model_path: str, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood a target token."""
    encoder = ExampleEncoder(model_path, cache_bytes=1 << 24)
    scored = completion_logprobs(load_model(model_path), [encoder.encode(example) for example in examples])
    return -float(scored.logprobs.sum() / scored.mask.sum())


def _assert_same_weights(one: Path, other: Path) -> None:
    expected = load_model(str(other)).state_dict()
    for name, tensor in load_model(str(one)).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def _kill_and_stop(metrics: Path) -> None:
    """Ends one rank, as the out-of-memory killer would, once it has done more than its last checkpoint; asks
    the restarted job to stop."""
    _wait_for_step(3, metrics)
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if "RayTrainWorker" in " ".join(process.cmdline())
    ]
    workers[-1].kill()
    _wait_for_step(5, metrics)  # long before the end, which must not come first
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_step(step: int, metrics: Path) -> None:
    deadline = time.monotonic() + 200
    while not (metrics.is_file() and f'"step": {step},' in metrics.read_text()):
        assert time.monotonic() < deadline, f"no step {step}"
        time.sleep(0.01)
