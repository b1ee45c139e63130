"""A frozen tower's output stands in for the audio: the same log-probabilities, the tower run once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import AUDIO_PROMPT, make_qwen2_audio, tone

from emotion_task.sft.encode import ExampleEncoder
from emotion_task.sft.examples import Example
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint

FREEZE = ("audio_tower", "language_model", "lm_head")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return str(make_qwen2_audio(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    folder = tmp_path_factory.mktemp("audio")
    for index in (1, 2):
        soundfile.write(folder / f"{index}.wav", tone(index, 0.5 + 0.5 * index), 16000)
    return [
        Example(id=f"{i}/{answer}", audio=str(folder / f"{i}.wav"), prompt=AUDIO_PROMPT, target=answer)
        for i in (1, 2)
        for answer in ("angry", "high pitch")
    ]


def test_states_of_a_frozen_tower_give_the_same_logprobs(path: str, examples: list[Example]) -> None:
    model = load_model(path)
    raw = ExampleEncoder(path, cache_bytes=1 << 20)
    frozen = ExampleEncoder(path, freeze=FREEZE, cache_bytes=1 << 20)
    features, states = [[e.encode(x) for x in examples] for e in (raw, frozen)]
    assert {name for group in features for name in group.media_inputs} >= {"input_features"}
    assert {name for group in states for name in group.media_inputs} == {"audio_states"}
    for one, other in zip(features, states, strict=True):
        np.testing.assert_array_equal(one.prompt_token_ids, other.prompt_token_ids)
    expected, got = (completion_logprobs(model, groups).logprobs for groups in (features, states))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

    # The projector learns from states as it does from features.
    weight = model.model.multi_modal_projector.linear.weight
    (one,) = torch.autograd.grad(expected.sum(), weight)
    (other,) = torch.autograd.grad(got.sum(), weight)
    assert float(one.abs().max()) > 0
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_a_trained_tower_is_given_features(path: str, examples: list[Example]) -> None:
    partly = ExampleEncoder(path, freeze=("audio_tower.layers.0",), cache_bytes=1 << 20)
    assert "input_features" in partly.encode(examples[0]).media_inputs


def test_states_outlive_the_projector_but_not_the_tower(
    path: str, examples: list[Example], tmp_path: Path
) -> None:
    folder = str(tmp_path / "cache")

    def encode(model_path: str) -> np.ndarray:
        encoder = ExampleEncoder(model_path, freeze=FREEZE, cache_bytes=1 << 20, cache_folder=folder)
        return encoder.encode(examples[0]).media_inputs["audio_states"]

    first = encode(path)
    assert len(list(Path(folder).glob("*/*.safetensors"))) == 1
    model = load_model(path)
    with torch.no_grad():
        model.model.multi_modal_projector.linear.weight.mul_(2)
    save_checkpoint(model, tmp_path / "projector", processor=load_processor(path))
    np.testing.assert_array_equal(encode(str(tmp_path / "projector")), first)
    assert len(list(Path(folder).glob("*/*.safetensors"))) == 1

    with torch.no_grad():
        model.model.audio_tower.layer_norm.bias.add_(1)
    save_checkpoint(model, tmp_path / "tower", processor=load_processor(path))
    np.testing.assert_allclose(encode(str(tmp_path / "tower")), first + 1, atol=1e-5)
    assert len(list(Path(folder).glob("*/*.safetensors"))) == 2


def test_the_emphasised_word_weighs_more(path: str, examples: list[Example]) -> None:
    encoder = ExampleEncoder(path, cache_bytes=1 << 20)
    target = "<think>This sad voice saddens.</think><answer>sad</answer>"
    plain = replace(examples[0], target=target, emphasis="sad")
    assert encoder.encode(plain).token_weights == ()
    (weights,) = encoder.encode(replace(plain, weight=6.0)).token_weights
    (tokens,) = encoder.encode(plain).token_ids
    assert len(weights) == len(tokens) and set(weights) == {1.0, 6.0}
    offsets = encoder.processor.tokenizer(target, return_offsets_mapping=True)["offset_mapping"]
    heavy = {i for start, end in offsets_of(weights, offsets) for i in range(start, end)}
    word = re.compile(r"\bsad\b")
    for match in word.finditer(target):
        assert set(range(*match.span())) <= heavy
    assert not heavy & set(range(target.index("saddens"), target.index("saddens") + 7))
    assert weights[-1] == 1.0  # the end of the turn


def offsets_of(weights: np.ndarray, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [span for weight, span in zip(weights, offsets, strict=False) if weight > 1]
