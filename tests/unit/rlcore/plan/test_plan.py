"""The plan's arithmetic against independent numbers, published models, and a learner's measured memory."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_models import make_qwen2_5_omni, make_text, tone

from benchmarks import plan_memory
from emotion_task.config import SupervisedConfig
from rlcore import cli
from rlcore.config import (
    AlgorithmConfig,
    LearnerConfig,
    LoRAConfig,
    ModelConfig,
    RewardConfig,
    RunConfig,
    load_config,
)
from rlcore.engines import head
from rlcore.errors import ConfigError
from rlcore.plan import memory
from rlcore.plan.hardware import KNOWN, Efficiency, Hardware, load_hardware
from rlcore.plan.memory import MicroBatch, forward_memory, learner_memory
from rlcore.plan.phases import (
    RENDER_S,
    Engine,
    Phases,
    forward_flops,
    judge_seconds,
    prepare_seconds,
    reference_seconds,
    sync_seconds,
    update_seconds,
)
from rlcore.plan.planner import find_problems, make_plan, phases_of, with_settings
from rlcore.plan.roles import Role, Rollout, largest_batch, learner_of, place, roles_of, rollout_memory
from rlcore.plan.sizes import (
    QWEN2_5_OMNI_3B,
    QWEN2_5_OMNI_7B,
    QWEN3_OMNI_30B_A3B,
    ModelSizes,
    sizes_of,
    sizes_of_config,
)
from rlcore.plan.workload import Batch, Workload

PROJECT = Path(__file__).resolve().parents[4]
OMNI = PROJECT / "emotion_task" / "configs" / "omni"
H100 = KNOWN["h100-80g"]
EXACT = Efficiency(prefill=1, decode=1, decode_step_s=0, forward=1, train=1, link=1)
TINY = ModelSizes(
    hidden=4,
    intermediate=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=2,
    vocab=10,
    layer=100,
    embedding=40,
    head=40,
)


def run_config(**settings: Any) -> RunConfig:
    config = RunConfig(model=ModelConfig(path="somewhere"), algorithm=AlgorithmConfig(kl_coef=0))
    on_gpus = {"rollout.num_gpus": 1.0, "learner.num_gpus": 1.0, "learner.precision": "float32"}
    return with_settings(config, {**on_gpus, **settings})


@pytest.mark.parametrize("known", [QWEN2_5_OMNI_3B, QWEN2_5_OMNI_7B])
def test_sizes_of_published_models_are_those_of_their_modules(known: ModelSizes) -> None:
    import transformers

    def built(layers: int) -> ModelSizes:
        config = transformers.Qwen2_5OmniThinkerConfig(
            text_config={
                "hidden_size": known.hidden,
                "intermediate_size": known.intermediate,
                "num_hidden_layers": 1,
                "num_attention_heads": known.num_heads,
                "num_key_value_heads": known.num_kv_heads,
                "vocab_size": known.vocab,
                "tie_word_embeddings": False,
            },
            audio_config={"output_dim": known.hidden, "encoder_layers": layers},
            vision_config={"hidden_size": 1280, "out_hidden_size": known.hidden, "depth": layers},
            tie_word_embeddings=False,
        )
        config.architectures = ["Qwen2_5OmniThinkerForConditionalGeneration"]
        config.dtype = "bfloat16"
        return sizes_of_config(config)

    one, two = built(1), built(2)
    for name in ("layer", "embedding", "head", "head_dim", "kv_values_per_token"):
        expected = getattr(known, name) / (known.num_layers if name == "kv_values_per_token" else 1)
        assert getattr(one, name) == expected, name
    assert (one.linear - one.head) * known.num_layers == known.linear - known.head
    for name in ("audio", "other_media"):  # 32 layers each
        first, second = getattr(one, name), getattr(two, name)
        assert first + 31 * (second - first) == getattr(known, name), name


def test_published_models_have_the_parameters_that_their_names_say() -> None:
    assert QWEN2_5_OMNI_3B.language == pytest.approx(3.4e9, rel=0.01)
    assert QWEN2_5_OMNI_7B.language == pytest.approx(7.62e9, rel=0.01)
    assert sizes_of(ModelConfig(path="Qwen/Qwen2.5-Omni-7B")) is QWEN2_5_OMNI_7B


def test_a_token_passes_some_of_the_experts() -> None:
    """The published 30B-A3B: sizes as of the modules of one decoder layer, and what the name says."""
    import transformers

    config = transformers.Qwen3OmniMoeThinkerConfig(
        text_config={
            "hidden_size": 2048,
            "num_hidden_layers": 1,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "vocab_size": 152_064,
        },
        audio_config={"output_dim": 2048},
        vision_config={"out_hidden_size": 2048, "hidden_size": 1152},
    )
    config.architectures = ["Qwen3OmniMoeThinkerForConditionalGeneration"]
    config.dtype = "bfloat16"
    sizes, known = sizes_of_config(config), QWEN3_OMNI_30B_A3B
    assert (sizes.linear - sizes.head) * known.num_layers == known.linear - known.head
    for name in ("layer", "idle", "embedding", "head", "head_dim", "audio", "other_media"):
        assert getattr(sizes, name) == getattr(known, name), name
    assert known.language == pytest.approx(30.5e9, rel=0.01)
    assert known.active + known.head + known.embedding == pytest.approx(3.3e9, rel=0.02)
    assert forward_flops(known, tokens=10.0, context=0.0) == 20.0 * known.active


def test_layers_with_experts_and_without_are_counted_together() -> None:
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        mlp_only_layers=[0],
        architectures=["Qwen3MoeForCausalLM"],
    )
    with torch.device("meta"):
        decoder = Qwen3MoeForCausalLM(config).model
    sizes = sizes_of_config(config)
    counted = sum(p.numel() for p in decoder.layers.parameters()) + decoder.norm.weight.numel()
    assert sizes.decoder == pytest.approx(counted, abs=2)
    assert sizes.decoder - sizes.active == 6 * 3 * 64 * 32  # six of eight experts, of one layer of two


def test_tied_heads_count_once() -> None:
    from transformers import Qwen2Config

    def head(tied: bool) -> int:
        config = Qwen2Config(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=16,
            tie_word_embeddings=tied,
            architectures=["Qwen2ForCausalLM"],
        )
        return sizes_of_config(config).head

    assert (head(True), head(False)) == (0, 128)


def test_adapters_are_rank_times_inputs_and_outputs() -> None:
    lora = LoRAConfig(rank=4, target_modules=("q_proj", "v_proj", "down_proj"))
    assert TINY.lora(lora) == 2 * 4 * ((4 + 4) + (4 + 2) + (8 + 4))
    with pytest.raises(ConfigError, match="got lm_head; plan knows"):
        TINY.lora(LoRAConfig(rank=4, target_modules=("lm_head",)))


@pytest.mark.parametrize(
    ("stage", "ranks", "weights", "optimizer"), [(0, 4, 4, 8), (1, 4, 5, 2), (2, 4, 5, 2), (3, 4, 2, 2)]
)
def test_zero_stages_share_out_what_they_say(
    stage: int, ranks: int, weights: float, optimizer: float
) -> None:
    """Bytes a parameter: float32 weights, from stage 1 on a copy of the rank's part, Adam's moments."""
    learner = LearnerConfig(zero_stage=stage, num_ranks=ranks)
    shape = MicroBatch(num_groups=1, num_rows=1, prompt=1, completion=1, longest=1)
    memory = learner_memory(TINY, ModelConfig(path="x"), learner, shape, H100, num_micro_batches=1)
    assert memory.weights / TINY.language == weights
    assert memory.optimizer / TINY.language == optimizer


RECORDED = json.loads((PROJECT / "benchmarks/results/plan_memory.json").read_text())


@pytest.mark.parametrize("row", RECORDED["rows"], ids=lambda row: row["case"])
def test_memory_is_within_a_tenth_of_what_was_measured(row: dict[str, Any]) -> None:
    (case,) = [case for case in plan_memory.CASES if case.name == row["case"]]
    assert plan_memory.planned(case) / 2**20 == pytest.approx(row["measured_MB"], rel=plan_memory.GOAL)


def test_decoding_reads_weights_and_cache_at_every_step() -> None:
    slow = Hardware(bandwidth_gb_s=1e-6, bf16_tflops=1e9)  # 1000 bytes a second, and no limit to arithmetic
    engine = Engine(
        sizes=TINY,
        hardware=slow,
        efficiency=EXACT,
        dtype="bfloat16",
        tensor_parallel=1,
        max_num_seqs=2,
    )
    lengths, prompt = [3, 1, 2], 5
    # Two slots: the third starts where the second ends.
    spans = [(0, 3), (0, 1), (1, 3)]
    expected = 0.0
    for step in range(3):
        cached = [prompt + step - start for start, end in spans if start <= step < end]
        expected += 2 * (TINY.decoder + 40 + sum(cached) * 2 * 2 * 1 * 2) / 1000
    assert engine.decode_seconds(lengths, prompt) == pytest.approx(expected, rel=1e-9)


def test_gradients_take_six_operations_a_parameter_and_token() -> None:
    config = run_config(**{"learner.zero_stage": 0, "train.prompts_per_step": 2, "rollout.max_tokens": 20})
    hardware = replace(H100, fp32_tflops=1e-12, link_gb_s=1e9, bandwidth_gb_s=1e9)  # 1 operation a second
    work = Workload(prompt_tokens=10, audio_seconds=0, completion_tokens=20, length_spread=0)
    seconds = update_seconds(config, TINY, Batch(config, work), hardware, EXACT, num_micro_batches=1)
    tokens, written = 2 * (10 + 8 * 20), 2 * 8 * 20
    attention = 2 * 2 * 4 * 10
    # The head's forward pass is made twice.
    assert seconds == pytest.approx(tokens * 3 * (2 * 204 + attention) + written * 4 * 2 * 40, rel=1e-6)


def test_pushing_moves_every_weight_once() -> None:
    config = run_config(**{"weight_sync.backend": "nccl", "model.dtype": "bfloat16"})
    num_bytes = 2 * QWEN2_5_OMNI_7B.language
    # A second beside the bytes; between nodes they do not come as fast as the links.
    near, far = (sync_seconds(config, QWEN2_5_OMNI_7B, replace(H100, num_nodes=n), EXACT) for n in (1, 2))
    assert (near, far) == pytest.approx((1 + num_bytes / 450e9, 1 + num_bytes / 4e9))
    assert 4 < far < 6
    slow = replace(H100, num_nodes=2, network_gb_s=1.5)
    assert sync_seconds(config, QWEN2_5_OMNI_7B, slow, EXACT) == pytest.approx(1 + num_bytes / 1.5e9)


def test_pushing_merged_adapters_moves_what_they_change() -> None:
    lora = {"learner.lora.rank": 16, "learner.zero_stage": 0, "model.dtype": "bfloat16"}
    config = run_config(**lora, **{"weight_sync.backend": "shared_memory"})
    sizes, cpu = QWEN2_5_OMNI_7B, replace(H100, is_cpu=True)
    attention = 28 * 2 * 3584 * (28 + 4) * 128  # q, k, v, o
    assert sync_seconds(config, sizes, cpu, EXACT) == pytest.approx(2 * attention / 3.2e9)
    assert 2 * attention < 1.7e9 < 15e9 < 2 * sizes.language
    names = ("q_proj", "down_proj")
    both = replace(config, learner=replace(config.learner, lora=LoRAConfig(rank=16, target_modules=names)))
    assert sync_seconds(both, sizes, cpu, EXACT) == pytest.approx(2 * 28 * sizes.layer / 3.2e9)
    halves = {"rollout.num_gpus": 0.5, "learner.num_gpus": 0.5, "cluster.colocate": True}
    asleep = run_config(**lora, **{"weight_sync.backend": "shared_memory"}, **halves)
    assert sync_seconds(asleep, sizes, cpu, EXACT) == pytest.approx(2 * sizes.language / 3.2e9)


def test_frozen_weights_of_a_bfloat16_checkpoint_take_half() -> None:
    config = run_config(**{"learner.lora.rank": 16, "learner.zero_stage": 0})
    batch, sizes = Batch(config, Workload()), QWEN2_5_OMNI_7B
    low = with_settings(config, {"learner.precision": "autocast"})
    wide, narrow = (learner_of(each, sizes, batch, H100).weights for each in (config, low))
    assert wide == 4 * (sizes.language + sizes.lora(config.learner.lora))
    assert wide - narrow == 2 * sizes.linear
    assert learner_of(low, replace(sizes, linear=0), batch, H100).weights == wide  # not in bfloat16 on disk


def test_precisions_take_the_bytes_that_they_say() -> None:
    """Per parameter at stage 2 on one GPU: weights with the optimizer's float32 copy, and Adam's moments. On
    GPUs the default is autocast, and engines in bfloat16."""
    config = run_config(**{"learner.precision": None, "model.media": "embeds"})
    batch, sizes = Batch(config, Workload()), replace(QWEN2_5_OMNI_7B, audio=0, other_media=0)
    assert config.rollout_dtype == "bfloat16" and config.learner.own_precision == "autocast"
    states = {}
    for precision in ("float32", "autocast", "bf16"):
        took = learner_of(with_settings(config, {"learner.precision": precision}), sizes, batch, H100)
        states[precision] = (took.weights + took.optimizer) / sizes.language
    assert states == {"float32": 16, "autocast": 16, "bf16": 14}
    assert learner_of(config, sizes, batch, H100).weights == 8 * sizes.language
    forward = {
        precision: forward_memory(sizes, config.model, LearnerConfig(precision=precision), 0, H100)
        for precision in states
    }
    forward = {name: num_bytes - 12 * 2**26 for name, num_bytes in forward.items()}  # a chunk of logits
    language, embedding = sizes.language, sizes.embedding
    assert forward == {
        "float32": 4 * language,
        "autocast": 2 * language + 2 * embedding,
        "bf16": 2 * language,
    }


def test_a_learner_that_is_its_own_reference_takes_no_more() -> None:
    config = run_config(**{"learner.lora.rank": 16, "algorithm.kl_coef": 0.04})
    batch, sizes = Batch(config, Workload()), QWEN2_5_OMNI_7B
    own = with_settings(config, {"reference.num_replicas": 0})
    names = [[role.name for role in roles_of(each, sizes, batch, H100)] for each in (config, own)]
    assert names == [["rollout", "learner", "reference"], ["rollout", "learner"]]
    four = with_settings(own, {"learner.num_ranks": 4, "learner.precision": "autocast"})
    one, shared = (reference_seconds(each, sizes, batch, H100, EXACT) for each in (config, four))
    bfloat16 = H100.tflops("bfloat16") / H100.tflops("float32")
    assert one == pytest.approx(shared * 4 * bfloat16)

    ahead = with_settings(own, {"train.staleness": 1})
    now, later = (phases_of(each, sizes, batch, H100, EXACT) for each in (own, ahead))
    assert (now.score, later.score) == (pytest.approx(one), 0.0)
    assert later.update - now.update == pytest.approx(one)


def test_pushing_adapters_moves_their_factors_alone() -> None:
    lora = {"learner.lora.rank": 16, "learner.zero_stage": 0, "model.dtype": "bfloat16"}
    config = run_config(**lora, **{"weight_sync.backend": "gloo", "learner.lora.push": "adapters"})
    factors = 4 * QWEN2_5_OMNI_7B.lora(config.learner.lora)
    cpu = replace(H100, is_cpu=True)
    assert sync_seconds(config, QWEN2_5_OMNI_7B, cpu, EXACT) == pytest.approx(factors / 1.1e9)
    # On GPUs the engine loads the attention again from its checkpoint, through pages that are not pinned.
    loaded = 2 * 28 * 2 * 3584 * (28 + 4) * 128 / 5e9
    assert sync_seconds(config, QWEN2_5_OMNI_7B, H100, EXACT) == pytest.approx(1 + factors / 1.1e9 + loaded)
    gathered = with_settings(config, {"learner.zero_stage": 3, "learner.num_ranks": 2})
    assert sync_seconds(gathered, QWEN2_5_OMNI_7B, cpu, EXACT) == pytest.approx(
        factors / 1.1e9 + factors / 450e9
    )


def test_a_step_hides_what_runs_beside_it() -> None:
    phases = Phases(prefill=1, decode=9, score=4, update=6, weight_sync=1)
    assert phases.step(0, 1) == 10 + 4 + 6 + 1  # one chunk: scored when all is written
    assert phases.step(0, 4) == 10 + 1 + 6 + 1
    assert phases.step(1, 4) == 11
    assert replace(phases, update=30).step(1, 4) == 31


def test_chunks_of_logits_are_the_learners() -> None:
    for name in ("LOGITS_PER_CHUNK", "LOGITS_PER_CHUNK_ON_GPU"):
        assert getattr(memory, name) == getattr(head, name)


def test_lengths_have_the_mean_and_spread_that_were_given() -> None:
    config = run_config(**{"learner.over_budget": "drop", "rollout.max_tokens": 10**6})
    batch = Batch(config, Workload(completion_tokens=300, length_spread=0.5))
    assert batch.completion_length == pytest.approx(300, rel=0.01)
    assert batch.quantiles.std() == pytest.approx(150, rel=0.03)
    cut = Batch(run_config(**{"rollout.max_tokens": 400}), Workload(completion_tokens=300))
    assert cut.quantiles.max() == 400 and cut.completion_length < 300
    assert np.all(np.diff(batch.lengths(17)) >= 0)


def test_parts_of_gpus_are_packed_and_whole_ones_are_not() -> None:
    roles = [
        Role(name="reference", count=2, num_gpus=0.5, num_bytes=10),
        Role(name="learner", count=2, num_gpus=1, num_bytes=60),
        Role(name="reward", count=1, num_gpus=0.25, num_bytes=5),
    ]
    assert [(d.roles, d.num_bytes) for d in place(roles)] == [
        (["learner"], 60),
        (["learner"], 60),
        (["reference", "reference"], 20),
        (["reward"], 5),
    ]


def test_colocated_roles_are_placed_in_pairs_and_take_turns() -> None:
    roles = [
        Role(name="rollout", count=2, num_gpus=0.5, num_bytes=40, idle_bytes=2),
        Role(name="learner", count=2, num_gpus=0.4, num_bytes=60, idle_bytes=30),
        Role(name="reference", count=1, num_gpus=0.1, num_bytes=5),
    ]
    assert [(d.roles, d.num_bytes) for d in place(roles, colocate=True)] == [
        (["rollout", "learner", "reference"], 40 + 30 + 5),
        (["rollout", "learner"], 40 + 30),
    ]
    roles[0] = replace(roles[0], num_bytes=31)
    assert place(roles, colocate=True)[1].num_bytes == 2 + 60
    assert [d.roles for d in place(roles)] == [["rollout", "rollout"], ["learner"] * 2 + ["reference"]]


COLOCATED = [
    "cluster.colocate=true",
    "weight_sync.backend=ipc",
    "rollout={num_replicas: 8, num_gpus: 0.5, engine: {gpu_memory_utilization: 0.3}}",
    "learner={num_ranks: 8, num_gpus: 0.5}",
    "algorithm.kl_coef=0",
    "rewards.reasoning.num_gpus=0",
]


def test_a_colocated_run_has_an_engine_and_a_rank_on_every_gpu() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"], COLOCATED)
    sizes, h100s = sizes_of(config.model), load_hardware("h100-80g:8")
    plan = make_plan(config, sizes, h100s)
    assert plan.problems == () and [d.roles for d in plan.devices] == [["rollout", "learner"]] * 8
    rollout, learner = plan.roles
    assert rollout.num_bytes == pytest.approx(0.3 * 80e9) and rollout.idle_bytes == 2e9  # context and graphs
    assert plan.devices[0].num_bytes == max(rollout.num_bytes + learner.idle_bytes, 2e9 + learner.num_bytes)
    phases = plan.phases
    assert plan.step_seconds == phases.rollout + phases.update + phases.weight_sync
    # With a tower of its own an engine keeps its weights in main memory while it sleeps.
    small = replace(h100s, host_memory_gb=130)
    (problem,) = find_problems(config, sizes, plan.batch, small)
    assert problem.startswith(
        "the actors of one node take 200.7 GB of main memory (rollout 148.1 GB, learner"
    )
    awake = (8 * (2e9 + plan.rollout.weights + plan.rollout.media)) / 1e9
    assert f"rollout {awake:.1f} GB" in problem and "cluster.colocate lays sleeping engines" in problem
    large = with_settings(config, {"rollout.engine.gpu_memory_utilization": 0.7})
    (problem,) = find_problems(large, sizes, plan.batch, h100s)
    assert problem.startswith("a GPU of learner and rollout takes 86.1 GB")


def test_colocated_roles_do_not_wait_for_a_reference_elsewhere() -> None:
    words = [*COLOCATED, "algorithm.kl_coef=0.04", "reference.num_gpus=1"]
    config = load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"], words)
    plan = make_plan(config, sizes_of(config.model), load_hardware("h100-80g:9"))
    assert plan.problems == () and plan.phases.score > 0
    assert plan.step_seconds == plan.phases.step(0, 8)


NODES = {1: "h100-80g:1", 4: "h100-80g:4", 8: "h100-80g:8", 64: "h100-80g:8x8"}


@pytest.mark.parametrize("num_gpus", NODES)
@pytest.mark.parametrize("size", ["3b", "7b"])
def test_ready_configurations_fit_and_split_their_gpus_well(size: str, num_gpus: int) -> None:
    config = load_config([OMNI / "base.yaml", OMNI / f"{size}_{num_gpus}gpu.yaml"])
    plan = make_plan(config, sizes_of(config.model), load_hardware(NODES[num_gpus]))
    assert plan.problems == ()
    assert len(plan.devices) == num_gpus
    if num_gpus > 1:
        assert plan.best is not None and plan.step_seconds <= 1.02 * plan.best.step_seconds
    assert plan.tokens_per_second > 500


def test_the_mixture_fits_eight_gpus() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "30b_8gpu.yaml"])
    plan = make_plan(config, sizes_of(config.model), load_hardware(NODES[8]))
    assert plan.problems == () and len(plan.devices) == 8
    assert plan.best is not None and plan.step_seconds <= 1.02 * plan.best.step_seconds


def test_splits_keep_to_the_ranks_of_a_node() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "7b_64gpu.yaml"], ["learner.ranks_per_node=8"])
    best = make_plan(config, sizes_of(config.model), load_hardware(NODES[64])).best
    assert best is not None and best.learner_ranks == 40


def test_what_does_not_fit_is_said_with_what_would() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"])
    sizes, l40s = sizes_of(config.model), load_hardware("l40s:8")
    plan = make_plan(config, sizes, l40s)
    assert not plan.fits and plan.problems[0].startswith("a GPU of learner takes")
    (change,) = plan.changes
    changed = with_settings(config, change)
    assert find_problems(changed, sizes, Batch(changed, Workload()), l40s) == []
    (problem,) = make_plan(config, sizes, load_hardware("h100-80g:4")).problems
    assert problem.startswith("the roles ask for 8")
    assert "rollout.num_replicas 2 x num_gpus 1, learner.num_ranks 5 x num_gpus 1, reference" in problem


def test_what_the_lengths_dictate_is_named_by_its_key() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"])
    sizes, h100s = sizes_of(config.model), load_hardware("h100-80g:8")
    long = Workload(prompt_tokens=100, audio_seconds=6, longest_prompt=1900)
    plan = make_plan(config, sizes, h100s, long)
    (problem,) = plan.problems
    assert problem.startswith(
        "the longest sample has 2412 tokens (1900 of the prompt, rollout.max_tokens 512)"
    )
    assert "rollout.engine.max_model_len is 2048: raise it to 2412 at least" in problem
    assert plan.changes == ({"rollout.engine.max_model_len": 2412},)
    longer = make_plan(config, sizes, h100s, replace(long, longest_prompt=7900))
    assert longer.changes == ({"rollout.engine.max_model_len": 8412, "learner.micro_batch_tokens": 8412},)
    assert not make_plan(config, sizes, h100s, replace(long, longest_prompt=1536)).problems


@pytest.mark.parametrize(
    ("settings", "said", "change"),
    [
        ({"rollout.num_gpus": 0}, "rollout.num_gpus is 0: it would run on CPUs", {"rollout.num_gpus": 1}),
        (
            {"rollout.engine": {"tensor_parallel_size": 3}, "rollout.num_gpus": 3},
            "rollout.engine.tensor_parallel_size is 3: vLLM splits the model's 2 attention heads, 1 of them",
            {"rollout.engine.tensor_parallel_size": 2, "rollout.num_gpus": 2},
        ),
        (
            {"rollout.engine": {"pipeline_parallel_size": 3}, "rollout.num_gpus": 3},
            "rollout.engine.pipeline_parallel_size is 3: the model has 2 layers",
            None,
        ),
        (
            {"rewards": {"own": RewardConfig(target="a:B", num_gpus=16)}},
            "rewards.own.num_gpus is 16: the GPUs of one actor lie on one node",
            None,
        ),
    ],
)
def test_gpus_that_no_process_can_use_are_refused(
    settings: dict[str, Any], said: str, change: dict[str, int] | None
) -> None:
    plan = make_plan(run_config(**settings), TINY, load_hardware("h100-80g:8"))
    assert said in plan.problems[0]
    assert plan.changes == (() if change is None else (change,))


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "intermediate", "tensor_parallel", "is_even"),
    [(4, 2, 8, 3, False), (4, 2, 8, 4, True), (12, 6, 8, 4, False), (4, 4, 6, 4, False), (8, 8, 8, 8, True)],
)
def test_an_engines_workers_get_equal_parts(
    num_heads: int, num_kv_heads: int, intermediate: int, tensor_parallel: int, is_even: bool
) -> None:
    sizes = replace(TINY, num_heads=num_heads, num_kv_heads=num_kv_heads, intermediate=intermediate)
    engine = {"tensor_parallel_size": tensor_parallel}
    config = run_config(**{"rollout.engine": engine, "rollout.num_gpus": tensor_parallel})
    plan = make_plan(config, sizes, load_hardware("h100-80g:16"))
    assert plan.fits == is_even
    for change in plan.changes:
        assert make_plan(with_settings(config, change), sizes, load_hardware("h100-80g:16")).fits


def test_lengths_beyond_the_limit_and_endless_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"completion_tokens: got 500, must be at most rollout.max_tokens"):
        make_plan(run_config(**{"rollout.max_tokens": 24}), TINY, H100, Workload(completion_tokens=500))
    with pytest.raises(ConfigError, match="audio_seconds: got inf, must be a finite number"):
        Workload(audio_seconds=math.inf)
    with pytest.raises(ConfigError, match="memory_gb: got inf, must be a finite number"):
        Hardware(memory_gb=math.inf)


def test_a_rewards_engine_is_checked_by_its_path() -> None:
    engine = {"gpu_memory_utilization": "high"}
    with pytest.raises(ConfigError, match=r"args\.engine\.gpu_memory_utilization: got 'high'"):
        RewardConfig(target="a:b", num_gpus=1, args={"engine": engine})
    whole = RewardConfig(target="a:b", num_gpus=1, args={"engine": None})
    assert make_plan(run_config(rewards={"a": whole}), TINY, load_hardware("h100-80g:8")).fits


def test_a_run_without_rewards_or_audio_is_planned_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_text(tmp_path / "text")
    (tmp_path / "run.yaml").write_text(
        f"model: {{path: {model}}}\nalgorithm: {{kl_coef: 0}}\ntask: {{target: 'nowhere:Task'}}\n"
        "rewards: {even: {target: 'nowhere:even'}}\n"
        "rollout: {num_gpus: 1, max_tokens: 64, engine: {max_model_len: 128}}\nlearner: {num_gpus: 1}\n"
    )
    words = ["plan", "--config", str(tmp_path / "run.yaml"), "--hardware", "h100-80g:2"]
    assert cli.main([*words, "--prompt-tokens", "34"]) == 0
    said = capsys.readouterr().out
    assert "16 prompts of 34 tokens" in said and "34 text tokens and 0 s of audio" in said
    assert cli.main([*words, "rewards.even=null"]) == 2
    assert "rewards: got {}, must be one at least" in capsys.readouterr().err
    assert cli.main([*words, "--completion-tokens", "500"]) == 2
    assert "completion_tokens: got 500.0, must be at most rollout.max_tokens (64)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learner.num_gpus=0.5"], "learner.num_gpus: got 0.5, must be above 0.5 with learner.num_ranks 5"),
        (
            [*COLOCATED, "rollout.num_gpus=0.25", "learner.num_gpus=0.25"],
            "learner.num_gpus: got 0.25, must be above 0.25 with learner.num_ranks 8",
        ),
        (["learner.num_gpus=2"], "learner.num_gpus: got 2.0, must be at least 0 and at most 1"),
        (["reference.num_gpus=2"], "reference.num_gpus: got 2.0, must be at least 0 and at most 1"),
        (
            ["rollout.engine.tensor_parallel_size=2"],
            "rollout.num_gpus: got 1.0, must be 2, a GPU for each worker of engine (tensor_parallel_size)",
        ),
        (
            ["rollout.engine={tensor_parallel_size: 2, pipeline_parallel_size: 2}", "rollout.num_gpus=2"],
            "rollout.num_gpus: got 2.0, must be 4, a GPU for each worker of engine (tensor_parallel_size x",
        ),
        (["rollout.num_gpus=2"], "rollout.num_gpus: got 2.0, must be at most 1: engine makes one worker"),
        (
            ["rewards.reasoning.args.engine.tensor_parallel_size=2"],
            "rewards.reasoning.num_gpus: got 0.5, must be 2, a GPU for each worker of args.engine",
        ),
        (["rewards.outcome.num_gpus=1.5"], "rewards.outcome.num_gpus: got 1.5, must be a part of one GPU"),
    ],
)
def test_gpus_that_ray_or_nccl_would_refuse_are_not_planned(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--config", str(OMNI / "base.yaml"), "--config", str(OMNI / "7b_8gpu.yaml")]
    assert cli.main(["plan", *files, "--hardware", "h100-80g:8", *words]) == 2
    assert said in capsys.readouterr().err


def test_shares_of_a_gpu_that_keep_ranks_apart_are_planned() -> None:
    load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"], ["learner.num_gpus=0.6"])
    load_config([OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"], [*COLOCATED, "rollout.num_gpus=0.3"])
    with pytest.raises(ConfigError, match=r"learner\.num_gpus: got 0\.5, must be above 0\.5"):
        SupervisedConfig(num_steps=1, batch_size=2, learner=LearnerConfig(num_ranks=2, num_gpus=0.5))


def test_main_memory_of_a_node_holds_every_process_and_what_ranks_load() -> None:
    config = load_config([OMNI / "base.yaml", OMNI / "3b_8gpu.yaml"])
    sizes, h100s = sizes_of(config.model), load_hardware("h100-80g:8")
    whole = 4 * (sizes.language + sizes.media)
    for settings, loaded in (
        ({}, 0),  # straight to the GPU
        ({"learner.zero_stage": 3}, whole / 5),
        ({"learner.lora.rank": 8}, whole),  # narrowed on its way
    ):
        (_, learner, reference, _) = make_plan(with_settings(config, settings), sizes, h100s).roles
        assert (learner.host_bytes, reference.host_bytes) == (2e9 + loaded, 2e9 + whole)
    mixture = load_config([OMNI / "base.yaml", OMNI / "30b_8gpu.yaml"])
    its = sizes_of(mixture.model)
    learner = make_plan(mixture, its, h100s).roles[1]
    joined = learner.host_bytes - 2e9 - 4 * (its.language + its.media) / 5
    assert joined == pytest.approx(2 * its.language, rel=0.05)  # the experts, on every rank

    config = with_settings(config, {"learner.lora.rank": 8})
    plan = make_plan(config, sizes, h100s)
    rollout, learner, reference, judge = plan.roles
    assert learner.host_bytes == reference.host_bytes == 2e9 + whole
    total = sum(role.count * role.host_bytes for role in (rollout, learner, reference, judge)) + 2 * 0.3e9
    just = replace(h100s, host_memory_gb=total / 0.97e9 + 1)
    assert find_problems(config, sizes, plan.batch, just) == []
    (problem,) = find_problems(config, sizes, plan.batch, replace(just, host_memory_gb=total / 0.97e9 - 1))
    assert problem.startswith(f"the actors of one node take {total / 1e9:.1f} GB of main memory (learner ")
    changes = make_plan(config, sizes, replace(just, host_memory_gb=total / 0.97e9 - 1)).changes
    assert changes == ({"learner.zero_stage": 3},)


def test_on_cpus_every_actor_takes_cores_and_memory() -> None:
    config = run_config(**{"rollout.num_gpus": 0.0, "learner.num_gpus": 0.0, "learner.num_ranks": 2})
    rewards = {
        "rule": RewardConfig(target="a:B", replicas=3),
        "judge": RewardConfig(target="a:B", args={"model_path": "somewhere"}, num_cpus=0.5),
    }
    config = replace(config, rewards=rewards)
    sizes = replace(QWEN2_5_OMNI_3B, audio=0, other_media=0)
    machine = replace(H100, is_cpu=True, gpus_per_node=4, host_memory_gb=1000)
    plan = make_plan(config, sizes, machine)
    assert [(r.name, r.count, r.num_gpus) for r in plan.roles][2:] == [
        ("reward rule", 3, 0.1),
        ("reward judge", 1, 0.5),
    ]
    assert plan.roles[3].num_bytes == 4 * sizes.language + 1e9 + (256 << 20)
    assert not plan.problems  # 1 + 2 + 0.3 + 0.5 CPUs
    (problem,) = find_problems(config, sizes, plan.batch, replace(machine, gpus_per_node=3))
    assert problem.startswith(
        "the actors ask for 3.8 CPUs (rollout.num_replicas 1 x num_cpus 1, learner.num_ran"
    )


def test_media_take_a_core_of_each_engine_before_its_prompts() -> None:
    config = run_config(**{"train.prompts_per_step": 30, "rollout.num_replicas": 4, "model.media": "raw"})
    batch = Batch(config, Workload(audio_seconds=5))
    assert prepare_seconds(config, TINY, batch, H100, Efficiency(prepare_s=0.25)) == 8 * (5 * 0.25 + RENDER_S)
    measured = Batch(config, Workload(audio_seconds=5, prepare_seconds=0.5))
    assert prepare_seconds(config, TINY, measured, H100, EXACT) == 8 * (0.5 + RENDER_S)
    # The tower of `embeds` is float32's, at 50 positions a second.
    heard = prepare_seconds(
        with_settings(config, {"model.media": "embeds"}),
        replace(TINY, audio=67_000_000),
        measured,
        H100,
        EXACT,
    )
    assert heard == pytest.approx(8 * (0.5 + RENDER_S + 2 * 67e6 * 5 * 50 / 67e12))
    phases = phases_of(config, TINY, measured, H100, EXACT)
    assert phases.rollout == pytest.approx(4.0 + 8 * RENDER_S + phases.prefill + phases.decode)
    # A judge reads each recording once, and asks about each answer.
    without = Batch(config, Workload(audio_seconds=5, prepare_seconds=0))
    heard, free = (judge_seconds(TINY, each, H100, EXACT, 2) for each in (measured, without))
    assert heard - free == pytest.approx(30 * 0.5 / 2)
    assert free > 30 * 8 * RENDER_S / 2


@pytest.mark.slow
def test_lengths_are_those_of_the_tasks_own_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_qwen2_5_omni(tmp_path / "omni")
    rows = []
    for i, seconds in enumerate([1.0] * 59 + [9.0]):  # the longest is one that an even choice would miss
        soundfile.write(tmp_path / f"{i}.wav", tone(i, seconds), 16_000)
        rows.append({"id": f"u{i}", "audio": f"{i}.wav", "emotion": "sad", "split": "train"})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(
        f"model: {{path: {model}, media: raw}}\nalgorithm: {{kl_coef: 0}}\n"
        "rewards: {a: {target: 'a:b'}}\n"
        "rollout: {num_gpus: 1, engine: {max_model_len: 400}}\nlearner: {num_gpus: 1}\n"
        f"task: {{target: 'emotion_task.task:EmotionTask', args: {{manifest: {tmp_path / 'm.jsonl'}, "
        f"model_path: {model}}}}}\n"
    )
    words = ["plan", "--config", str(tmp_path / "run.yaml"), "--hardware", "h100-80g:2", "--json"]
    assert cli.main(words) == 1
    answer = json.loads(capsys.readouterr().out)
    found = re.fullmatch(
        r"lengths of the prompts are measured on (\d+) of 60 of the task's: "
        r"(\d+) tokens on average, (\d+) at most",
        answer["prompts"],
    )
    assert found and 50 < int(found[1]) < 60
    assert int(found[3]) - int(found[2]) == pytest.approx(25 * 8, abs=2)  # 8 s more, at 25 tokens a second
    longest = int(found[3]) + 256
    assert answer["changes"] == [{"rollout.engine.max_model_len": longest}]
    assert answer["seconds"]["prepare"] > 0
    assert cli.main([*words, f"rollout.engine.max_model_len={longest}"]) == 0
    assert cli.main([*words, "--audio-seconds", "1"]) == 0  # what is given is taken
    assert cli.main([*words, "task.args.manifest=nowhere.jsonl", "rollout.engine.max_model_len=700"]) == 0
    said = capsys.readouterr().out
    assert "lengths of the prompts are assumed, 100 text tokens and 6 s of audio" in said
    assert "nowhere.jsonl: no such manifest" in said


def test_a_cache_too_small_for_one_group_is_a_problem() -> None:
    config = load_config(
        [OMNI / "base.yaml", OMNI / "7b_8gpu.yaml"], ["rollout.engine.gpu_memory_utilization=0.25"]
    )
    sizes = sizes_of(config.model)
    assert rollout_memory(config, sizes, Batch(config, Workload()), H100).cache < 0.5e9
    problems = find_problems(config, sizes, Batch(config, Workload()), H100)
    assert "for keys and values" in problems[0] and "one group needs up to" in problems[0]


@pytest.mark.parametrize(
    ("hardware", "limits"),
    [
        (KNOWN["h100-80g"], (1024, 16384)),
        (KNOWN["h200-141g"], (1024, 16384)),
        (KNOWN["a100-80g"], (256, 8192)),
        (replace(H100, name="NVIDIA A100-SXM4-80GB"), (256, 8192)),
        (KNOWN["l40s"], (256, 8192)),
        (replace(H100, is_cpu=True), (256, 4096)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_batches_are_as_large_as_vllms_defaults(hardware: Hardware, limits: tuple[int, int]) -> None:
    assert largest_batch(run_config(), hardware) == limits
    own = run_config(**{"rollout.engine": {"max_num_seqs": 3, "max_num_batched_tokens": 5}})
    assert largest_batch(own, hardware) == (3, 5)


def given_cache(**engine: Any) -> Rollout:
    config = run_config(
        **{
            "rollout.engine": {"kv_cache_memory_bytes": 3e9, **engine},
            "rollout.num_gpus": engine.get("tensor_parallel_size", 1)
            * engine.get("pipeline_parallel_size", 1),
        }
    )
    return rollout_memory(config, QWEN2_5_OMNI_7B, Batch(config, Workload()), H100)


def test_a_cache_of_given_size_is_taken_whatever_the_share() -> None:
    plain = given_cache()
    needed = plain.weights + plain.media + plain.activations + 2e9
    assert plain.cache == 3e9 and plain.num_bytes == pytest.approx(needed + 3e9)
    assert given_cache(gpu_memory_utilization=0.1) == plain
    assert given_cache(enforce_eager=True).num_bytes == pytest.approx(needed + 3e9 - 1e9)


def test_pipeline_stages_share_weights_and_cache() -> None:
    alone, four = given_cache(), given_cache(tensor_parallel_size=2, pipeline_parallel_size=2)
    assert four.weights == alone.weights / 4
    assert four.cache_tokens == pytest.approx(4 * alone.cache_tokens)


def test_hardware_by_name_count_and_file(tmp_path: Path) -> None:
    assert load_hardware("a100-80g:4x2").num_gpus == 8
    assert load_hardware("l40s").gpus_per_node == 8
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, memory_gb: 24, gpus_per_node: 2}")
    assert load_hardware(str(path)).memory_gb == 24
    path.write_text("{memory: 24}")
    with pytest.raises(ConfigError, match=r"mine.yaml: memory: unknown key; did you mean memory_gb"):
        load_hardware(str(path))
    for wrong in ("b300", "h100-80g:", "h100-80g:8x"):
        with pytest.raises(ConfigError, match="must be one of h100-80g"):
            load_hardware(wrong)
    with pytest.raises(ConfigError, match="gpus_per_node"):
        load_hardware("l40s:0")


def test_the_command_prints_a_plan_and_ends_with_1_where_it_does_not_fit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ["--config", str(OMNI / "base.yaml"), "--config", str(OMNI / "7b_8gpu.yaml")]
    assert cli.main(["plan", *files, "--hardware", "h100-80g:8"]) == 0
    text = capsys.readouterr().out
    assert "5 x learner" in text and "GPU-hours" in text and text.endswith("fits\n")
    assert cli.main(["plan", *files, "--hardware", "l40s:8", "--json", "--audio-seconds", "20"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] is False and answer["changes"] and answer["gpu_hours"] > 0
    assert cli.main(["plan", *files, "--hardware", "l40s", "--prompt-tokens", "0"]) == 2
    assert "prompt_tokens: got 0, must be at least 1" in capsys.readouterr().err
