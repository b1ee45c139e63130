"""The fitted projector: its mathematics, what it must not learn, and a real checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import Qwen2Config

from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.records import Utterance
from emotion_task.sft.encode import ExampleEncoder
from emotion_task.sft.projector import (
    STRENGTHS,
    check_base_model,
    fit_across_speakers,
    fit_projector,
    projection,
)
from rlcore.errors import ConfigError, DataError
from rlcore.models.hf_model import load_model, load_processor, project_media, tokenizer_of

pytestmark = pytest.mark.slow


def test_the_weights_minimise_the_penalised_error() -> None:
    """The gradient of |Y - X W|^2 + strength * U * |S W|^2 vanishes, in the features' own units."""
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, np.geomspace(0.1, 10, 6), (50, 6))
    level = rng.integers(0, 2, 50)
    options = {"energy_level": ["low", "high"]}
    values = {"energy_level": [options["energy_level"][v] for v in level]}
    weight = fit_across_speakers(features, values, options, [str(i % 5) for i in range(50)], (0.3,)).weight
    x, y = features - features.mean(axis=0), np.eye(2)[level] - np.eye(2)[level].mean(axis=0)
    gradient = x.T @ (x @ weight - y) + 0.3 * 50 * features.var(axis=0)[:, None] * weight
    np.testing.assert_allclose(gradient, 0, atol=1e-9 * np.abs(x.T @ y).max())


def test_what_only_tells_speakers_apart_is_not_taken_for_hearing() -> None:
    """Six features name the speaker, who always feels the same; the seventh is a fact that all share."""
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(6), 40)
    level = rng.integers(0, 2, 240)
    features = np.concatenate(
        [np.eye(6)[speakers], (level - 0.5)[:, None] + rng.normal(0, 0.1, (240, 1))], axis=1
    )
    options = {"emotion": ["sad", "angry"], "energy_level": ["low", "high"]}
    values = {
        "emotion": [options["emotion"][s % 2] for s in speakers],
        "energy_level": [options["energy_level"][v] for v in level],
    }
    fitted = fit_across_speakers(features, values, options, [str(s) for s in speakers])
    assert fitted.recall["energy_level"] == 1.0 and fitted.recall["emotion"] < 0.6
    assert fitted.weight.shape == (7, 4) and fitted.strength in STRENGTHS


def test_the_strength_is_the_one_that_other_speakers_need() -> None:
    """Few recordings, many features that are noise: little penalty fits the noise."""
    rng = np.random.default_rng(1)
    level = rng.integers(0, 2, 60)
    features = rng.normal(size=(60, 200)) + np.where(level, 0.3, -0.3)[:, None]
    options = {"energy_level": ["low", "high"]}
    values = {"energy_level": [options["energy_level"][v] for v in level]}
    speakers = [str(i % 6) for i in range(60)]
    alone = {s: fit_across_speakers(features, values, options, speakers, (s,)).recall for s in STRENGTHS}
    chosen = fit_across_speakers(features, values, options, speakers)
    best = max(recall["energy_level"] for recall in alone.values())
    assert chosen.recall["energy_level"] == best == alone[chosen.strength]["energy_level"] > 0.9


def test_unknown_values_pull_to_no_side() -> None:
    features = np.random.default_rng(0).normal(size=(40, 2))
    known = ["low" if x < 0 else "high" for x in features[:, 0]]
    options = {"energy_level": ["low", "high"]}
    speakers = [str(i % 4) for i in range(40)]
    weight = fit_across_speakers(features, {"energy_level": known}, options, speakers, (1.0,)).weight
    half = [value if i % 2 else None for i, value in enumerate(known)]
    weaker = fit_across_speakers(features, {"energy_level": half}, options, speakers, (1.0,)).weight
    # The same direction, less sure.
    cosine = np.sum(weight * weaker) / np.linalg.norm(weight) / np.linalg.norm(weaker)
    assert cosine > 0.9 and np.linalg.norm(weaker) < 0.8 * np.linalg.norm(weight)


def test_one_speaker_is_too_few_and_so_is_one_value() -> None:
    features, gender = np.zeros((3, 2)), {"gender": ["male", "female", None]}
    with pytest.raises(DataError, match=r"alignment.fit: the training split has 1 speaker"):
        fit_across_speakers(features, gender, {"gender": ["male", "female"]}, ["a"] * 3)
    with pytest.raises(DataError, match=r"alignment.fit: no emotion .* has two values"):
        fit_across_speakers(features, {"gender": ["male"] * 3}, {}, ["a", "b", "c"])


def test_frames_lie_among_the_embeddings_and_along_the_directions() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(2.0, 3.0, (500, 8)) @ rng.normal(size=(8, 8))
    weight, embeddings = rng.normal(size=(8, 3)), rng.normal(0.5, 1.0, (100, 16))
    directions = np.linalg.qr(rng.normal(size=(16, 3)))[0].T
    matrix, bias = projection(weight, directions, frames.mean(axis=0), np.cov(frames.T, ddof=0), embeddings)
    projected = frames @ matrix.T + bias
    np.testing.assert_allclose(projected.mean(axis=0), embeddings.mean(axis=0), atol=1e-9)
    squared = np.mean(np.sum(projected**2, axis=1))
    assert squared == pytest.approx(np.linalg.norm(embeddings, axis=1).mean() ** 2, rel=1e-9)
    # Along each direction, a score of the same variance: the regression's own, scaled.
    along = (projected - projected.mean(axis=0)) @ directions.T
    np.testing.assert_allclose(along.std(axis=0), along.std(axis=0)[0], rtol=1e-9)
    scores = (frames - frames.mean(axis=0)) @ weight
    np.testing.assert_allclose(along / along.std(axis=0), scores / scores.std(axis=0), atol=1e-9)


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Utterance]]:
    """A tiny model, and 24 recordings of two speakers: a hum where they are sad, a hiss where they are
    angry."""
    folder = tmp_path_factory.mktemp("heard")
    rng, rate, utterances = np.random.default_rng(2), 16000, []
    for index in range(24):
        times = np.arange(rate) / rate
        is_sad = index % 2 == 0
        sound = np.sin(2 * np.pi * (110 + index) * times) if is_sad else rng.normal(size=rate)
        path = folder / f"{index}.wav"
        soundfile.write(path, 0.1 * sound, rate)
        utterances.append(
            Utterance(
                id=str(index),
                audio=str(path),
                emotion="sad" if is_sad else "angry",
                speaker=str(index % 4 // 2),
                energy_level="low" if is_sad else "high",
            )
        )
    return build_tiny_model(folder / "base", tokenizer_corpus(), TinyModelConfig()), utterances


def fit(heard: tuple[Path, list[Utterance]], folder: Path) -> dict[str, Any]:
    base, utterances = heard
    return fit_projector(str(base), utterances, folder, labels=["sad", "angry"])


def test_a_checkpoint_hears_what_was_fitted_and_keeps_the_rest(
    heard: tuple[Path, list[Utterance]], tmp_path: Path
) -> None:
    base, utterances = heard
    fitted = fit(heard, tmp_path / "model")
    assert fitted["recall"] == {"emotion": 1.0, "energy_level": 1.0}
    before, after = load_model(str(base)), load_model(str(tmp_path / "model"))
    changed = [
        name
        for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True)
        if not torch.equal(old, new)
    ]
    assert changed == [f"model.multi_modal_projector.linear.{part}" for part in ("weight", "bias")]

    # The mean embedding of a recording lies nearer to the word for it.
    encoder = ExampleEncoder(str(tmp_path / "model"), freeze=("",), cache_bytes=0)
    tokenizer = tokenizer_of(load_processor(str(tmp_path / "model")))
    table = after.get_input_embeddings().weight.detach()
    sad, angry = (
        table[tokenizer(f" {word}", add_special_tokens=False)["input_ids"]].mean(0)
        for word in ("sad", "angry")
    )
    for utterance in utterances:
        states = torch.from_numpy(encoder.audio_states(utterance.audio))
        mean = project_media(after, [states])[0].mean(0).detach()
        assert bool((mean - table.mean(0)) @ (sad - angry) > 0) == (utterance.emotion == "sad")


def test_an_emotion_that_is_withheld_is_not_fitted(
    heard: tuple[Path, list[Utterance]], tmp_path: Path
) -> None:
    base, utterances = heard
    fitted = fit((base, [replace(utterance, emotion=None) for utterance in utterances]), tmp_path / "model")
    assert list(fitted["recall"]) == ["energy_level"]


def test_a_model_without_such_a_projector_is_refused(tmp_path: Path) -> None:
    omni = build_tiny_model(
        tmp_path / "omni", tokenizer_corpus(), TinyModelConfig(architecture="qwen2_5_omni")
    )
    with pytest.raises(ConfigError, match=r"alignment.fit: .*omni .* has no projector of one linear layer"):
        fit_projector(str(omni), [], tmp_path / "model", labels=[])
    with pytest.raises(ConfigError, match=r"alignment.fit: .*omni .* has no projector of one linear layer"):
        check_base_model(str(omni), fits=True)
    check_base_model(str(omni), fits=False)


def test_a_base_model_that_takes_no_audio_is_refused(tmp_path: Path) -> None:
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"base_model: .* \(Qwen2ForCausalLM\) takes no audio"):
        check_base_model(str(tmp_path), fits=False)


def test_a_model_that_can_be_fitted_passes(heard: tuple[Path, list[Utterance]]) -> None:
    check_base_model(str(heard[0]), fits=True)
