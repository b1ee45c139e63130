"""Where tensors lie in the learner, the reference and a push, on a fake accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_accelerator import WrongDeviceError, fake_accelerator
from tiny_models import (
    AUDIO_PROMPT,
    TEXT_PROMPT,
    make_causal_lm,
    make_qwen2_5_omni,
    make_qwen2_audio,
    make_text,
    tone,
)

from rlcore.actors import reference_worker
from rlcore.algorithms.aggregation import BatchTotals
from rlcore.config import AlgorithmConfig, LearnerConfig, LoRAConfig, ModelConfig
from rlcore.engines import packing, scorer
from rlcore.engines.logprobs import CompletionLogprobs, TokenGroup
from rlcore.engines.scorer import Scorer, check_packing, load_policy
from rlcore.engines.shares import PolicyObjective, SupervisedObjective
from rlcore.engines.trainable import checkpoint_activations, choose_trained
from rlcore.engines.weights import rollout_weights
from rlcore.models.hf_model import audio_token_id
from rlcore.models.media import MediaEncoder
from rlcore.models.media_modules import detach_media_modules
from rlcore.types import Completion, Group, Prompt, TrainGroup
from rlcore.weight_sync.buckets import Layout, Packer

pytestmark = pytest.mark.slow

LENGTHS = (5, 9, 30)


def make_windowed(folder: Path) -> Path:
    return make_causal_lm(folder, "Mistral", sliding_window=6)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "text": make_text,
    "window": make_windowed,
    "audio": make_qwen2_audio,
    "omni": make_qwen2_5_omni,
}


@dataclass(frozen=True)
class Case:
    model: str
    media: str = "embeds"
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    head_dtype: str = "auto"
    largest_mask: int = packing._LARGEST_MASK


LORA = LoRAConfig(rank=4)
CASES = {
    "text": Case("text"),
    "text, autocast, again": Case(
        "text", learner=LearnerConfig(precision="autocast", activation_checkpointing=True)
    ),
    "text, adapters, autocast": Case("text", learner=LearnerConfig(precision="autocast", lora=LORA)),
    "text, long answers": Case("text", largest_mask=64),
    "text, windows": Case("window"),
    "text, windows, long answers": Case("window", largest_mask=64),
    "audio": Case("audio"),
    "audio, raw, bf16": Case("audio", "raw", LearnerConfig(precision="bf16"), "float32"),
    "omni": Case("omni", "raw"),
    "omni, adapters, autocast, again": Case(
        "omni", "raw", LearnerConfig(precision="autocast", lora=LORA, activation_checkpointing=True)
    ),
    "omni, bf16": Case("omni", "raw", LearnerConfig(precision="bf16")),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, make in MAKERS.items():
        if name != "omni" or pytest.importorskip("torchvision"):
            made[name] = str(make(tmp_path_factory.mktemp(name)))
    return made


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.setattr(reference_worker, "own_device", lambda: "cuda")
    # transformers asks CUDA itself for room before it puts weights there one by one.
    load = scorer.load_model
    monkeypatch.setattr(
        scorer, "load_model", lambda path, *, dtype, device: load(path, dtype=dtype).to(device)
    )
    with fake_accelerator():
        yield


def groups_of(case: Case, path: str) -> list[Group]:
    """Makes two groups, each of a prompt with its own recording where the model takes any."""
    has_audio = case.model in ("audio", "omni")
    encoder = MediaEncoder(
        path,
        lambda prompt: {"audio": [tone(prompt.media["index"], 0.8)], "sampling_rate": 16000},
        media=case.media,
    )
    text = AUDIO_PROMPT if has_audio else TEXT_PROMPT
    prompts = [Prompt(id=str(i), text=text, media={"index": i} if has_audio else {}) for i in range(2)]
    rng, groups = np.random.default_rng(0), []
    for prompt, encoded in zip(prompts, encoder.encode(prompts), strict=True):
        completions = tuple(
            Completion(
                token_ids=tuple(rng.integers(20, 60, size=length).tolist()),
                logprobs=tuple((-rng.random(length)).tolist()),
                text="",
                finish_reason="stop",
                policy_version=0,
            )
            for length in LENGTHS
        )
        groups.append(
            Group(
                prompt=prompt,
                prompt_token_ids=tuple(encoded.prompt_token_ids),
                completions=completions,
                media_inputs=encoded.media_inputs,
            )
        )
    return groups


def train_groups(groups: Sequence[Group], reference: Sequence[Sequence[np.ndarray]]) -> list[TrainGroup]:
    return [
        TrainGroup(
            prompt_id=group.prompt.id,
            prompt_token_ids=np.array(group.prompt_token_ids),
            token_ids=tuple(np.array(c.token_ids) for c in group.completions),
            media_inputs=group.media_inputs,
            rollout_logprobs=tuple(np.array(c.logprobs, dtype=np.float32) for c in group.completions),
            reference_logprobs=tuple(rows),
            advantages=np.array([1.0, -0.5, 0.25], dtype=np.float32),
        )
        for group, rows in zip(groups, reference, strict=True)
    ]


def walk(case: Case, path: str, groups: Sequence[Group], model: ModelConfig) -> None:
    """Goes the learner's way through one micro-batch, from the reference to the push."""
    worker = reference_worker.ReferenceWorker(model, 4096, learner=case.learner)
    batch = train_groups(groups, worker.logprobs(groups))

    policy = load_policy(model, case.learner)
    choose_trained(policy, model, case.learner)
    if case.media == "embeds":
        detach_media_modules(policy)
    if case.learner.activation_checkpointing:
        checkpoint_activations(policy)
    policy.to("cuda")
    score = Scorer(policy, case.learner.compute_dtype)
    if audio_token_id(policy.config) is None:
        check_packing(policy, Scorer(policy), compute_dtype="bfloat16")

    objective = PolicyObjective(
        totals=BatchTotals(num_tokens=88, num_sequences=6, max_tokens=30),
        algorithm=AlgorithmConfig(kl_coef=0.04, entropy_coef=0.01),
        recompute_logprobs=True,
    )
    scored = CompletionLogprobs(**score(batch, temperature=0.9, entropy_grad=True))
    share = objective.share(scored, batch, 0)
    share.loss.backward()
    assert scored.logprobs.device.type == "cuda" and share.loss.device.type == "cuda"
    grads = [p.grad for p in policy.parameters() if p.requires_grad and p.grad is not None]
    assert grads and all(grad.device.type == "cuda" for grad in grads)
    assert all(np.isfinite(row).all() for row in scored.rows())
    assert all(np.isfinite(float(value)) for value in (share.sums | share.maxima).values())

    tokens = list(map(TokenGroup.of, groups))
    SupervisedObjective(total_weight=88.0).share(
        CompletionLogprobs(**score(tokens)), tokens, 0
    ).loss.backward()

    pushed = list(rollout_weights(policy))
    layout = Layout.of([(w.hub_name, w.shape) for w in pushed], "bfloat16", 1 << 16)
    packer = Packer((w.hub_name, w.tensor(torch.bfloat16)) for w in pushed)
    buffer = torch.zeros(layout.largest, dtype=torch.uint8)
    for bucket in layout.buckets:
        packer.fill(bucket, buffer)
    packer.finish()


@pytest.mark.parametrize("name", CASES)
def test_tensors_lie_where_a_gpu_needs_them(
    name: str, paths: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    case = CASES[name]
    path = paths[case.model]
    groups = groups_of(case, path)
    monkeypatch.setattr(packing, "_LARGEST_MASK", case.largest_mask)
    request.getfixturevalue("on_gpu")
    walk(case, path, groups, ModelConfig(path=path, media=case.media, head_dtype=case.head_dtype))


def _mask_on_the_cpu(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    return _MASK(lengths.cpu(), longest)


def _rows_without_cpu(self: CompletionLogprobs) -> list[np.ndarray]:
    return list(self.logprobs.detach().numpy())


_MASK = packing._mask


@pytest.mark.parametrize(
    ("place", "fault", "message"),
    [
        ("rlcore.engines.packing._mask", _mask_on_the_cpu, "attention.* on the CPU"),
        ("rlcore.engines.logprobs.CompletionLogprobs.rows", _rows_without_cpu, r"numpy\(\) of a tensor"),
    ],
)
def test_a_fault_is_found(
    place: str,
    fault: object,
    message: str,
    paths: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    on_gpu: None,
) -> None:
    monkeypatch.setattr(place, fault)
    case = CASES["text"]
    groups = groups_of(case, paths["text"])
    with pytest.raises(WrongDeviceError, match=message):
        walk(case, paths["text"], groups, replace(ModelConfig(), path=paths["text"]))
