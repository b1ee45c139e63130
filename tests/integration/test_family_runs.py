"""Each further family through the whole line, small: supervised fine-tuning, then reinforcement learning of
adapters, with every actor and a judge of the same family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion_task.config import SupervisedConfig
from emotion_task.corpora.synthetic import build_corpus
from emotion_task.cot.template import TemplateWriter
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.prosody.annotation import annotate
from emotion_task.records import read_manifest
from emotion_task.sft.examples import format_examples
from emotion_task.sft.job import run_supervised
from emotion_task.sft.mixing import mix
from emotion_task.sft.tasks import MixtureConfig
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    LoRAConfig,
    ModelConfig,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from rlcore.models.hf_model import load_model, load_processor
from rlcore.records.tracking import read_metrics
from rlcore.run import ray_session, train

pytestmark = [pytest.mark.integration, pytest.mark.families, pytest.mark.timeout(600)]

CLUSTER = ClusterConfig(num_cpus=2, placement_timeout_s=10)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("families")
    manifest = build_corpus(folder / "corpus", num_train=40, num_eval=8, seed=3, progress=False)
    annotate(manifest, folder / "annotated", num_workers=0, progress=False)
    with ray_session(CLUSTER):
        yield folder


@pytest.mark.parametrize(
    ("architecture", "media"), [("audio_flamingo3", "embeds"), ("glm_asr", "embeds"), ("qwen3_asr", "raw")]
)
def test_a_family_goes_through_the_line(workspace: Path, architecture: str, media: str) -> None:
    folder, manifest = workspace / architecture, workspace / "annotated" / "manifest.jsonl"
    base = str(folder / "base")
    build_tiny_model(base, tokenizer_corpus(), TinyModelConfig(architecture=architecture))
    utterances = [each for each in read_manifest(manifest) if each.split == "train"]
    mixture = MixtureConfig(weights={"energy": 0.5, "reasoning": 0.5}, seed=1)
    questions, _ = mix(utterances, mixture, TemplateWriter(), num_examples=16 * 8, num_validation=0)
    supervised = SupervisedConfig(
        num_steps=16, batch_size=8, learner=LearnerConfig(num_ranks=2, num_cpus=0.9, lr=3e-3)
    )
    model = run_supervised(
        format_examples(load_processor(base), questions), base, folder / "sft", supervised, seed=1, name="sft"
    )
    losses = [row["loss"] for row in read_metrics(folder / "sft")]
    assert losses[-1] < 0.8 * losses[0]

    engine = {"max_model_len": 256, "max_num_seqs": 32, "kv_cache_memory_bytes": 64 << 20}
    config = RunConfig(
        run_dir=str(folder / "rl"),
        seed=5,
        model=ModelConfig(path=str(model), media=media),
        task=TargetConfig(
            target="emotion_task.task:EmotionTask", args={"manifest": str(manifest), "model_path": str(model)}
        ),
        rollout=RolloutConfig(num_cpus=0.4, samples_per_prompt=3, max_tokens=16, engine=engine),
        rewards={
            "format": RewardConfig(target="emotion_task.rewards:FormatReward", num_cpus=0.05),
            # Its grades differ from the first step on, so that there is something to learn.
            "reasoning": RewardConfig(
                target="emotion_task.rewards:ReasoningReward",
                args={"model_path": base, "engine": engine},
                num_cpus=0.4,
            ),
        },
        algorithm=AlgorithmConfig(kl_coef=0.04),
        learner=LearnerConfig(num_ranks=2, num_cpus=0.3, lr=1e-2, lora=LoRAConfig(rank=4, alpha=16)),
        reference=ReferenceConfig(num_cpus=0.2),
        train=TrainConfig(num_steps=2, prompts_per_step=4, max_eval_prompts=4),
        cluster=CLUSTER,
    )
    summary = train(config)
    steps = read_metrics(config.run_dir)[1:]
    assert summary["steps"] == 2 and len(steps) == 2
    assert max(row["logprob_max_diff"] for row in steps) < 1e-4
    before, after = (load_model(path).state_dict() for path in (str(model), summary["model"]))
    moved = {name for name, tensor in before.items() if (tensor - after[name]).abs().max() > 0}
    assert moved and all("proj" in name and "audio_tower" not in name for name in moved)
