"""The learner for real: two DeepSpeed ranks as Ray actors against one process of plain torch."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import ray
import ray.cloudpickle
import torch
from tiny_models import make_qwen2_audio

from rlcore.actors.group import ActorGroup
from rlcore.actors.learner import LearnerWorker, start_learner
from rlcore.actors.reference import ReferenceWorker
from rlcore.algorithms.batching import micro_batches, shard_groups
from rlcore.config import AlgorithmConfig, LearnerConfig, ModelConfig, RunConfig, TrainConfig
from rlcore.engines.hf_model import audio_token_id, checkpoint_parameters, load_model
from rlcore.engines.logprobs import completion_logprobs
from rlcore.errors import ActorError, CheckpointError, DeadlineError, PlacementError
from rlcore.placement import Bundle, reserve
from rlcore.types import Completion, Group, Prompt, TrainBatch, TrainGroup
from rlcore.weight_sync import shared_memory
from rlcore.weight_sync.buckets import Manifest

pytestmark = pytest.mark.integration

LEARNER = LearnerConfig(
    num_ranks=2,
    num_cpus=0.5,
    lr=3e-4,
    lr_schedule="linear",
    warmup_steps=2,
    weight_decay=0.01,
    max_grad_norm=0.5,
    micro_batch_tokens=44,
    timeout_s=60,
)
LENGTHS = ((3, 20, 7), (11, 2, 2, 9), (30,), (5, 5), (14, 1, 8))
"""Completion lengths of the groups of a batch."""


class Probe(LearnerWorker):
    """A learner rank that can be built anew in its process, and looked into."""

    def configure(self, config: RunConfig) -> None:
        if hasattr(self, "_engine"):
            self.close()
            self._engine.close()
        self._config = config

    def weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self._engine.iter_weights()}


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
    # The classes above live in a test file, which no worker could import.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> str:
    return str(make_qwen2_audio(tmp_path_factory.mktemp("model")))


def make_groups(model, seed: int) -> list[Group]:
    """Groups of unequal sizes; the last has no audio."""
    rng = np.random.default_rng(seed)
    placeholder, hidden_size = audio_token_id(model.config), model.config.get_text_config().hidden_size
    groups = []
    for index, lengths in enumerate(LENGTHS):
        num_audio = 0 if index == len(LENGTHS) - 1 else int(rng.integers(3, 9))
        text = rng.integers(20, 300, size=6)
        embeds = rng.normal(size=(num_audio, hidden_size)).astype(np.float32)
        completions = tuple(
            Completion(
                token_ids=tuple(rng.integers(20, 300, size=length).tolist()),
                logprobs=(),
                text="",
                finish_reason="stop",
                policy_version=0,
            )
            for length in lengths
        )
        groups.append(
            Group(
                prompt=Prompt(id=str(index), text=""),
                prompt_token_ids=(*text[:3].tolist(), *[placeholder] * num_audio, *text[3:].tolist()),
                completions=completions,
                media_inputs={"audio_embeds": embeds} if num_audio else {},
            )
        )
    return groups


def make_batch(model, reference: ReferenceWorker, seed: int) -> TrainBatch:
    """Rollout logprobs off by up to 0.3, so that some tokens are clipped; the reference off by 0.5."""
    rng = np.random.default_rng(seed)
    groups = []
    sources = make_groups(model, seed)
    for group, logprobs in zip(sources, reference.logprobs(sources), strict=True):
        groups.append(
            TrainGroup(
                prompt_token_ids=np.array(group.prompt_token_ids),
                media_inputs=group.media_inputs,
                token_ids=tuple(np.array(completion.token_ids) for completion in group.completions),
                rollout_logprobs=tuple(
                    row + rng.uniform(-0.3, 0.3, row.shape).astype(np.float32) for row in logprobs
                ),
                reference_logprobs=tuple(
                    row + rng.uniform(-0.5, 0.5, row.shape).astype(np.float32) for row in logprobs
                ),
                advantages=rng.normal(size=len(logprobs)).astype(np.float32),
            )
        )
    lengths = [len(tokens) for group in groups for tokens in group.token_ids]
    return TrainBatch(
        groups=tuple(groups), num_sequences=len(lengths), num_tokens=sum(lengths), policy_version=0
    )


def plain_loss(model, batch: TrainBatch, algorithm: AlgorithmConfig) -> torch.Tensor:
    """The loss of the whole batch, written out sample by sample."""
    total = torch.zeros(())
    for group in batch.groups:
        scored = completion_logprobs(model, [group])
        for k, tokens in enumerate(group.token_ids):
            logprobs = scored.logprobs[k, : len(tokens)]
            ratio = (logprobs - torch.tensor(group.rollout_logprobs[k])).exp()
            advantage = float(group.advantages[k])
            low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
            log_r = torch.tensor(group.reference_logprobs[k]) - logprobs
            total = total + (-surrogate + algorithm.kl_coef * (log_r.exp() - 1 - log_r)).sum()
    return total / batch.num_tokens


@pytest.fixture(scope="module")
def expected(model_path):
    """Two updates in plain torch: batches, losses, gradient norms, and the weights by hub name after each."""
    torch.set_num_threads(1)
    algorithm = AlgorithmConfig()
    model = load_model(model_path)
    reference = ReferenceWorker(ModelConfig(path=model_path), micro_batch_tokens=64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("audio_tower" not in name and "multi_modal_projector" not in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNER.lr, betas=LEARNER.betas, weight_decay=LEARNER.weight_decay
    )
    batches, metrics, weights = [], [], []
    for step, factor in enumerate((0.5, 1.0)):  # the warm-up
        batches.append(make_batch(model, reference, seed=step))
        loss = plain_loss(model, batches[-1], algorithm)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, LEARNER.max_grad_norm)
        optimizer.param_groups[0]["lr"] = LEARNER.lr * factor
        optimizer.step()
        metrics.append({"loss": loss.item(), "grad_norm": norm.item(), "lr": LEARNER.lr * factor})
        names = checkpoint_parameters(model, media=False)
        weights.append({hub: model.get_parameter(name).detach().numpy().copy() for name, hub in names})
    return batches, metrics, weights


@pytest.fixture(scope="module")
def learner(cluster):
    reservation = reserve([Bundle(role="learner", num_cpus=0.5)] * 2, timeout_s=20)
    arguments = [{"config": None, "rank": rank} for rank in range(2)]
    group = ActorGroup(
        "learner", Probe, arguments, num_cpus=0.5, reservation=reservation, env_vars={"OMP_NUM_THREADS": "1"}
    )
    yield group
    group.shutdown()
    reservation.release()


def start(learner: ActorGroup, model_path: str, zero_stage: int) -> None:
    config = RunConfig(
        model=ModelConfig(path=model_path),
        learner=replace(LEARNER, zero_stage=zero_stage),
        train=TrainConfig(num_steps=10),
    )
    learner.call("configure", config, timeout_s=60)
    start_learner(learner, timeout_s=60)


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_batch_gives_the_ranks_unequal_work(expected):
    """What the next test relies on: one rank has to pad with an empty micro-batch."""
    counts = []
    for batch in expected[0]:
        shards = shard_groups(batch.groups, 2)
        counts.append([len(micro_batches(shard, LEARNER.micro_batch_tokens)) for shard in shards])
    assert all(min(count) > 1 for count in counts), counts
    assert any(count[0] != count[1] for count in counts), counts


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_ranks_do_what_plain_torch_does(learner, model_path, expected, tmp_path, zero_stage):
    batches, metrics, weights = expected
    start(learner, model_path, zero_stage)

    for step, batch in enumerate(batches):
        if step == 1:
            learner.call("save", str(tmp_path / "checkpoint"), timeout_s=60)
        by_rank = learner.call("update", batch, timeout_s=60)
        for name, value in metrics[step].items():
            assert by_rank[0][name] == by_rank[1][name] == pytest.approx(value, rel=1e-5), name
        if step == 0:
            # The reference is the policy that starts, so the difference is the noise that was put on.
            assert 0.29 < by_rank[0]["logprob_max_diff"] < 0.3001
            assert by_rank[0]["logprob_mean_diff"] == pytest.approx(0.15, abs=0.02)
            assert 0 < by_rank[0]["clip_fraction"] < 0.5
        got = learner.call("weights", timeout_s=60)
        assert_equal(got[0], got[1])
        difference = max(np.abs(got[0][name] - weights[step][name]).max() for name in weights[step])
        print(f"stage {zero_stage} update {step + 1}: largest weight difference {difference:.1e}")
        assert difference < 1e-5 < LEARNER.lr / 10  # a step moves a weight by about the learning rate

    # The same weights through the rollout's door, and in a folder that transformers loads.
    push = learner.call("push_weights", 2, timeout_s=60)[0]
    manifest = Manifest.from_rows(push.update_info["tensors"])
    payload = shared_memory.read(push.update_info["path"], 2, push.update_info["checksum"], manifest)
    assert_equal({name: view.numpy() for name, view in manifest.views(payload)}, got[0])
    learner.call("export", str(tmp_path / "model"), timeout_s=60)
    exported, original = load_model(str(tmp_path / "model")), load_model(model_path)
    for name, hub_name in checkpoint_parameters(exported):
        value = got[0].get(hub_name, original.get_parameter(name).detach().numpy())
        np.testing.assert_array_equal(exported.get_parameter(name).detach().numpy(), value, err_msg=name)

    # A fresh engine goes on bit by bit from the checkpoint between the updates.
    start(learner, model_path, zero_stage)
    learner.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    resumed = learner.call("update", batches[1], timeout_s=60)[0]
    assert (resumed["loss"], resumed["lr"]) == (by_rank[0]["loss"], by_rank[0]["lr"])
    assert_equal(learner.call("weights", timeout_s=60)[0], got[0])

    # Under another ZeRO stage it goes on to the same weights, to rounding.
    start(learner, model_path, (zero_stage + 1) % 4)
    learner.call("load", str(tmp_path / "checkpoint"), timeout_s=60)
    learner.call("update", batches[1], timeout_s=60)
    moved = learner.call("weights", timeout_s=60)[0]
    assert max(np.abs(moved[name] - got[0][name]).max() for name in moved) < 1e-6


def test_an_actor_group_names_who_was_waited_for():
    group = ActorGroup("sleeper", Sleeper, [{"rank": 0}, {"rank": 1}], num_cpus=0.1)
    assert group.call_shards_async("double", [1, 2, 3, 4, 5]).result(timeout_s=30) == [2, 4, 6, 8, 10]
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
