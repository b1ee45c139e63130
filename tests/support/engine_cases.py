"""Checks what an engine in the tests' own process must do with any checkpoint, and holds the means for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tiny_models import AUDIO_PROMPT, TEXT_PROMPT, tone
from transformers import PreTrainedModel
from weight_pushes import push_to

from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import LoRAConfig, ModelConfig, RolloutConfig, TargetConfig, WeightSyncConfig
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.sampling import EngineRequest, Sampling
from rlcore.engines.trainable import add_lora
from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.engines.weights import (
    adapter_weights,
    changed_weights,
    in_parts,
    model_weights,
    rollout_weights,
)
from rlcore.errors import ConfigError, WeightSyncError
from rlcore.models.hf_model import load_model, load_processor, media_token_ids
from rlcore.models.media import EncodedPrompt, MediaEncoder
from rlcore.models.names import is_media_parameter
from rlcore.types import Group, Prompt, RolloutJob
from rlcore.weight_sync import make_sender

if TYPE_CHECKING:
    from rlcore.weight_sync.base import WeightSender

# Few tokens per step, so that the prompts of one call do not fit into one step: seeds must survive that.
ENGINE = {"max_model_len": 256, "max_num_batched_tokens": 256}


class ToneTask:
    """Serves the tones that a prompt's media name, one or several."""

    def load_media(self, prompt: Prompt) -> dict[str, object]:
        indices = prompt.media.get("tones") or [prompt.media["tone"]]
        audio = [tone(index, 0.6 + 0.4 * index) for index in indices]
        return {
            "audio": [a[: len(a) - prompt.media.get("short_of", 0)] for a in audio],
            "sampling_rate": 16000,
        }


class PictureTask:
    """Serves noise: images and videos of the sizes that a prompt's media name, and its tones."""

    def load_media(self, prompt: Prompt) -> dict[str, object]:
        rng = np.random.default_rng(prompt.media["seed"])
        found: dict[str, object] = {
            name: [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in prompt.media.get(name, ())]
            for name in ("images", "videos")
        }
        return found | (ToneTask().load_media(prompt) if "tones" in prompt.media else {})


PROMPTS = [Prompt(id=f"p{i}", text=AUDIO_PROMPT, media={"tone": i}) for i in range(5)]


def worst_difference(model: torch.nn.Module, groups: Sequence[Group], *, temperature: float = 1.0) -> float:
    """Returns the largest difference of log-probabilities between the rollout and the learner's function."""
    tokens = [TokenGroup.of(group) for group in groups]
    with torch.no_grad():
        rows = completion_logprobs(model, tokens, temperature=temperature).rows()
    rollout = [np.array(c.logprobs) for group in groups for c in group.completions]
    return max(float(np.abs(a - b).max()) for a, b in zip(rows, rollout, strict=True))


def perturb(model: torch.nn.Module, seed: int, *, media: bool) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if media or not is_media_parameter(model, name):
                parameter.add_(torch.randn_like(parameter) * 0.05)


def weights(model: torch.nn.Module, *, media: bool) -> list[tuple[str, torch.Tensor]]:
    parts = in_parts(model, model_weights(model, media=media))
    return [(part.hub_name, part.tensor()) for part in parts]


def sender_of(model: torch.nn.Module, *, media: bool, **settings: Any) -> WeightSender | None:
    shapes = [(name, tuple(tensor.shape)) for name, tensor in weights(model, media=media)]
    config = WeightSyncConfig(**{"timeout_s": 60, **settings})
    return make_sender(config, shapes, dtype="float32")


def transformers_greedy(
    model: PreTrainedModel, path: str, prompt: Prompt, max_tokens: int
) -> tuple[int, ...]:
    """Returns the tokens of the model's own greedy generation from the raw audio."""
    processor = load_processor(path)
    media = ToneTask().load_media(prompt) if prompt.media else {}
    inputs = processor(text=prompt.text, return_tensors="pt", **media)
    tokenizer = getattr(processor, "tokenizer", processor)
    banned = media_token_ids(model.config, tokenizer)
    tokens = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, suppress_tokens=banned)
    return tuple(tokens[0, inputs["input_ids"].shape[1] :].tolist())


def check_adapters(path: str) -> None:
    """Checks that adapters pushed alone give the answers of the model that they were trained in."""
    model, engine = load_model(path), VLLMEngine(path, engine_args=ENGINE)
    add_lora(model, LoRAConfig(rank=4, alpha=16), ("audio_tower", "visual"))

    def factors() -> list[tuple[str, torch.Tensor]]:
        return [(weight.hub_name, weight.tensor()) for weight in adapter_weights(model)]

    shapes = [(name, tuple(tensor.shape)) for name, tensor in factors()]
    sender = make_sender(WeightSyncConfig(timeout_s=60), shapes, dtype="float32")
    prompt = Prompt(id="t", text=TEXT_PROMPT)
    (encoded,) = MediaEncoder(path, ToneTask().load_media).encode([prompt])
    loaded = engine.weight_digests()
    assert push_to(sender, 1, factors(), [engine.apply_weights]) == [1]
    assert engine.weight_digests() == loaded  # untrained adapters change no bit
    answers = []
    for version in (1, 2):  # the second push does not add to the first
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name:
                    parameter.normal_(std=0.15, generator=torch.Generator().manual_seed(version))
        assert push_to(sender, version, factors(), [engine.apply_weights]) == [version]
        request = EngineRequest(id="t", text=TEXT_PROMPT, encoded=encoded)
        (answer,) = engine.generate([request], Sampling(max_tokens=24, temperature=0.0))[0]
        assert answer.token_ids == transformers_greedy(model, path, prompt, 24)
        answers.append(answer.token_ids)
    assert answers[0] != answers[1]
    sender.close()
    check_changed_weights(model, engine)
    other = make_sender(WeightSyncConfig(timeout_s=60), [("lm.weight::lora_A", (4, 8))], dtype="float32")
    with pytest.raises(WeightSyncError, match="the engine has no lm"):
        push_to(other, 3, [("lm.weight::lora_A", torch.zeros(4, 8))], [engine.apply_weights])
    other.close()


def check_first_push(engine: VLLMEngine, model: PreTrainedModel, **settings: Any) -> None:
    """Checks that a push of untrained weights leaves, bit by bit, what the engine loaded; and that one that
    changes a tensor, or whose loader drops it, does not."""
    sender, loaded = sender_of(model, media=False, **settings), engine.weight_digests()
    *others, (hub_name, tensor) = weights(model, media=False)

    def differing(version: int, last: torch.Tensor = tensor) -> list[str]:
        engine.forget_weights()
        assert push_to(sender, version, [*others, (hub_name, last)], [engine.apply_weights]) == [version]
        digests = engine.weight_digests()
        assert digests.keys() == loaded.keys()
        return [name for name, digest in digests.items() if digest != loaded[name]]

    def drop_the_last(inner: Any) -> None:
        load = inner.load_weights
        inner.load_weights = lambda tensors: load((n, t) for n, t in tensors if n != hub_name)

    engine._llm.apply_model(drop_the_last)
    dropped = differing(1)
    engine._llm.apply_model(lambda inner: delattr(inner, "load_weights"))
    assert differing(2) == []
    assert differing(3, tensor * (1 + 2**-20)) == dropped
    assert len(dropped) == 1 and hub_name.split(".")[-2] in dropped[0]
    assert differing(4) == []
    sender.close()


def check_changed_weights(model: PreTrainedModel, engine: VLLMEngine) -> None:
    """Checks that a push of the blocks which adapters change leaves what a push of all weights leaves."""
    digests = [engine._llm.collective_rpc("compute_weight_checksums")]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.15, generator=torch.Generator().manual_seed(3))
    sizes = []
    for version, chosen in ((3, changed_weights), (4, rollout_weights)):
        tensors = [(weight.hub_name, weight.tensor()) for weight in chosen(model)]
        shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors]
        sender = make_sender(WeightSyncConfig(timeout_s=60), shapes, dtype="float32")
        assert push_to(sender, version, tensors, [engine.apply_weights]) == [version]
        sizes.append(sender.num_bytes)
        sender.close()
        digests.append(engine._llm.collective_rpc("compute_weight_checksums"))
    assert digests[0] != digests[1] == digests[2]
    assert sizes[0] < sizes[1] / 2


def check_raw_audio(path: str) -> None:
    """Checks that recordings go through the engine's own tower, which may be trained and pushed, too."""
    with pytest.raises(ConfigError, match=r"model.media: .* set it to raw"):
        VLLMEngine(path, engine_args=ENGINE)
    worker = RolloutWorker(
        ModelConfig(path=path, media="raw"),
        RolloutConfig(samples_per_prompt=2, max_tokens=16, engine=ENGINE),
        TargetConfig(target="engine_cases:ToneTask"),
        seed=0,
    )
    model = load_model(path)
    worker._loop.call(lambda engine: check_first_push(engine, model)).result()
    before = worker.generate(PROMPTS[:3], step=0)
    assert worst_difference(model, before) <= 1e-4
    # The engine's own processor, with its window of five minutes, makes the same of the waveforms.
    sampling = worker._sampling(RolloutJob(id=0, prompt=PROMPTS[0], draw=0))
    for prompt, group in zip(PROMPTS[:3], before, strict=True):
        requests = [
            EngineRequest(
                id=prompt.id,
                text=prompt.text,
                encoded=EncodedPrompt(
                    prompt_token_ids=group.prompt_token_ids, media_inputs=group.media_inputs, media=media
                ),
                seed=1,
            )
            for media in ({}, ToneTask().load_media(prompt))
        ]
        rendered = [worker._loop.engine.render(request) for request in requests]
        assert rendered[0]["prompt_token_ids"] == rendered[1]["prompt_token_ids"]
        (ours,), (theirs,) = (each["mm_kwargs"]["audio"] for each in rendered)
        assert torch.equal(ours["input_audio_features"].data, theirs["input_audio_features"].data)
        of_features, of_waveforms = (
            worker._loop.call(lambda engine, one=one: engine.generate([one], sampling)).result()[0]
            for one in requests
        )
        for one, other in zip(of_features, of_waveforms, strict=True):
            assert one.token_ids == other.token_ids
            np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=0, atol=1e-4)
    # Each recording keeps its own number of frames, though the processor pads all alike.
    frames = [group.media_inputs["input_features"].shape[-1] for group in before]
    assert frames == [60, 100, 140]

    # Not a whole number of hops (164 and a bit): one processor makes one embedding more of it than the other.
    odd = Prompt(id="odd", text=AUDIO_PROMPT, media={"tone": 3, "short_of": 2555})
    assert worst_difference(model, worker.generate([odd], step=0)) <= 1e-4
    sender = sender_of(model, media=True)
    for version in (1, 2):
        perturb(model, version, media=True)
        pushed = push_to(sender, version, weights(model, media=True), [worker.update_weights])
        assert pushed == [version]
        after = worker.generate(PROMPTS[:3], step=version)
        assert worst_difference(model, after) <= 1e-4
    (greedy,) = worker.generate(PROMPTS[:1], step=2, greedy=True)[0].completions
    assert greedy.token_ids == transformers_greedy(model, path, PROMPTS[0], 16)
    sender.close()
