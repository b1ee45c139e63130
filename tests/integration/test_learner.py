"""The learner for real: DeepSpeed ranks as Ray actors against one process of plain torch."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from itertools import chain

import learner_cases
import numpy as np
import pytest
import ray
import ray.cloudpickle
import torch
from learner_cases import (
    LEARNER,
    Probe,
    assert_equal,
    language_weights,
    make_batch,
    make_groups,
    plain_distributions,
    plain_logprobs,
    plain_updates,
    start,
    with_own_audio,
    with_raw_audio,
    worst,
)
from safetensors import safe_open
from tiny_models import make_causal_lm, make_qwen2_audio, make_text
from weight_pushes import collect

from rlcore.actors.group import ActorGroup
from rlcore.actors.placement import Bundle, reserve
from rlcore.actors.reference_worker import ReferenceWorker
from rlcore.algorithms.batching import micro_batches, shard_groups
from rlcore.config import AlgorithmConfig, LoRAConfig, ModelConfig, RolloutConfig, TrainConfig
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.errors import (
    ActorError,
    CheckpointError,
    ConfigError,
    DeadlineError,
    NonFiniteError,
    PlacementError,
)
from rlcore.models import adapters
from rlcore.models.checkpoint_names import Checkpoint
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.models.names import checkpoint_parameters

pytestmark = pytest.mark.integration

FACTORS = (0.5, 1.0, 1.0, 0.875, 0.75)
"""On the learning rate: a warm-up of two steps, then a line that would end at 10."""

LAYOUTS = {
    "stage 0": {"zero_stage": 0},
    "stage 1, activations again": {"zero_stage": 1, "activation_checkpointing": True},
    "stage 2, optimizer offloaded": {"zero_stage": 2, "offload_optimizer": "cpu"},
    "stage 3": {"zero_stage": 3},
    "stage 3, all offloaded, activations again": {
        "zero_stage": 3,
        "offload_optimizer": "cpu",
        "offload_parameters": "cpu",
        "activation_checkpointing": True,
    },
}


class Sleeper:
    """An actor with a problem."""

    def __init__(self, rank: int):
        self.rank = rank

    def double(self, values: list[int]) -> list[int]:
        return [2 * value for value in values]

    def sleep(self, seconds: float) -> None:
        if self.rank == 1:
            time.sleep(seconds)

    def die(self) -> None:
        if self.rank == 1:
            os._exit(1)
        time.sleep(60)

    def fail(self) -> None:
        if self.rank == 0:
            raise CheckpointError("disk full")
        time.sleep(60)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    # These classes live beside the tests, where no worker could import them.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(learner_cases)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> str:
    return str(make_qwen2_audio(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def expected(model_path):
    return plain_updates(model_path, FACTORS)


def probes(num_ranks: int):
    reservation = reserve([Bundle(role="learner", num_cpus=0.5)] * num_ranks, timeout_s=20)
    arguments = [{"config": None, "rank": rank} for rank in range(num_ranks)]
    group = ActorGroup(
        "learner", Probe, arguments, num_cpus=0.5, reservation=reservation, env_vars={"OMP_NUM_THREADS": "1"}
    )
    yield group
    group.shutdown()
    reservation.release()


@pytest.fixture(scope="module")
def learner(cluster):
    yield from probes(2)


@pytest.fixture(scope="module")
def single(cluster):
    """A learner of one rank."""
    yield from probes(1)


def test_the_batch_gives_the_ranks_unequal_work(expected):
    """What the next test relies on: one rank has to pad with an empty micro-batch."""
    counts = []
    for batch in expected[0]:
        shards = shard_groups(batch.groups, 2)
        counts.append([len(micro_batches(shard, LEARNER.micro_batch_tokens)) for shard in shards])
    assert all(min(count) > 1 for count in counts), counts
    assert any(count[0] != count[1] for count in counts), counts


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_two_ranks_do_what_plain_torch_does(learner, model_path, expected, tmp_path, layout):
    batches, metrics, weights = expected
    start(learner, model_path, **LAYOUTS[layout])

    for step, batch in enumerate(batches):
        if step == 4:
            learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
        by_rank = learner.call("update", batch, timeout_s=60)
        for name, value in metrics[step].items():
            assert by_rank[0][name] == by_rank[1][name] == pytest.approx(value, rel=1e-4), (step, name)
        if step == 0:
            # The reference is the policy that starts, so the difference is the noise that was put on.
            assert 0.29 < by_rank[0]["logprob_max_diff"] < 0.3001
            assert by_rank[0]["logprob_mean_diff"] == pytest.approx(0.15, abs=0.02)
            assert 0 < by_rank[0]["clip_fraction"] < 0.5
    got = learner.call("weights", timeout_s=60)
    assert_equal(got[0], got[1])
    print(f"{layout}, 2 ranks, 5 updates: largest weight difference {worst(got[0], weights[-1]):.1e}")
    assert worst(got[0], weights[-1]) < 1e-5 < LEARNER.lr / 10  # a step moves a weight by about the rate

    # The same weights through the rollout's door, and in a folder that transformers loads.
    push = learner.call_one(0, "announce_push", 2, [0], timeout_s=60)
    sending = learner.call_async("push_weights", push)
    pushed = {name: tensor.numpy() for name, tensor in collect(push).items()}
    assert sending.result(timeout_s=60)[0].version == 2
    assert_equal(pushed, got[0])
    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    exported, original = load_model(str(tmp_path / "model")), load_model(model_path)
    for name, hub_name in checkpoint_parameters(exported):
        value = got[0].get(hub_name, original.get_parameter(name).detach().numpy())
        np.testing.assert_array_equal(exported.get_parameter(name).detach().numpy(), value, err_msg=name)

    # A fresh engine goes on bit by bit from the checkpoint before the last update.
    start(learner, model_path, **LAYOUTS[layout])
    learner.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    resumed = learner.call("update", batches[-1], timeout_s=60)[0]
    assert (resumed["loss"], resumed["lr"]) == (by_rank[0]["loss"], by_rank[0]["lr"])
    assert_equal(learner.call("weights", timeout_s=60)[0], got[0])


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_one_rank_does_too(single, model_path, expected, layout):
    batches, _, weights = expected
    start(single, model_path, **LAYOUTS[layout])
    for batch in batches:
        single.call("update", batch, timeout_s=60)
    got = single.call("weights", timeout_s=60)[0]
    print(f"{layout}, 1 rank, 5 updates: largest weight difference {worst(got, weights[-1]):.1e}")
    assert worst(got, weights[-1]) < 1e-5


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_raw_audio_through_the_tower_gives_the_same(learner, model_path, expected, zero_stage):
    """The tower inside the forward, once a prompt, a few audios at a time."""
    batches, _, weights = expected
    settings = {"zero_stage": zero_stage, "micro_batch_tokens": 90, "micro_batch_audio_frames": 150}
    start(learner, model_path, media="raw", **settings)
    for batch in batches:
        learner.call("update", with_raw_audio(batch), timeout_s=60)
    got = learner.call("weights", timeout_s=60)[0]
    print(
        f"stage {zero_stage}, raw audio, 5 updates: largest weight difference {worst(got, weights[-1]):.1e}"
    )
    assert worst(got, weights[-1]) < 1e-5


@pytest.mark.parametrize("freeze", [("audio_tower",), ()], ids=["tower frozen", "all trained"])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_rank_may_have_text_alone(learner, single, model_path, expected, zero_stage, freeze):
    """Beside one with audio, whose projector is trained: they go through the same collectives."""
    first = expected[0][0]
    batch = with_raw_audio(replace(first, groups=(first.groups[1], first.groups[-1])))
    assert [bool(shard[0].media_inputs) for shard in shard_groups(batch.groups, 2)] in ([0, 1], [1, 0])
    got = []
    for group, stage in ((learner, zero_stage), (single, 0)):
        settings = {"zero_stage": stage, "micro_batch_tokens": 90}
        start(group, model_path, media="raw", freeze=freeze, **settings)
        metrics = [group.call("update", batch, timeout_s=60)[0] for _ in range(2)][-1]
        got.append((metrics["grad_norm"], group.call("weights", timeout_s=60)[0]))
    (norm, weights), (plain_norm, plain_weights) = got
    assert norm == pytest.approx(plain_norm, rel=1e-4)
    assert worst(weights, plain_weights) < 1e-5


def test_whole_weights_are_exact_after_a_validation_under_autocast(learner, model_path, expected):
    """For a forward alone DeepSpeed's stage 3 gathers weights rounded to bfloat16, and may keep them."""
    first = expected[0][0]
    start(learner, model_path, zero_stage=3, precision="autocast")
    learner.call("update", first, timeout_s=60)
    before = learner.call("weights", timeout_s=60)[0]
    assert learner.call("supervised_loss", first.groups[:2], timeout_s=60)[0] > 0
    assert_equal(learner.call("weights", timeout_s=60)[0], before)


@pytest.mark.parametrize(
    ("ranks", "layout", "other_layout"),
    [
        (2, "stage 3", "stage 1, activations again"),
        (2, "stage 0", "stage 3, all offloaded, activations again"),
        (1, "stage 2, optimizer offloaded", "stage 0"),
        (1, "stage 1, activations again", "stage 3"),
        (1, "stage 3", "stage 2, optimizer offloaded"),
    ],
)
def test_a_run_goes_on_under_another_layout(
    learner, single, model_path, expected, tmp_path, ranks, layout, other_layout
):
    """On the other number of ranks and under another stage: the checkpoint's weights to the bit, and after
    one more update those of the learner that was not stopped."""
    batches = expected[0]
    first, second = (learner, single) if ranks == 2 else (single, learner)
    start(first, model_path, **LAYOUTS[layout])
    for batch in batches[:2]:
        first.call("update", batch, timeout_s=60)
    first.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    saved = first.call("weights", timeout_s=60)[0]
    metrics = first.call("update", batches[2], timeout_s=60)[0]

    start(second, model_path, **LAYOUTS[other_layout])
    second.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    assert_equal(second.call("weights", timeout_s=60)[0], saved)
    resumed = second.call("update", batches[2], timeout_s=60)[0]
    for name in ("loss", "grad_norm", "lr"):
        assert resumed[name] == pytest.approx(metrics[name], rel=1e-5)
    difference = worst(second.call("weights", timeout_s=60)[0], first.call("weights", timeout_s=60)[0])
    print(f"{layout} ({ranks} ranks) to {other_layout}: largest weight difference {difference:.1e}")
    assert difference < 1e-6


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_resumed_run_takes_its_new_rate_and_length(single, model_path, expected, tmp_path, zero_stage):
    """The checkpoint says how many updates were made; the rate, its schedule and its end are the new ones."""
    batches = expected[0]
    start(single, model_path, zero_stage=zero_stage)
    for batch in batches[:3]:
        single.call("update", batch, timeout_s=60)
    single.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    saved = single.call("weights", timeout_s=60)[0]
    assert single.call("update", batches[3], timeout_s=60)[0]["lr"] == pytest.approx(LEARNER.lr * 7 / 8)
    usual = single.call("weights", timeout_s=60)[0]

    longer = {"train": TrainConfig(num_steps=20)}
    start(single, model_path, zero_stage=zero_stage, sections=longer, lr=3 * LEARNER.lr)
    single.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    assert single.call("update", batches[3], timeout_s=60)[0]["lr"] == pytest.approx(3 * LEARNER.lr * 17 / 18)
    # AdamW's step, weight decay included, is proportional to the rate.
    weights, factor = single.call("weights", timeout_s=60)[0], (3 * 17 / 18) / (7 / 8)
    moved = {name: weights[name] - saved[name] for name in saved}
    wanted = {name: factor * (usual[name] - saved[name]) for name in saved}
    assert max(float(np.abs(step).max()) for step in wanted.values()) > LEARNER.lr
    assert worst(moved, wanted) < 1e-6
    assert single.call("update", batches[4], timeout_s=60)[0]["lr"] == pytest.approx(3 * LEARNER.lr * 16 / 18)


LORA = LoRAConfig(rank=2, alpha=8, target_modules=("q_proj", "up_proj"))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_adapters_are_trained_merged_and_resumed(learner, single, model_path, expected, tmp_path, zero_stage):
    batches = expected[0]
    start(learner, model_path, zero_stage=zero_stage, lora=LORA, lr=1e-2)
    names = learner.call("trained", timeout_s=60)[0]
    assert names and all(".lora_A." in name or ".lora_B." in name for name in names)
    learner.call("update", batches[0], timeout_s=60)
    learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    learner.call("update", batches[1], timeout_s=60)
    merged = learner.call("weights", timeout_s=60)[0]

    # Hub names; an adapted weight has moved by a matrix of the adapter's rank, any other not at all.
    original = load_model(model_path)
    for name, hub_name in checkpoint_parameters(original, media=False):
        moved = merged[hub_name] - original.get_parameter(name).detach().numpy()
        is_adapted = name.endswith(("q_proj.weight", "up_proj.weight"))
        rank = np.linalg.matrix_rank(moved.astype(np.float64), tol=1e-4) if moved.ndim == 2 else 0
        assert rank == (LORA.rank if is_adapted else 0), name
        assert is_adapted or not moved.any(), name

    # The exported folder, without adapters, scores as the engine does with adapters beside their layers.
    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    exported, groups = load_model(str(tmp_path / "model")), batches[1].groups[:2]
    for name, hub_name in checkpoint_parameters(exported, media=False):
        np.testing.assert_array_equal(exported.get_parameter(name).detach().numpy(), merged[hub_name])
    with torch.no_grad():
        plain = completion_logprobs(exported, groups).rows()
        before = completion_logprobs(original, groups).rows()
    for row, plain_row in zip(learner.call("logprobs", groups, timeout_s=60)[0], plain, strict=True):
        np.testing.assert_allclose(row, plain_row, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(plain, before, strict=True)) > 1e-3

    # Another number of ranks and another stage go on from the adapters' checkpoint.
    start(single, model_path, zero_stage=(zero_stage + 2) % 4, lora=LORA, lr=1e-2)
    single.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    single.call("update", batches[1], timeout_s=60)
    assert worst(single.call("weights", timeout_s=60)[0], merged) < 1e-5
    start(single, model_path, zero_stage=zero_stage)
    with pytest.raises(CheckpointError, match=r"it alone trains \d+ parameters.*does not train.*lora is"):
        single.call("load", str(tmp_path / "checkpoint"), timeout_s=60)

    # Pushed alone, the adapters make the same weights at the other end.
    start(learner, model_path, zero_stage=zero_stage, lora=replace(LORA, push="adapters"), lr=1e-2)
    for batch in batches[:2]:
        learner.call("update", batch, timeout_s=60)
    push = learner.call_one(0, "announce_push", 1, [0], timeout_s=60)
    sending = learner.call_async("push_weights", push)
    factors = collect(push)
    sending.result(timeout_s=60)
    checkpoint = Checkpoint(model_path)
    adapters.check_adapters(
        [(name, tuple(factor.shape)) for name, factor in factors.items()], checkpoint.shapes
    )
    added = dict(adapters.merged(factors.items(), checkpoint.tensor, torch.float32))
    assert added.keys() == {name for name in merged if name.endswith(("q_proj.weight", "up_proj.weight"))}
    assert all(np.abs(tensor.numpy() - merged[name]).max() < 1e-6 for name, tensor in added.items())


@pytest.mark.parametrize(("media", "zero_stage"), [("embeds", 0), ("raw", 2), ("embeds", 3), ("raw", 3)])
def test_a_learner_is_its_own_reference(learner, model_path, expected, zero_stage, media):
    """Without its adapters it is the model that it began with, for ranks of unequal work and for one that has
    none."""
    groups, (batch, *_) = make_groups(load_model(model_path), seed=7), expected[0]
    if media == "raw":
        groups, batch = list(map(with_own_audio, groups)), with_raw_audio(batch)
    reference = ReferenceWorker(ModelConfig(path=model_path, media=media), micro_batch_tokens=64)
    start(learner, model_path, media=media, zero_stage=zero_stage, lora=LORA, lr=1e-2)
    for some in (groups, groups[:1]):
        learner.call("update", batch, timeout_s=60)
        tokens = list(map(TokenGroup.of, some))
        policy = learner.call("logprobs", tokens, timeout_s=60)[0]
        own = list(chain(*learner.call_shards("reference_logprobs", some, timeout_s=60)))
        for row, expected_row in zip(own, chain(*reference.logprobs(some)), strict=True):
            np.testing.assert_allclose(row, expected_row, atol=1e-5)
        # What is trained comes back with them.
        again = learner.call("logprobs", tokens, timeout_s=60)[0]
        assert all(np.array_equal(a, b) for a, b in zip(again, policy, strict=True))
        assert max(np.abs(p - r).max() for p, r in zip(policy, own, strict=True)) > 1e-3


@pytest.mark.parametrize(
    ("precision", "settings"),
    [
        ("autocast", {"zero_stage": 2}),
        ("bf16", {"zero_stage": 2}),
        ("bf16", {"zero_stage": 2, "offload_optimizer": "cpu", "activation_checkpointing": True}),
        ("bf16", {"zero_stage": 3, "lora": replace(LORA, target_modules=("q_proj", "o_proj", "gate_proj"))}),
    ],
)
def test_in_bfloat16_small_updates_add_up(learner, model_path, expected, tmp_path, precision, settings):
    """Half a unit of the last place of a weight of 0.02 in bfloat16 is 3e-5: thirty updates of this rate."""
    settings = {"precision": precision, "lr": 1e-6, "warmup_steps": 0, "weight_decay": 0.0, **settings}
    settings["lr_schedule"] = "constant"
    batch, groups = expected[0][0], make_groups(load_model(model_path), seed=7)
    start(learner, model_path, **settings)
    held = learner.call("dtypes", timeout_s=60)[0]
    assert held["trained"] == ({"torch.float32"} if precision == "autocast" else {"torch.bfloat16"})
    assert held["optimizer"] == {"torch.float32"}

    # Before the first update the reference computes the same, to the bit: the KL is 0.
    config = replace(LEARNER, **settings)
    reference = ReferenceWorker(ModelConfig(path=model_path), micro_batch_tokens=1, learner=config)
    for group, rows in zip(groups, reference.logprobs(groups), strict=True):
        own = learner.call("logprobs", [TokenGroup.of(group)], timeout_s=60)[0]
        assert all(np.array_equal(a, b) for a, b in zip(own, rows, strict=True))

    first, pushed = learner.call("masters", timeout_s=60)[0], learner.call("weights", timeout_s=60)[0]
    for _ in range(3):
        learner.call("update", batch, timeout_s=60)
    masters, later = learner.call("masters", timeout_s=60)[0], learner.call("weights", timeout_s=60)[0]
    for name, master in masters.items():
        assert master.dtype == np.float32
        # Adam's first steps are as long as the rate, whatever the gradient; some adapters' begin at 0.
        assert 1e-6 < np.abs(master - first[name]).max() < 3.3e-6, name
    if precision == "bf16" and "lora" not in settings:
        # Engines get what the learner computes with: the masters, rounded to the nearest.
        names = dict(checkpoint_parameters(load_model(model_path), media=False))
        rounded = {names[name]: torch.tensor(m).bfloat16().float().numpy() for name, m in masters.items()}
        assert_equal({name: later[name] for name in rounded}, rounded)
        stay = [(later[name] == pushed[name]).mean() for name in later if later[name].ndim == 2]
        assert min(stay) > 0.8  # most weights are where they were, and would be for ever without masters

    learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    metrics = learner.call("update", batch, timeout_s=60)[0]
    went_on = learner.call("masters", timeout_s=60)[0]
    start(learner, model_path, **settings)
    learner.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    assert_equal(learner.call("masters", timeout_s=60)[0], masters)
    resumed = learner.call("update", batch, timeout_s=60)[0]
    assert all(resumed[name] == metrics[name] for name in ("loss", "grad_norm", "logprob_max_diff"))
    assert_equal(learner.call("masters", timeout_s=60)[0], went_on)

    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    exported = load_model(str(tmp_path / "model"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "float32"
    if "lora" not in settings:
        for name, weight in exported.named_parameters():
            if name in went_on:
                np.testing.assert_array_equal(weight.detach().numpy(), went_on[name])


@pytest.mark.parametrize(("kind", "zero_stage"), [("speech", 0), ("speech", 2), ("mixture", 3)])
def test_frozen_weights_take_half_and_change_nothing(
    learner, model_path, mixture_path, tmp_path, kind, zero_stage
):
    """A checkpoint in bfloat16 loses nothing in it, and autocast computes in it: bit by bit the same."""
    original = model_path if kind == "speech" else mixture_path
    path = str(tmp_path / "base")
    save_checkpoint(load_model(original, dtype="bfloat16"), path, processor=load_processor(original))
    batch = make_batch(load_model(path), ReferenceWorker(ModelConfig(path=path), 64), seed=0)
    lora = replace(LORA, target_modules=("q_proj",))
    settings = {"zero_stage": zero_stage, "lora": lora, "lr": 1e-2, "precision": "autocast"}
    got = []
    for is_wide in (True, False):
        learner.call("keep_wide", is_wide, timeout_s=60)
        start(learner, path, **settings)
        metrics = [learner.call("update", batch, timeout_s=60)[0]]
        if is_wide:
            learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
        else:
            held = learner.call("frozen_bytes", timeout_s=60)[0]
            start(learner, path, **settings)
            learner.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
        metrics.append(learner.call("update", batch, timeout_s=60)[0])
        exact = [{name: row[name] for name in ("loss", "grad_norm", "logprob_max_diff")} for row in metrics]
        got.append((exact, learner.call("weights", timeout_s=60)[0]))
    (wide, wide_weights), (narrow, weights) = got
    assert wide == narrow
    assert_equal(weights, wide_weights)
    assert held["torch.bfloat16"] > held["torch.float32"]


@pytest.fixture(scope="module")
def text_model_path(tmp_path_factory) -> str:
    """With tied embeddings, in bfloat16."""
    folder = make_text(tmp_path_factory.mktemp("plain"))
    model = load_model(str(folder), dtype="bfloat16")
    target = tmp_path_factory.mktemp("text")
    save_checkpoint(model, target, processor=load_processor(str(folder)))
    return str(target)


@pytest.mark.parametrize("zero_stage", [0, 3])
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("Lfm2", {"layer_types": ["conv", "full_attention"]}), ("Granite", {"logits_scaling": 8.0})],
)
def test_an_architecture_that_does_not_pack_is_refused(single, tmp_path, architecture, settings, zero_stage):
    """Convolutions would mix completions; scaled logits would be taken for plain ones."""
    make_causal_lm(tmp_path, architecture, **settings)
    with pytest.raises(ConfigError, match=rf"model.path: {architecture}ForCausalLM gives other log-prob"):
        start(single, str(tmp_path), zero_stage=zero_stage)


@pytest.fixture(scope="module")
def mixture_path(tmp_path_factory) -> str:
    """A mixture of four experts, two of which answer for a token."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
    return str(make_causal_lm(tmp_path_factory.mktemp("mixture"), "Qwen3Moe", **sizes))


@pytest.fixture(scope="module")
def expected_of_mixture(mixture_path):
    return plain_updates(mixture_path, FACTORS[:3])


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_experts_are_trained_together_and_pushed_one_by_one(
    learner, mixture_path, expected_of_mixture, tmp_path, zero_stage
):
    """transformers holds all experts of a layer in one tensor, checkpoints and engines each by itself."""
    batches, metrics, weights = expected_of_mixture
    start(learner, mixture_path, zero_stage=zero_stage)
    for step, batch in enumerate(batches):
        got = learner.call("update", batch, timeout_s=60)[0]
        assert got["loss"] == pytest.approx(metrics[step]["loss"], rel=1e-4)
        assert got["grad_norm"] == pytest.approx(metrics[step]["grad_norm"], rel=1e-4)
    trained = learner.call("weights", timeout_s=60)[0]
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in trained
    assert set(trained) == set(Checkpoint(mixture_path).shapes)
    assert worst(trained, weights[-1]) < 1e-5

    push = learner.call_one(0, "announce_push", 2, [0], timeout_s=60)
    sending = learner.call_async("push_weights", push)
    assert_equal({name: tensor.numpy() for name, tensor in collect(push).items()}, trained)
    sending.result(timeout_s=60)
    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    exported = Checkpoint(str(tmp_path / "model"))
    assert_equal({name: exported.tensor(name).numpy() for name in trained}, trained)
    assert_equal(language_weights(load_model(str(tmp_path / "model"))), trained)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_tied_embeddings_are_exported_once_from_every_stage(learner, text_model_path, tmp_path, zero_stage):
    reference = ReferenceWorker(ModelConfig(path=text_model_path), micro_batch_tokens=64)
    batch = make_batch(load_model(text_model_path), reference, seed=0)
    start(learner, text_model_path, zero_stage=zero_stage)
    learner.call("update", batch, timeout_s=60)
    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as tensors:
        names = set(tensors.keys())
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    with torch.no_grad():
        exported = completion_logprobs(load_model(str(tmp_path / "model")), batch.groups).rows()
    for row, own in zip(exported, learner.call("logprobs", batch.groups, timeout_s=60)[0], strict=True):
        np.testing.assert_allclose(row, own, atol=1e-5)
    assert load_processor(str(tmp_path / "model"))("the speaker")["input_ids"]
    assert (tmp_path / "model" / "generation_config.json").is_file()


def test_a_place_that_cannot_be_written_holds_up_no_rank(learner, text_model_path, tmp_path):
    """Rank 0 alone writes the model; rank 1 hears of the failure, and both go on."""
    start(learner, text_model_path)
    (tmp_path / "file").write_text("mine")
    for method, what in (("export", "model"), ("save", "checkpoint")):
        with pytest.raises(CheckpointError, match=rf"file/{what}: the {what} cannot be written there: "):
            learner.call(method, str(tmp_path / "file" / what), timeout_s=20)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("of an earlier run")
    learner.call("export", str(tmp_path / "model"), timeout_s=20)
    assert load_model(str(tmp_path / "model")) and not (tmp_path / "model" / "old").exists()
    learner.call("save", str(tmp_path / "checkpoint"), timeout_s=20)


def test_for_stage_3_no_rank_ever_holds_the_whole_model(learner, text_model_path):
    start(learner, text_model_path)
    for held, total in learner.call("load_in_parts", text_model_path, timeout_s=60):
        assert held < 0.51 * total


def with_first(batch, **changes):
    """The batch with fields of its first group replaced."""
    return replace(batch, groups=(replace(batch.groups[0], **changes), *batch.groups[1:]))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_step_that_is_not_finite_changes_nothing(learner, model_path, expected, tmp_path, layout):
    batches = expected[0]
    first = batches[1].groups[0]
    nan_loss = with_first(batches[1], advantages=np.full_like(first.advantages, np.nan), prompt_id="nan")

    def run(*steps) -> tuple[list[dict], dict[str, np.ndarray]]:
        start(learner, model_path, tmp_path, **LAYOUTS[layout], max_skipped_steps=2)
        by_rank = [learner.call(method, batch, timeout_s=60) for method, batch in steps]
        assert all(one["skipped_steps"] == other["skipped_steps"] for one, other in by_rank)
        return [one for one, _ in by_rank], learner.call("weights", timeout_s=60)[0]

    good = [("update", batches[0]), ("update", batches[1])]
    bad = [("update", nan_loss), ("update_with_nan_gradient", batches[1])]
    _, undisturbed = run(*good)
    metrics, weights = run(good[0], *bad, good[1])
    assert_equal(weights, undisturbed)
    assert [m["skipped_steps"] for m in metrics] == [0, 1, 2, 2]
    assert metrics[3]["lr"] == pytest.approx(LEARNER.lr)  # the schedule waited
    assert not np.isfinite([metrics[1]["loss"], metrics[1]["grad_norm"], metrics[2]["grad_norm"]]).any()
    assert np.isfinite(metrics[2]["loss"])
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(row["step"], row["reason"]) for row in rows] == [(2, "loss"), (3, "gradient")]
    assert "nan" in rows[0]["prompts"] and rows[1]["prompts"] == [f"1/{index}" for index in range(5)]

    # Two in a row were allowed. The third ends the run, and there is still something to save.
    for _ in range(2):
        learner.call("update", nan_loss, timeout_s=60)
    with pytest.raises(NonFiniteError, match=r"3 optimizer steps in a row .*max_skipped_steps is 2.*nan"):
        learner.call("update", nan_loss, timeout_s=60)
    learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    assert_equal(learner.call("weights", timeout_s=60)[0], undisturbed)


def test_a_checkpoint_of_another_model_is_refused(single, model_path, tmp_path):
    """Even of one with the same shapes, whose frozen weights differ."""
    start(single, model_path)
    single.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
    other = tmp_path / "other"
    make_qwen2_audio(other, chunk_length=2)
    start(single, str(other))
    with pytest.raises(CheckpointError, match="frozen_fingerprint is"):
        single.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    header = json.loads((tmp_path / "checkpoint" / "engine.json").read_text())
    (tmp_path / "checkpoint" / next(iter(header["parameters"].values()))["file"]).unlink()
    start(single, model_path)
    with pytest.raises(CheckpointError, match=r"state-00000\.safetensors: missing"):
        single.call("load", str(tmp_path / "checkpoint"), timeout_s=60)


def plain_second_loss(model, batch, old: list[torch.Tensor]) -> torch.Tensor:
    """CISPO, k2, constant length, truncated importance sampling, an entropy bonus: sample by sample."""
    total, at = torch.zeros(()), 0
    for group in batch.groups:
        for k, distribution in enumerate(plain_distributions(model, group)):
            logprobs = distribution.gather(-1, torch.tensor(group.token_ids[k])[:, None])[:, 0]
            total = total + 0.05 * (distribution.exp() * distribution).sum()
            weight = (old[at] - torch.tensor(group.rollout_logprobs[k])).exp().clamp(max=1.1)
            ratio = (logprobs.detach() - old[at]).exp().clamp(0.99, 1.01)
            total = total - (weight * ratio * float(group.advantages[k]) * logprobs).sum()
            reference = torch.tensor(group.reference_logprobs[k])
            rollout = torch.tensor(group.rollout_logprobs[k])
            of_policy = (logprobs.detach() - rollout).exp().clamp(max=1.1)
            total = total + 0.3 * (of_policy * (logprobs - reference) ** 2).sum() / 2
            at += 1
    return total / (batch.num_sequences * 50)


def test_later_updates_on_a_batch_start_from_the_learners_first_logprobs(
    learner, model_path, expected, tmp_path
):
    batch = expected[0][0]
    algorithm = AlgorithmConfig(
        loss="cispo",
        clip_low=0.01,
        clip_high=0.01,
        kl_coef=0.3,
        kl_estimator="k2",
        loss_aggregation="constant",
        correction="tis",
        correction_high=1.1,
        entropy_coef=0.05,
    )
    sections = {"algorithm": algorithm, "rollout": RolloutConfig(max_tokens=50)}
    steps = {"updates_per_batch": 2, "num_mini_batches": 2}
    start(learner, model_path, sections=sections, zero_stage=2, over_budget="drop", **steps)
    got = learner.call("update", batch, timeout_s=60)[0]
    weights = learner.call("weights", timeout_s=60)[0]

    model = load_model(model_path)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("audio_tower" not in name and "multi_modal_projector" not in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNER.lr, betas=LEARNER.betas, weight_decay=LEARNER.weight_decay
    )
    with torch.no_grad():
        old = [plain_logprobs(model, group) for group in batch.groups]
    half = round(len(batch.groups) / 2)
    losses = []
    # The warm-up of two and the line after it count optimizer steps, of which ten batches have 40.
    for factor, part in zip((0.5, 1.0, 1.0, 37 / 38), [slice(half), slice(half, None)] * 2, strict=True):
        groups = batch.groups[part]
        num_sequences = sum(len(group.token_ids) for group in groups)
        mini_batch = replace(batch, groups=groups, num_sequences=num_sequences)
        loss = plain_second_loss(model, mini_batch, [row for rows in old[part] for row in rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, LEARNER.max_grad_norm)
        optimizer.param_groups[0]["lr"] = LEARNER.lr * factor
        optimizer.step()
        losses.append(loss.item())
    assert got["loss"] == pytest.approx(sum(losses[2:]) / 2, rel=1e-5) and got["optimizer_steps"] == 4
    assert abs(losses[2] - losses[0]) > 1e-4 * abs(losses[0])  # the second pass is another one
    names = checkpoint_parameters(model, media=False)
    difference = max(
        np.abs(weights[hub] - model.get_parameter(name).detach().numpy()).max() for name, hub in names
    )
    print(f"2 passes, 2 mini-batches: loss {got['loss']:.6f}, largest weight difference {difference:.1e}")
    assert difference < 1e-5
    # The rollout's noise is up to 0.3 either way, so about a third of the tokens is above 1.1.
    assert 0.2 < got["correction_fraction"] < 0.5
    assert 1.2 < got["correction_ratio_max"] < 1.36
    assert 0.9 < got["correction_ratio_mean"] < 1.1

    # Adapters' dropout is a function of seed and step, that of old logprobs too. What is compared with the
    # rollout is the first mini-batch, which older weights wrote here.
    is_old = [
        tuple(np.zeros(len(ids), dtype=bool) for ids in group.token_ids) for group in batch.groups[:half]
    ]
    older = [replace(group, is_current=rows) for group, rows in zip(batch.groups, is_old, strict=False)]
    batch = replace(batch, groups=(*older, *batch.groups[half:]))
    lora = replace(LORA, dropout=0.5)
    start(learner, model_path, sections=sections, zero_stage=2, lora=lora, over_budget="drop", **steps)
    learner.call("update", batch, timeout_s=60)
    learner.call("save", str(tmp_path / "saved"), timeout_s=60)
    once, again = {}, {}
    for found in (once, again):
        learner.call("load", str(tmp_path / "saved"), timeout_s=60)
        found |= learner.call("update", batch, timeout_s=60)[0]
        del found["tokens_per_second"]
    assert once == again and once["current_fraction"] == once["logprob_max_diff"] == 0


def test_an_actor_group_names_who_was_waited_for():
    group = ActorGroup("sleeper", Sleeper, [{"rank": 0}, {"rank": 1}], num_cpus=0.1)
    assert group.call_shards("double", [1, 2, 3, 4, 5], timeout_s=30) == [2, 4, 6, 8, 10]
    assert group.call_each("double", [([1],), ([7],)], timeout_s=30) == [[2], [14]]
    with pytest.raises(DeadlineError, match=r"sleeper\[1\]\.sleep .* 0\.5 s"):
        group.call("sleep", 2.0, timeout_s=0.5)
    start_time = time.monotonic()
    with pytest.raises(CheckpointError, match="disk full"):
        group.call("fail", timeout_s=30)
    assert time.monotonic() - start_time < 20  # did not wait for the other rank
    group.shutdown()

    group = ActorGroup("sleeper", Sleeper, [{"rank": 0}, {"rank": 1}], num_cpus=0.1)
    with pytest.raises(ActorError, match=r"sleeper\[1\] died in die"):
        group.call("die", timeout_s=30)
    group.shutdown()
    group.shutdown()


def test_what_the_cluster_lacks_is_said_in_time():
    start_time = time.monotonic()
    with pytest.raises(PlacementError) as error:
        reserve(
            [Bundle(role="rollout", num_cpus=64), Bundle(role="learner", num_cpus=1, num_gpus=8)], timeout_s=1
        )
    assert time.monotonic() - start_time < 10
    message = str(error.value)
    assert "1 x rollout (64 CPU, 0 GPU), 1 x learner (1 CPU, 8 GPU); together 65 CPU, 8 GPU" in message
    assert "cluster: 2 CPU, 0 GPU on 1 node(s)" in message
    assert "free " in message
    reserve([Bundle(role="rollout", num_cpus=0.5)], timeout_s=20).release()  # nothing stayed reserved
