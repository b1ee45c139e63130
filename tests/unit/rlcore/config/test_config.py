from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from emotion_task.config import PipelineConfig
from rlcore.config import (
    AlgorithmConfig,
    LearnerConfig,
    PTRConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    WeightSyncConfig,
    load_config,
    save_config,
    to_yaml,
)
from rlcore.config.io import keys
from rlcore.config.precisions import precisions
from rlcore.errors import ConfigError
from rlcore.loop.prompts import PromptStream

CONFIGS = Path(__file__).resolve().parents[4] / "emotion_task" / "configs"

MINIMAL = """
model: {path: some/model}
task: {target: "my_task.task:Task"}
rewards:
  outcome: {target: "my_task.rewards:Outcome", weight: 1}
  brevity: {target: "my_rewards.brevity:Brevity", args: {limit: 80}, weight: 0.2, on_error: mask}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def write(folder: Path, text: str, name: str = "more.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_files_merge_left_to_right_and_overrides_win(minimal: Path, tmp_path: Path) -> None:
    more = write(tmp_path, "learner: {lr: 1e-5, betas: [0.8, 0.9]}\nrewards: {brevity: {weight: 0.5}}")
    config = load_config([minimal, more], ["learner.lr=3e-4", "rewards.brevity.args.limit=40", "seed=7"])
    assert config.learner.lr == 3e-4
    assert config.learner.betas == (0.8, 0.9)
    assert config.rewards["brevity"] == RewardConfig(
        target="my_rewards.brevity:Brevity", args={"limit": 40}, weight=0.5, on_error="mask"
    )
    assert list(config.rewards) == ["outcome", "brevity"]
    assert config.seed == 7
    assert config.rollout == RolloutConfig()


WEIGHTS = {"pitch": 0.1, "energy": 0.1, "rate": 0.1, "intonation": 0.1, "reasoning": 0.6}


@pytest.mark.parametrize(
    ("files", "overrides", "expected"),
    [
        ([], [], WEIGHTS),
        (["{pitch: 1}"], [], {"pitch": 1}),
        (["{pitch: 1, rate: 2}", "{age: 3}"], [], {"age": 3}),
        (["{pitch: 1}", "{}"], [], {}),
        (["{pitch: 1}"], ["sft.weights.rate=2"], {"pitch": 1, "rate": 2}),
        (["{pitch: 1}"], ["sft.weights[rate]=2"], {"pitch": 1, "rate": 2}),
        (["{pitch: 1}"], ["sft.weights={rate: 2}"], {"rate": 2}),
        (["{pitch: 1}"], ["sft={weights: {rate: 2}}", "sft.weights.age=3"], {"rate": 2, "age": 3}),
        ([], ["sft.weights.pitch=0.5"], {**WEIGHTS, "pitch": 0.5}),
        (["${cold_start.weights}", "{age: 3}"], ["cold_start.weights={rate: 2}"], {"age": 3}),
        (["${cold_start.weights}"], ["cold_start.weights={rate: 2}"], {"rate": 2}),
    ],
)
def test_a_mapping_of_values_is_what_the_last_layer_says(
    files: list[str], overrides: list[str], expected: dict[str, float], tmp_path: Path
) -> None:
    paths = [write(tmp_path, f"sft:\n  weights: {text}", f"{n}.yaml") for n, text in enumerate(files)]
    needed = ["rl.model.path=m", "rl.task.target=a:B"]
    weights = load_config(paths, [*needed, *overrides], PipelineConfig).sft.weights
    assert weights == expected and list(weights) == list(expected)


def test_values_within_a_mapping_of_sections(minimal: Path, tmp_path: Path) -> None:
    first = write(tmp_path, "rewards: {outcome: {resources: {a: 1, b: 1}, args: {x: 1}}}", "first.yaml")
    then = write(tmp_path, "rewards: {outcome: {resources: {c: 1}, args: {y: 2}}, new: {resources: {d: 1}}}")
    config = load_config([minimal, first, then], ["rewards.outcome.resources.e=2", "rewards.new.target=a:b"])
    assert config.rewards["outcome"].resources == {"c": 1, "e": 2}
    assert config.rewards["outcome"].args == {"x": 1, "y": 2}
    assert config.rewards["new"].resources == {"d": 1}


def test_one_form_takes_the_place_of_another(minimal: Path, tmp_path: Path) -> None:
    files = [
        write(tmp_path, f"rollout: {{structured: {{{form}: x}}}}", form) for form in ("regex", "grammar")
    ]
    config = load_config([minimal, *files], ["learner.recompute_logprobs=true"])
    assert config.rollout.structured == {"grammar": "x"}


def test_result_is_frozen_and_pickles(minimal: Path) -> None:
    config = load_config([minimal])
    with pytest.raises(FrozenInstanceError):
        config.rollout.num_replicas = 2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config


def test_saved_config_reads_back_equal(minimal: Path, tmp_path: Path) -> None:
    config = load_config([minimal], ["model.freeze=[audio]", "rollout.engine={max_model_len: 512}", "seed=3"])
    save_config(config, tmp_path / "run" / "config.yaml")
    assert load_config([tmp_path / "run" / "config.yaml"]) == config


def test_null_removes_a_reward(minimal: Path) -> None:
    assert list(load_config([minimal], ["rewards.brevity=null"]).rewards) == ["outcome"]


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("rollout.num_replica=2", "rollout.num_replicas"),
        ("algorithm.ptr.treshold=0.4", "algorithm.ptr.threshold"),
        ("rewards.brevity.weigth=1", "rewards.brevity.weight"),
        ("lerner.lr=1", "learner"),
        ("max_tokens=20", "rollout.max_tokens"),
    ],
)
def test_unknown_key_names_its_path_and_the_nearest(minimal: Path, override: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    key = override.split("=")[0].split(".")[0] if override.startswith("lerner") else override.split("=")[0]
    assert f"{key}: unknown key; did you mean {nearest}?" in str(error.value)
    assert repr(override) in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "rewards.brevty=null",
            "rewards.brevty: null takes an entry out, and there is none of this name; there",
        ),
        ("rewards={brevity: null, other: null}", "rewards.other: null takes an entry out"),
    ],
)
def test_a_null_that_takes_nothing_out_is_refused(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert message in str(error.value) and "outcome, brevity" in str(error.value)


def test_a_null_of_a_pipelines_reward_names_its_section() -> None:
    quickstart = CONFIGS / "quickstart.yaml"
    with pytest.raises(
        ConfigError, match=r"'rewards\.format=null': rewards: unknown key; did you mean rl\.rewards"
    ):
        load_config([quickstart], ["rewards.format=null"], PipelineConfig)
    with pytest.raises(
        ConfigError, match=r"rl\.rewards\.fromat: null takes an entry out.* there are format, "
    ):
        load_config([quickstart], ["rl.rewards.fromat=null"], PipelineConfig)
    assert "format" not in load_config([quickstart], ["rl.rewards.format=null"], PipelineConfig).rl.rewards


def test_a_file_of_another_command_is_told_by_its_sections(minimal: Path) -> None:
    """A pipeline's file given to `rlcore train`, and a run's to `emotion quickstart`."""
    quickstart = CONFIGS / "quickstart.yaml"
    with pytest.raises(ConfigError) as error:
        load_config([quickstart])
    said = str(error.value)
    assert said.startswith(
        f"{quickstart}: corpus, sft, reward_model, rl: unknown keys of one training run, as"
    )
    assert "known here: run_dir, seed, model, task, rollout, " in said and "`emotion quickstart`" in said
    with pytest.raises(
        ConfigError, match=r"a_t_1\.0\.yaml: rl: unknown keys of one training run.*emotion quickst"
    ):
        load_config([CONFIGS / "ablations" / "a_t_1.0.yaml"])
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [], PipelineConfig)
    said = str(error.value)
    assert said.startswith(
        f"{minimal}: model, task, rewards: unknown keys; they are keys of rl (one training run"
    )
    assert "as `rlcore train` reads it). Put them below rl, or give the file to the command" in said


def test_a_range_of_replicas_is_one_value(
    minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranged = write(tmp_path, "rollout: {num_replicas: {min: 2, max: 4}}")
    monkeypatch.setenv("REPLICAS", "3")
    words = {
        "rollout.num_replicas.max=8": (2, 8),
        "rollout.num_replicas=3": (3, 3),
        "rollout.num_replicas={min: 1, max: 1}": (1, 1),
        "rollout.num_replicas=${oc.env:REPLICAS}": (3, 3),
        "seed=1": (2, 4),
    }
    for word, bounds in words.items():
        config = load_config([minimal, ranged], [word])
        assert (config.rollout.min_replicas, config.rollout.max_replicas) == bounds, word
        again = tmp_path / "again.yaml"
        save_config(config, again)
        assert load_config([again]) == config


def test_unknown_key_in_a_file_names_the_file(minimal: Path, tmp_path: Path) -> None:
    more = write(tmp_path, "train: {num_step: 3}")
    with pytest.raises(ConfigError, match=r"more\.yaml: train\.num_step: .*train\.num_steps"):
        load_config([minimal, more])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.num_replicas=two", ["rollout.num_replicas", "two", "a whole number"]),
        ("rollout.num_replicas=1.5", ["rollout.num_replicas", "1.5", "a whole number"]),
        ("learner.lr=fast", ["learner.lr", "fast", "a number"]),
        ("learner.betas=[0.9]", ["learner.betas", "list of 2"]),
        ("rollout=3", ["rollout: got 3, must be a section of keys (num_replicas, "]),
        ("rewards=[a]", ["rewards: got ['a'], must be a mapping of names to sections"]),
        ("train.num_steps=null", ["train.num_steps: got null, must be a whole number"]),
    ],
)
def test_wrong_type_names_key_and_value(minimal: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "rollout.structured={regexp: a}",
            "rollout.structured: got {'regexp': 'a'}, must be empty, or one",
        ),
        ("seed=-1", "seed: got -1, must be at least 0 and at most 9223372036854775807"),
        ("seed=9223372036854775808", "seed: got 9223372036854775808, must be at least 0 and at most"),
        ("run_dir='~/runs/a'", "run_dir: got '~/runs/a', must be a path that begins with no ~: write the"),
        ("run_dir='~'", "run_dir: got '~', must be a path"),
        ("model.path='~/model'", "model.path: got '~/model', must be a path that begins with no ~"),
        ("model.media_cache='~/cache'", "model.media_cache: got '~/cache', must be a path that begins"),
        ("cluster.job.working_dir='~/x'", "cluster.job.working_dir: got '~/x', must be a path that begins"),
        ("cluster.job.storage='~/x'", "cluster.job.storage: got '~/x', must be an absolute path"),
        (
            "rollout.engine.max_model_len=4k",
            "rollout.engine.max_model_len: got '4k', must be a whole number,",
        ),
        ("rollout.engine.max_model_len=auto", "must be a whole number, at least 1, or null"),
        ("rollout.engine.kv_cache_memory_bytes=4G", "rollout.engine.kv_cache_memory_bytes: got '4G', must"),
        ("rollout.engine.tensor_parallel_size=0", "rollout.engine.tensor_parallel_size: got 0, must be a"),
        ("rollout.engine.tensor_parallel_size=-1", "rollout.engine.tensor_parallel_size: got -1, must be"),
        ("rollout.engine.tensor_parallel_size=null", "got null, must be a whole number, at least 1"),
        ("rollout.engine.pipeline_parallel_size=1.5", "rollout.engine.pipeline_parallel_size: got 1.5, mu"),
        ("rollout.engine.max_num_seqs=0", "rollout.engine.max_num_seqs: got 0, must be a whole number"),
        ("rollout.engine.max_num_batched_tokens=.inf", "max_num_batched_tokens: got inf, must be a whole"),
        (
            "rollout.engine.gpu_memory_utilization=high",
            "gpu_memory_utilization: got 'high', must be a number",
        ),
        ("rollout.engine.gpu_memory_utilization=-1", "gpu_memory_utilization: got -1, must be a number abo"),
        ("rollout.engine.gpu_memory_utilization=2", "got 2, must be a number above 0 and at most 1"),
        ("rollout.num_replicas=0", "rollout.num_replicas: got 0, must be at least 1"),
        ("rollout.num_replicas=true", "rollout.num_replicas: got True, must be a whole number, or {min: 1,"),
        ("rollout.num_replicas={min: 2}", "rollout.num_replicas: got {'min': 2}, must be a whole number, or"),
        ("rollout.num_replicas={min: 0, max: 2}", "rollout.num_replicas.min: got 0, must be at least 1"),
        ("rollout.num_replicas={min: 3, max: 2}", "max: got 2, must be at least num_replicas.min (3)"),
        ("rollout.num_replicas={min: 1, max: many}", "num_replicas.max: got 'many', must be a whole number"),
        (
            "rollout.structured={regex: a}",
            "rollout.structured: got {'regex': 'a'}, must be empty unless",
        ),
        ("algorithm.step_discount=2", "algorithm.step_discount: got 2.0, must be between 0 and 1"),
        ("rollout.temperature=0.001", "rollout.temperature: got 0.001, must be at least 0.01"),
        ("rollout.timeout_s=.inf", "rollout.timeout_s: got inf, must be a finite number"),
        ("algorithm.std_eps=.inf", "algorithm.std_eps: got inf, must be a finite number"),
        ("algorithm.kl_coef=.nan", "algorithm.kl_coef: got nan, must be at least 0"),
        ("train.oversample=1e6", "train.oversample: got 1000000.0, must be at least 0 and at most 10"),
        ("rollout.stop=['']", "rollout.stop: got [''], must be texts of a character or more"),
        (
            "rollout.environment.target=tools",
            "rollout.environment.target: got 'tools', must be null, or a cl",
        ),
        ("rollout.environment.max_turns=0", "rollout.environment.max_turns: got 0, must be at least 1"),
        ("rollout.environment.max_turn_tokens=0", "environment.max_turn_tokens: got 0, must be at least 1"),
        ("rollout.environment.timeout_s=0", "rollout.environment.timeout_s: got 0.0, must be above 0"),
        ("rollout.environment.on_error=''", "rollout.environment.on_error: got '', must be mask, abort or"),
        (
            "rollout={structured: {regex: a}, environment: {target: 'a:B'}}",
            "rollout.structured: got {'regex': 'a'}, must be empty with rollout.environment",
        ),
        ("rollout.top_p=0", "rollout.top_p: got 0.0, must be above 0 and at most 1"),
        ("rollout.samples_per_prompt=1", "rollout.samples_per_prompt: got 1, must be at least 2"),
        ("learner.ranks_per_node=2", "learner.ranks_per_node: got 2, must be a divisor of num_ranks (1), or"),
        ("rollout.resources.gpu_kind=0", "rollout.resources.gpu_kind: got 0.0, must be above 0"),
        ("learner.zero_stage=4", "learner.zero_stage: got 4, must be one of 0, 1, 2, 3"),
        ("learner.offload_optimizer=disk", "learner.offload_optimizer: got 'disk', must be one of none, cpu"),
        (
            "learner.offload_parameters=cpu",
            "learner.offload_parameters: got 'cpu', must be none below zero_stage 3 (it is 2)",
        ),
        ("learner.over_budget=cut", "learner.over_budget: got 'cut', must be one of error, drop"),
        (
            "learner.lora.push=adapters",
            "learner.lora.push: got 'adapters', must be merged unless learner",
        ),
        (
            "reference.num_replicas=0",
            "reference.num_replicas: got 0, must be at least 1; 0 is the learner without its adapters",
        ),
        ("learner.lora.dropout=1", "learner.lora.dropout: got 1.0, must be at least 0 and below 1"),
        ("learner.betas=[0.9, 1.5]", "learner.betas: got (0.9, 1.5)"),
        ("model.dtype=float16", "model.dtype: got 'float16', must be one of float32, bfloat16"),
        (
            "learner.precision=bfloat16",
            "learner.precision: got 'bfloat16', must be one of float32, autocast, bf16",
        ),
        (
            "rewards.brevity.on_error=ignore",
            "rewards.brevity.on_error: got 'ignore', must be abort, mask or a",
        ),
        (
            "rewards.brevity.target='my rewards:Brevity'",
            "rewards.brevity.target: got 'my rewards:Brevity', must be package.module:Class, package.",
        ),
        ("rewards.brevity.batch_size=0", "rewards.brevity.batch_size: got 0, must be at least 1"),
        ("rewards.brevity.cache=disk", "rewards.brevity.cache: got 'disk', must be one of none, group, comp"),
        ("rewards.brevity.resources.rack=0", "rewards.brevity.resources.rack: got 0.0, must be above 0"),
        ("rewards.brevity.num_cpus=0", "rewards.brevity.num_cpus: got 0.0, must be above 0 where neither"),
        ("task.target=task", "task.target: got 'task', must be a class as package.module:Class"),
        ("algorithm.clip_low=2", "algorithm.clip_low: got 2.0, must be between 0 and 1"),
        ("algorithm.advantage=gae", "algorithm.advantage: got 'gae', must be one of grpo, dr_grpo, rloo,"),
        ("algorithm.loss=dpo", "algorithm.loss: got 'dpo', must be one of ppo, gspo, cispo"),
        ("algorithm.clip_dual=0.5", "algorithm.clip_dual: got 0.5, must be above 1, or null"),
        ("algorithm={clip_dual: 3, loss: gspo}", "algorithm.clip_dual: got 3.0, must be null where"),
        ("algorithm.kl_cov=-1", "algorithm.kl_cov: got -1.0, must be at least 0 and at most 1"),
        ("algorithm.kl_cov_coef=.inf", "algorithm.kl_cov_coef: got inf, must be a finite number"),
        ("algorithm.clip_cov=2", "algorithm.clip_cov: got 2.0, must be at least 0 and at most 1"),
        ("algorithm.clip_cov_bounds=[5, 1]", "algorithm.clip_cov_bounds: got (5.0, 1.0), must be a lower"),
        ("algorithm.gate=[1, 0]", "algorithm.gate: got (1.0, 0.0), must be two finite numbers above 0"),
        ("algorithm.pass_k=0", "algorithm.pass_k: got 0, must be at least 1"),
        (
            "algorithm={advantage: pass_at_k, pass_k: 8}",
            "algorithm.pass_k: got 8, must be below rollout.samples_per_prompt (8)",
        ),
        ("algorithm={advantage: gdpo, kl_in: reward}", "algorithm.kl_in: got 'reward', must be loss where"),
        ("algorithm={advantage: gdpo, overlong_buffer: 4}", "algorithm.overlong_buffer: got 4, must be 0"),
        ("algorithm.off_policy_threshold=0", "algorithm.off_policy_threshold: got 0.0, must be above 0"),
        ("algorithm.kl_estimator=k4", "algorithm.kl_estimator: got 'k4', must be one of k1, k2, k3"),
        ("algorithm.kl_in=both", "algorithm.kl_in: got 'both', must be one of loss, reward"),
        ("algorithm.loss_aggregation=mean", "must be one of token, sequence, constant"),
        ("algorithm.correction=clip", "algorithm.correction: got 'clip', must be one of none, tis, icepop,"),
        ("algorithm.correction=tis", "must be none unless learner.recompute_logprobs is true"),
        ("algorithm.correction_low=2", "algorithm.correction_low: got 2.0, must be below 2.0"),
        ("algorithm.overlong_buffer=999", "algorithm.overlong_buffer: got 999, must be at most rollout.max_"),
        ("algorithm.ptr.schedule=never", "algorithm.ptr.schedule: got 'never', must be one of progressive,"),
        ("algorithm.ptr.anneal_steps=0", "algorithm.ptr.anneal_steps: got 0.0, must be above 0"),
        ("algorithm.ptr.outcome=right", "algorithm.ptr.outcome: got 'right', must be the name of a reward"),
        ("train.eval_every=-1", "train.eval_every: got -1, must be at least 0"),
        ("cluster.job.address=ray://head:10001", "cluster.job.address: got 'ray://head:10001', must be the"),
        (
            "cluster.job.secrets.HF_TOKEN=hf_abc",
            "cluster.job.secrets.HF_TOKEN: must be one of submitter, cluster, n",
        ),
        ("cluster.placement_timeout_s=0", "cluster.placement_timeout_s: got 0.0, must be above 0"),
    ],
)
def test_value_out_of_range_names_the_full_path(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert message in str(error.value)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_is_one_of_numpy_and_torch(minimal: Path, seed: int) -> None:
    config = load_config([minimal], [f"seed={seed}", "run_dir=runs/~a"])
    assert (config.seed, config.run_dir) == (seed, "runs/~a")
    stream = PromptStream(num_prompts=5, per_step=5, seed=config.seed)
    assert sorted(stream.indices(0)) == [0, 1, 2, 3, 4]
    torch.Generator().manual_seed(config.seed)


def test_a_pipelines_seed_and_folder_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^seed: got -1"):
        PipelineConfig(seed=-1)
    with pytest.raises(ConfigError, match=r"^run_dir: got '~/q'"):
        PipelineConfig(run_dir="~/q")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.num_replicas=2"], "rollout.num_replicas: got 2, must be learner.num_ranks (1) with"),
        (["rollout.num_replicas={min: 1, max: 2}"], "must be learner.num_ranks (1) with cluster.colocate"),
        (["train.staleness=1"], "train.staleness: got 1, must be 0 with cluster.colocate"),
        (["weight_sync.backend=nccl", "rollout.num_gpus=0.4", "learner.num_gpus=0.4"], "got 'nccl', must be"),
        (["rollout.num_gpus=0.6", "learner.num_gpus=0.5"], "rollout.num_gpus: got 0.6, must be at most 1 - "),
        (
            ["rollout.engine={tensor_parallel_size: 2}"],
            "rollout.engine: got {'tensor_parallel_size': 2}, must",
        ),
    ],
)
def test_what_cannot_share_a_gpu_is_refused(minimal: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], ["cluster.colocate=true", *overrides])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "recomputing",
    ["learner.recompute_logprobs=true", "learner.updates_per_batch=2", "learner.num_mini_batches=2"],
)
def test_old_tokens_are_weighted_where_the_ratio_does_not(minimal: Path, recomputing: str) -> None:
    ahead = ["train.staleness=1", recomputing]
    for unweighted in ("none", "geometric_mask"):
        with pytest.raises(
            ConfigError, match=f"got '{unweighted}', must be one of tis, icepop, sequence_tis"
        ):
            load_config([minimal], [*ahead, f"algorithm.correction={unweighted}"])
    load_config([minimal], [*ahead, "algorithm.correction=tis"])
    load_config([minimal], ["train.staleness=1"])
    load_config([minimal], [recomputing])


def test_rewards_that_all_weigh_nothing_are_refused(minimal: Path) -> None:
    load_config([minimal], ["rewards.brevity.weight=0"])
    with pytest.raises(
        ConfigError, match=r"rewards: got \{.*\}, must be weights of which one at least is not 0"
    ):
        load_config([minimal], ["rewards.brevity.weight=0", "rewards.outcome.weight=0"])


def test_classes_validate_when_built_directly() -> None:
    with pytest.raises(ConfigError, match="zero_stage"):
        LearnerConfig(zero_stage=5)
    with pytest.raises(ConfigError, match="window"):
        replace(PTRConfig(), window=2)


def test_missing_values_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.path, task\.target: no value given"):
        load_config([])


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "seed: 1\nseed: 2"])
def test_broken_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config([write(tmp_path, text, "broken.yaml")])


def test_missing_file_and_malformed_override(minimal: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config([tmp_path / "none.yaml"])
    with pytest.raises(ConfigError, match="key=value"):
        load_config([minimal], ["seed"])


def test_values_refer_to_each_other(minimal: Path) -> None:
    config = load_config([minimal], ["run_dir=runs/x", "model.path=${run_dir}/sft"])
    assert config.model.path == "runs/x/sft"
    with pytest.raises(ConfigError, match="nowhere"):
        load_config([minimal], ["model.path=${nowhere}"])


def test_environment_is_read_and_never_saved(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret-value")
    overrides = [
        "rewards.outcome.args.key=${oc.env:JUDGE_KEY}",
        "rewards.outcome.args.header=Bearer ${rewards.outcome.args.key}",
    ]
    config = load_config([minimal], overrides)
    assert config.rewards["outcome"].args == {"key": "s3cret-value", "header": "Bearer s3cret-value"}
    sent = pickle.loads(pickle.dumps(config))
    assert sent == config
    for each in (config, sent):
        assert "s3cret" not in to_yaml(each) and "s3cret" not in repr(each)
        assert "key: ${oc.env:JUDGE_KEY}" in to_yaml(each)
        assert "header: Bearer ${oc.env:JUDGE_KEY}" in to_yaml(each)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env: KEY}",
        "${oc.env:KEY }",
        "${ oc.env:KEY}",
        "${oc.env:'KEY'}",
        '${oc.env:"KEY"}',
        "${oc.env:KEY,x}",
        "${oc.env:UNSET,${oc.env:KEY}}",
        "${oc.env:${oc.env:WHICH}}",
        "${model.path}",
    ],
)
def test_the_environment_is_never_saved_however_it_is_asked_for(
    minimal: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "s3cret")
    monkeypatch.setenv("WHICH", "KEY")
    layer = {"model": {"path": "${oc.env: KEY}"}, "rewards": {"outcome": {"args": {"keys": [text]}}}}
    config = load_config([minimal, write(tmp_path, yaml.safe_dump(layer))])
    assert config.rewards["outcome"].args["keys"] == ["s3cret"]
    assert yaml.safe_load(to_yaml(config))["rewards"]["outcome"]["args"]["keys"] == ["${oc.env:KEY}"]
    save_config(config, tmp_path / "config.yaml")
    assert load_config([tmp_path / "config.yaml"]) == config


def test_each_string_keeps_its_own_source(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where variables have the same value, or one's is a part of another's or of what is no secret."""
    for name, value in {"A": "key", "B": "key", "LONG": "key2"}.items():
        monkeypatch.setenv(name, value)
    args = "{a: '${oc.env:A}', b: '${oc.env:B}', both: '${oc.env:LONG} ${oc.env:A}', c: '${seed}key'}"
    config = load_config([minimal], [f"rewards.outcome.args={args}", "seed=5"])
    assert yaml.safe_load(to_yaml(config))["rewards"]["outcome"]["args"] == {
        "a": "${oc.env:A}",
        "b": "${oc.env:B}",
        "both": "${oc.env:LONG} ${oc.env:A}",
        "c": "5key",
    }


def test_unset_environment_variable_is_named(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET"):
        load_config([minimal], ["run_dir=${oc.env:NOT_SET}"])


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    folder: str = "data"
    speakers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LineConfig:
    corpus: CorpusConfig | None = None
    rl: RunConfig = field(default_factory=lambda: RunConfig(seed=5, rollout=RolloutConfig(max_tokens=64)))


@pytest.mark.parametrize(
    "text", ["0123", "on", "1e5", "12e4567", "2024-01-01", "1_000", "1.10", ".inf", "true"]
)
def test_text_stays_as_it_is_written(
    minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WRITTEN", text)
    file = tmp_path / "text.yaml"
    file.write_text(
        f"run_dir: {text}\n"
        f"rewards: {{brevity: {{runtime_env: {{env_vars: {{A: {text}}}, pip: [{text}]}}}}}}\n"
        f"cluster:\n  job:\n    pip: [{text}]\n    env_vars: &both\n      A: {text}\n"
        f"      B: ${{oc.env:WRITTEN}}\n    metadata:\n      <<: *both\n    storage:\n"
    )
    over = [f"cluster.job.env_vars.C={text}", "cluster.job.env_vars.D=${oc.env:WRITTEN}"]
    over += [f"rewards.brevity.runtime_env.env_vars.B={text}"]
    config = load_config([minimal, file], over)
    job = config.cluster.job
    assert (config.run_dir, job.pip, job.storage) == (text, (text,), None)
    assert (dict(job.env_vars), dict(job.metadata)) == (
        dict.fromkeys("ABCD", text),
        dict.fromkeys("AB", text),
    )
    assert config.rewards["brevity"].runtime_env["env_vars"] == {"A": text, "B": text}


def test_text_of_another_form_is_text_in_an_override_and_refused_in_a_file(
    minimal: Path, tmp_path: Path
) -> None:
    over = ["cluster.job.metadata.A=a: b", 'cluster.job.metadata.B={"a": 1}', "cluster.job.metadata.C=[x]"]
    assert dict(load_config([minimal], over).cluster.job.metadata) == {
        "A": "a: b",
        "B": '{"a": 1}',
        "C": "[x]",
    }
    file = tmp_path / "form.yaml"
    file.write_text("cluster: {job: {metadata: {A: {b: c}}}}")
    with pytest.raises(ConfigError, match=r"cluster\.job\.metadata\.A: got \{'b': 'c'\}, must be text"):
        load_config([minimal, file], [])


@pytest.mark.parametrize("value", [1, None, True, ["a"]])
def test_a_variable_of_a_reward_is_text(value: object) -> None:
    with pytest.raises(ConfigError, match=r"runtime_env\.env_vars\.A: got .*, must be text, in quotes"):
        RewardConfig(target="a:b", runtime_env={"env_vars": {"A": value}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null: 3", r"odd\.yaml: got the key None; a key is text"),
        ("rewards: {brevity: {args: {~: 1}}}", r"odd\.yaml: rewards\.brevity\.args: got the key None"),
        ("run_dir: ${oops", r"odd\.yaml: run_dir: .*'\$\{oops'; a reference is written \$\{key\}"),
        ("train: ${run_dir}", "^train: a reference must lead to a section of the same form$"),
        ("rewards: {more: '${run_dir}'}", r"^rewards\.more: a reference must lead to"),
        ("learner: {resources: '${run_dir}'}", r"^learner\.resources: a reference must lead to"),
        ("train: ${cluster.job.storage}", "^train: a reference must lead to"),
    ],
)
def test_odd_keys_and_references_are_sentences(
    minimal: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        load_config([minimal, file], [])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rewards=${task}", "rewards: a reference must lead to a section of the same form"),
        ("rewards.a=${task}", "rewards.a: a reference must lead to a section of the same form"),
        ("algorithm.ptr=${model}", "algorithm.ptr: a reference must lead to a section of the same form"),
        ("rollout.resources=${task}", "rollout.resources.target: what it refers to must be a number"),
        ("seed=${task}", "seed: what it refers to must be a whole number"),
        ("model.path=${task}", "model.path: what it refers to must be text"),
        ("rewards.brevity.weight=${model.path}", "rewards.brevity.weight: what it refers to must be a num"),
    ],
)
def test_a_reference_to_another_form_is_named_by_its_place(
    minimal: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "key",
    [
        ".train.num_steps",
        "train..num_steps",
        "train.",
        "..",
        ".",
        "train.num_steps.",
        "[]",
        "rewards..target",
    ],
)
def test_a_key_without_a_name_is_shown_as_it_is(minimal: Path, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [f"{key}=3"])
    assert str(error.value).startswith(f"override '{key}=3': the key '{key}' lacks a name beside a dot")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'': 3}", "more.yaml: '': unknown key"),
        ("{'': {a: 1}}", "more.yaml: '': unknown keys of one training run"),
        ("train: {' ': 3}", "more.yaml: train.' ': unknown key"),
        ("rewards: {'': {target: 'a:b'}}", "more.yaml: rewards: name of an entry: got '', must be text of"),
    ],
)
def test_a_blank_key_of_a_file_is_shown(minimal: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([minimal, write(tmp_path, text)])
    assert message in str(error.value)


def test_loader_serves_any_frozen_schema(tmp_path: Path) -> None:
    path = write(tmp_path, "corpus: {speakers: [a, b]}\nrl: {model: {path: m}, task: {target: 'a.b:C'}}")
    config = load_config([path], ["rl.rollout.num_replicas=2", "corpus.options.x.y=1"], LineConfig)
    assert config.corpus == CorpusConfig(speakers=("a", "b"), options={"x": {"y": 1}})
    assert (config.rl.seed, config.rl.rollout.max_tokens, config.rl.rollout.num_replicas) == (5, 64, 2)
    with pytest.raises(ConfigError, match=r"rl\.learner\.zero_stage: got 9"):
        load_config([path], ["rl.learner.zero_stage=9"], LineConfig)
    with pytest.raises(ConfigError, match=r"corpus\.speaker: unknown key; did you mean corpus\.speakers"):
        load_config([path], ["corpus.speaker=x"], LineConfig)


def test_keys_are_these() -> None:
    """Adding a key is a decision: it is added here too."""
    assert keys(RunConfig) == EXPECTED_KEYS.split()


EXPECTED_KEYS = """
run_dir
seed
model.path model.dtype model.head_dtype model.freeze model.media model.media_cache
task.target task.args
rollout.num_replicas rollout.num_cpus rollout.num_gpus rollout.resources rollout.samples_per_prompt
rollout.max_tokens rollout.temperature rollout.top_p rollout.stop rollout.banned_tokens
rollout.structured rollout.engine rollout.environment.target rollout.environment.args
rollout.environment.max_turns rollout.environment.max_turn_tokens
rollout.environment.max_observation_tokens rollout.environment.num_workers rollout.environment.timeout_s
rollout.environment.on_error
rollout.over_context rollout.timeout_s
rollout.hang_timeout_s rollout.max_restarts
rewards.*.target rewards.*.args rewards.*.weight rewards.*.replicas rewards.*.num_cpus
rewards.*.num_gpus rewards.*.resources rewards.*.runtime_env rewards.*.batch_size rewards.*.concurrency
rewards.*.timeout_s rewards.*.retries rewards.*.cache rewards.*.on_error
algorithm.advantage algorithm.pass_k algorithm.std_eps algorithm.step_discount algorithm.loss
algorithm.clip_low
algorithm.clip_high
algorithm.clip_dual algorithm.clip_cov algorithm.clip_cov_bounds algorithm.kl_cov algorithm.kl_cov_coef
algorithm.gate algorithm.kl_coef
algorithm.kl_estimator algorithm.kl_in
algorithm.loss_aggregation
algorithm.entropy_coef algorithm.correction algorithm.correction_low algorithm.correction_high
algorithm.off_policy_threshold
algorithm.overlong_buffer algorithm.overlong_penalty algorithm.mask_truncated
algorithm.drop_groups_without_signal
algorithm.ptr.outcome algorithm.ptr.reasoning algorithm.ptr.trust algorithm.ptr.schedule
algorithm.ptr.anneal_steps algorithm.ptr.threshold algorithm.ptr.window algorithm.ptr.max_spread
learner.num_ranks learner.num_cpus learner.num_gpus learner.resources learner.ranks_per_node
learner.zero_stage learner.offload_optimizer
learner.offload_parameters learner.activation_checkpointing learner.lora.rank learner.lora.alpha
learner.lora.dropout learner.lora.target_modules learner.lora.also_train learner.lora.push learner.lr
learner.warmup_steps learner.lr_schedule learner.weight_decay learner.betas learner.max_grad_norm
learner.precision learner.micro_batch_tokens learner.micro_batch_audio_frames learner.over_budget
learner.num_mini_batches learner.updates_per_batch learner.recompute_logprobs
learner.max_skipped_steps learner.timeout_s learner.max_restarts
reference.num_replicas reference.num_cpus reference.num_gpus reference.resources reference.micro_batch_tokens
reference.timeout_s reference.max_restarts reference.sync_every reference.sync_weight
weight_sync.backend weight_sync.bucket_mb weight_sync.timeout_s weight_sync.verify_first_push
train.num_steps train.prompts_per_step train.staleness train.groups_per_score train.oversample
train.max_replaced train.max_logprob_diff train.on_logprob_diff
train.eval_every train.checkpoint_every train.rolling_every train.max_eval_prompts
cluster.address cluster.num_cpus cluster.colocate cluster.log_to_driver cluster.placement_timeout_s
cluster.startup_timeout_s
cluster.job.address cluster.job.storage cluster.job.working_dir cluster.job.exclude cluster.job.max_mb
cluster.job.pip cluster.job.env_vars cluster.job.secrets cluster.job.metadata cluster.job.num_cpus
cluster.job.autoscales
cluster.job.stop_timeout_s cluster.job.timeout_s
"""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_load(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each over quickstart.yaml, from which the others differ."""
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    config = load_config([CONFIGS / "quickstart.yaml", path], [], PipelineConfig)
    last = "cold_start" if config.cold_start.weights else "sft"
    assert config.rl.model.path == f"{config.run_dir}/{last}/model"
    save_config(config, tmp_path / "config.yaml")
    assert load_config([tmp_path / "config.yaml"], [], PipelineConfig) == config


def test_an_estimator_whose_gradient_is_zero_is_refused_in_the_loss() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.kl_estimator: got 'k1', must be k2 or k3 with"):
        RunConfig(algorithm=AlgorithmConfig(kl_estimator="k1", kl_coef=0.1))
    RunConfig(algorithm=AlgorithmConfig(kl_estimator="k1", kl_coef=0.1, kl_in="reward"))
    RunConfig(algorithm=AlgorithmConfig(kl_estimator="k1", kl_coef=0.0))


def test_a_gate_that_could_never_open_and_a_reward_that_trusts_itself_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold: got nan, must be a finite number"):
        PTRConfig(threshold=float("nan"))
    with pytest.raises(ConfigError, match=r"reasoning: got 'o', must be another reward than algorithm\.ptr"):
        PTRConfig(outcome="o", reasoning="o")


def test_a_key_of_an_earlier_version_says_what_took_its_place(minimal: Path, tmp_path: Path) -> None:
    now = "autocast: this key is now {}learner.precision; autocast where it was bfloat16"
    with pytest.raises(ConfigError, match="learner." + now.format("")):
        load_config([minimal], ["learner.autocast=bfloat16"])
    with pytest.raises(ConfigError, match="learner." + now.format("")):
        load_config([minimal, write(tmp_path, "learner: {autocast: none}")])
    needed = ["rl.model.path=m", "rl.task.target=a:B"]
    with pytest.raises(ConfigError, match=now.format("rl.")):
        load_config([], [*needed, "rl.learner.autocast=bfloat16"], PipelineConfig)
    with pytest.raises(ConfigError, match=r"model\.autocast: unknown key"):
        load_config([minimal], ["model.autocast=bfloat16"])


def test_a_push_brings_all_that_engines_do_not_hold_as_the_learner_does(minimal: Path) -> None:
    def said(*overrides: str) -> tuple[bool, bool]:
        config = load_config([minimal], overrides)
        return config.engines_start_alike, config.pushes_all

    lora, dummy = "learner.lora.rank=4", "rollout.engine.load_format=dummy"
    assert said() == (True, True)
    assert said(lora) == (True, False)
    assert said(lora, "cluster.colocate=true", "train.staleness=0") == (True, True)
    assert said(lora, "learner.lora.push=adapters") == (True, False)
    assert said(dummy) == said(lora, dummy) == (False, True)
    # The learner rounds to bfloat16 what engines in float32 load as it is.
    assert said(lora, "learner.precision=bf16") == (False, True)
    assert said(lora, "learner.precision=bf16", "model.dtype=bfloat16") == (True, False)
    assert said(lora, "learner.precision=autocast") == (True, False)
    with pytest.raises(ConfigError, match=r"learner.lora.push: got 'adapters', must be merged with .*dummy"):
        said(lora, dummy, "learner.lora.push=adapters")


def test_precisions_are_bfloat16_on_gpus_unless_they_are_said(minimal: Path) -> None:
    def said(*overrides: str) -> dict[str, str]:
        return precisions(load_config([minimal], overrides))

    on_cpus = "weights float32, products float32, head float32"
    assert said() == {"rollout": on_cpus, "learner": on_cpus, "reference": on_cpus}
    on_gpus = said("rollout.num_gpus=1", "learner.num_gpus=1", "model.head_dtype=float32")
    assert on_gpus == {
        "rollout": "weights bfloat16, products bfloat16, head float32",
        "learner": "weights float32, products bfloat16, head float32; float32 products in TF32",
        # As the learner, wherever the reference is.
        "reference": "weights float32, products bfloat16, head float32",
    }
    chosen = said(
        "rollout.num_gpus=1", "model.dtype=float32", "learner.precision=bf16", "algorithm.kl_coef=0"
    )
    assert chosen == {
        "rollout": on_cpus,
        "learner": "weights bfloat16, products bfloat16, head bfloat16, master weights float32",
    }
    exact = said("learner.num_gpus=1", "learner.precision=float32")
    assert exact["learner"] == f"{on_cpus}; float32 products in TF32"
    with pytest.raises(
        ConfigError, match=r"learner.precision: got 'bf16', must be float32 or autocast below"
    ):
        said("learner.precision=bf16", "learner.zero_stage=1")


def test_parts_of_one_gpu_are_not_joined_by_nccl() -> None:
    def config(learner: float, rollout: float, backend: str = "nccl") -> RunConfig:
        return RunConfig(
            learner=LearnerConfig(num_gpus=learner),
            rollout=RolloutConfig(num_gpus=rollout),
            weight_sync=WeightSyncConfig(backend=backend),
        )

    with pytest.raises(ConfigError, match=r"weight_sync\.backend: got 'nccl', .* may be parts of one GPU"):
        config(0.4, 0.4)
    config(0.4, 0.4, "shared_memory")
    config(0.6, 0.6)  # two GPUs
    config(1, 1)
