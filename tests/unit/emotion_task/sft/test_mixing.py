from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from emotion_task.cot.template import TemplateWriter
from emotion_task.records import Utterance
from emotion_task.sft.mixing import HELD_BACK, hold_back, mix
from emotion_task.sft.tasks import MixtureConfig, SFTExample, build_examples
from emotion_task.sft.texts import read_conversations
from emotion_task.sft.variants import (
    PAUSE_S,
    SAMPLE_RATE,
    Order,
    joined_seconds,
    render,
)
from rlcore.errors import ConfigError, DataError

WORDS = ("I", "left", "the", "keys", "here")
UTTERANCES = [
    Utterance(
        id=f"u{i}",
        audio=f"/{i}.wav",
        text=" ".join(WORDS),
        emotion=("sad", "happy", "angry")[i % 3],
        energy_level="high",
        stressed_words=[WORDS[i % 5]] if i % 4 else None,
        measured={"duration_s": 1.0 + 0.1 * i},
    )
    for i in range(60)
]


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    turns = [{"role": "user", "content": "What is two and two?"}, {"role": "assistant", "content": "Four."}]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    return str(path)


def mixture(tmp_path: Path, texts: str, **kwargs: object) -> MixtureConfig:
    weights = {"stress": 1, "order": 1, "energy": 1, "text": 1}
    settings = {"weights": weights, "text_data": texts, "audio_folder": str(tmp_path), "max_seconds": 10.0}
    return MixtureConfig(**{**settings, **kwargs})


def build(settings: MixtureConfig) -> list[SFTExample]:
    return build_examples(UTTERANCES, TemplateWriter(), settings, num_examples=80)


def test_stress_orders_and_texts_join_the_mix(tmp_path: Path, texts: str) -> None:
    examples = build(mixture(tmp_path, texts))
    assert Counter(example.task for example in examples) == {
        "stress": 20,
        "order": 20,
        "energy": 20,
        "text": 20,
    }
    by_id = {u.id: u for u in UTTERANCES}
    for example in examples:
        question = example.messages[-1]["content"][-1]["text"]
        if example.task == "stress":
            assert [example.target] == by_id[example.id.split("/")[0]].stressed_words
            assert question.endswith("Choose one of: I, left, the, keys, here.")
        elif example.task == "order":
            order = example.order
            assert order is not None and sorted(order.steps) == [-1, 0, 1]
            assert example.target == ", ".join(order.levels) and example.audio == order.target
            assert f"by {order.attribute}" in question
            # Three versions and the pauses fit in the window.
            assert joined_seconds(by_id[example.id.split("/")[0]].measured["duration_s"]) <= 10
        elif example.task == "text":
            assert (example.audio, example.target, question) == (None, "Four.", "What is two and two?")
    assert len({e.target for e in examples if e.task == "order"}) > 6


def test_a_seed_gives_one_mixture(tmp_path: Path, texts: str) -> None:
    assert build(mixture(tmp_path, texts, seed=2)) == build(mixture(tmp_path, texts, seed=2))
    assert build(mixture(tmp_path, texts, seed=2)) != build(mixture(tmp_path, texts, seed=3))


def test_an_order_is_made_anew_from_a_new_recording(tmp_path: Path) -> None:
    """Ids come back, for instance in a corpus of another seed: then the file is another."""
    source = tmp_path / "u.wav"
    utterance = replace(UTTERANCES[1], audio=str(source))
    settings = MixtureConfig(weights={"order": 1.0}, audio_folder=str(tmp_path), max_seconds=10.0)

    def target(modified_s: int) -> str | None:
        source.write_bytes(b"")
        os.utime(source, (modified_s, modified_s))
        (example,) = build_examples([utterance], TemplateWriter(), settings)
        return example.audio

    assert target(1) == target(1) != target(2)


def test_a_task_without_its_material_says_what_is_missing(tmp_path: Path, texts: str) -> None:
    with pytest.raises(ConfigError, match="text is 1, but there is no text_data"):
        mixture(tmp_path, texts, text_data=None)
    with pytest.raises(DataError, match=r"'order': none of 60 utterances serves .* max_seconds 3"):
        build(mixture(tmp_path, texts, max_seconds=3.0))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [{"role": "assistant", "content": "Hm."}]}\n')
    with pytest.raises(DataError, match=r"broken\.jsonl:1: roles \['assistant'\]; at least two turns"):
        read_conversations(broken)


def test_validation_shares_no_utterance_with_training() -> None:
    settings = MixtureConfig(weights={"stress": 1, "energy": 1}, seed=1)
    training, validation = mix(UTTERANCES, settings, TemplateWriter(), num_examples=90, num_validation=30)
    assert (len(training), len(validation)) == (90, 30)
    ids = [{example.id.split("/")[0] for example in examples} for examples in (training, validation)]
    assert not ids[0] & ids[1] and len(ids[1]) <= 6
    assert Counter(example.task for example in validation) == {"stress": 15, "energy": 15}
    # Of those held back none may be labelled: validation goes without that task.
    rare = replace(settings, weights={"energy": 1, "reasoning": 1}, label_fraction=0.04)
    training, validation = mix(UTTERANCES, rare, TemplateWriter(), num_examples=90, num_validation=6)
    assert Counter(example.task for example in training) == {"energy": 45, "reasoning": 45}
    assert Counter(example.task for example in validation) == {"energy": 6}
    unheard = MixtureConfig(weights={"pitch": 1})
    with pytest.raises(DataError, match=r"sft.num_validation 6: none of the 6 utterances held back"):
        mix(UTTERANCES, unheard, TemplateWriter(), num_examples=90, num_validation=6)
    # Without validation nothing is held back, and the examples are those of the mixture alone.
    plain, none = mix(UTTERANCES, settings, TemplateWriter(), num_examples=90)
    assert none == [] and plain == build_examples(UTTERANCES, TemplateWriter(), settings, num_examples=90)


def voice(seconds: float = 1.2, hertz: float = 150.0) -> np.ndarray:
    """Harmonics under a steady envelope: a fundamental that a count of periods can find."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waves = [np.sin(2 * np.pi * hertz * k * times) / k for k in range(1, 12)]
    return (0.1 * np.sum(waves, axis=0)).astype(np.float32)


def test_versions_differ_in_energy_as_the_order_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), SAMPLE_RATE)
    order = Order(
        source=str(tmp_path / "a.wav"), target=str(tmp_path / "b.flac"), attribute="energy", steps=(1, -1, 0)
    )
    joined = render(order)
    length = (len(joined) - 2 * int(PAUSE_S * SAMPLE_RATE)) // 3
    starts = [i * (length + int(PAUSE_S * SAMPLE_RATE)) for i in range(3)]
    levels = [20 * np.log10(np.std(joined[start : start + length])) for start in starts]
    np.testing.assert_allclose(np.array(levels) - levels[2], [8, -8, 0], atol=0.01)
    assert order.levels == ("high", "low", "normal") and np.abs(joined).max() <= 1
    assert replace(order, attribute="rate").levels == ("fast", "slow", "normal")


def test_validation_hears_strangers() -> None:
    """Three of thirty speakers, and none of them in training."""
    spoken = [replace(u, speaker=f"s{i % 30}") for i, u in enumerate(UTTERANCES)]
    settings = MixtureConfig(weights={"energy": 1})
    training, validation = mix(spoken, settings, TemplateWriter(), num_examples=90, num_validation=40)
    speaker_of = {u.id: u.speaker for u in spoken}
    strangers = {speaker_of[example.id.split("/")[0]] for example in validation}
    assert len(strangers) == 3
    assert strangers.isdisjoint(speaker_of[example.id.split("/")[0]] for example in training)


@given(
    st.lists(st.sampled_from([None, *"abcdefghijklmnop"]), min_size=1, max_size=80),
    st.integers(1, 100),
    st.randoms(use_true_random=False),
)
def test_what_is_held_back(speakers: list[str | None], wanted: int, rng: Random) -> None:
    spoken = [Utterance(id=f"u{i}", audio="a.wav", speaker=speaker) for i, speaker in enumerate(speakers)]
    held_back = {u.id for u in hold_back(spoken, wanted)}
    most = max(1, len(spoken) // HELD_BACK)
    assert 1 <= len(held_back) <= most
    rng.shuffle(spoken)
    assert {u.id for u in hold_back(spoken, wanted)} == held_back
    counts = Counter(u.speaker or u.id for u in spoken)
    if min(counts.values()) <= most:  # whole speakers
        kept = {u.speaker or u.id for u in spoken if u.id not in held_back}
        assert kept.isdisjoint(u.speaker or u.id for u in spoken if u.id in held_back)
