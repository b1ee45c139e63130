from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tiny_models import AUDIO_PROMPT, make_qwen2_5_omni, make_qwen2_audio, make_qwen3_omni, tone
from torch import nn

from rlcore.errors import DataError
from rlcore.models import media_cache
from rlcore.models.families import family_of
from rlcore.models.hf_model import (
    audio_token_id,
    load_config,
    load_model,
    load_processor,
    save_checkpoint,
)
from rlcore.models.media import MediaEncoder
from rlcore.models.media_cache import MediaCache
from rlcore.types import Prompt


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    torch.set_num_threads(1)
    return str(make_qwen2_audio(tmp_path_factory.mktemp("model")))


def load_media(prompt: Prompt) -> dict:
    return {"audio": [tone(prompt.media["tone"])], "sampling_rate": 16000}


def make_prompts(*tones: int) -> list[Prompt]:
    return [Prompt(id=f"{i}/{t}", text=AUDIO_PROMPT, media={"tone": t}) for i, t in enumerate(tones)]


def embeds(encoder: MediaEncoder, *tones: int) -> list[np.ndarray]:
    return [encoded.media_inputs["audio_embeds"] for encoded in encoder.encode(make_prompts(*tones))]


def test_a_prompt_goes_through_the_tower_once(path):
    encoder = MediaEncoder(path, load_media)
    prompts = make_prompts(1, 2)
    # Another question about the same recording shares its embeddings.
    again = Prompt(id=prompts[0].id, text=AUDIO_PROMPT + "why?", media=prompts[0].media)
    first, _, third = encoder.encode([*prompts, again])
    assert encoder.num_encoded == 2
    assert third.media_inputs["audio_embeds"] is first.media_inputs["audio_embeds"]
    encoder.encode(prompts)
    assert (encoder.num_encoded, encoder.num_hits) == (2, 3)


@pytest.mark.parametrize("media", ["embeds", "raw"])
def test_media_without_a_recording_are_no_media(path, media, tmp_path):
    encoder = MediaEncoder(path, lambda prompt: {}, media=media, cache_folder=str(tmp_path))
    for _ in range(2):
        (encoded,) = encoder.encode([Prompt(id="0", text="why?", media={"picture": 1})])
        assert (encoded.media_inputs, encoded.media) == ({}, {})
        assert encoded.prompt_token_ids == tuple(encoder.processor.tokenizer("why?")["input_ids"])
    assert encoder.num_encoded == 0


def test_another_run_reads_what_was_encoded(path, tmp_path):
    expected = embeds(MediaEncoder(path, load_media), 1, 2, 3)
    folder = str(tmp_path / "cache")
    first = MediaEncoder(path, load_media, cache_folder=folder)
    embeds(first, 1, 2)
    second = MediaEncoder(path, load_media, cache_folder=folder)
    got = embeds(second, 3, 2, 1)
    assert (first.num_encoded, second.num_encoded) == (2, 1)
    for one, other in zip(got, reversed(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # batched otherwise


def test_other_weights_and_cut_files_are_never_read(path, tmp_path):
    folder = tmp_path / "cache"
    embeds(MediaEncoder(path, load_media, cache_folder=str(folder)), 1)
    (entry,) = folder.glob("*/*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-8])
    mended = MediaEncoder(path, load_media, cache_folder=str(folder))
    embeds(mended, 1)
    assert mended.num_encoded == 1

    model = load_model(path)
    with torch.no_grad():
        model.model.multi_modal_projector.linear.bias[0] += 1e-3
    save_checkpoint(model, tmp_path / "other", processor=load_processor(path))
    other = MediaEncoder(str(tmp_path / "other"), load_media, cache_folder=str(folder))
    embeds(other, 1)
    assert other.num_encoded == 1
    assert len(list(folder.glob("*/*.safetensors"))) == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("I/O error")])
def test_a_full_disk_is_logged_once_and_costs_only_the_cache(tmp_path, monkeypatch, caplog, error):
    def full(arrays: Any, path: Any) -> None:
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(media_cache, "save_file", full)
    cache = MediaCache(tmp_path, nn.Linear(1, 1), None)
    for _ in range(2):
        cache.put({"tone": 1}, [np.zeros((2, 3), dtype=np.float32)])
    assert cache.get({"tone": 1}) is None and not list(tmp_path.glob("*/*"))
    assert caplog.text.count("does not keep all") == 1 and error.args[-1] in caplog.text


def test_a_folder_that_cannot_be_made_costs_only_the_cache(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = MediaCache(tmp_path / "file", nn.Linear(1, 1), None)
    cache.put({"tone": 1}, [np.zeros((2, 3), dtype=np.float32)])
    assert cache.get({"tone": 1}) is None and "does not keep all" in caplog.text


def test_containers_with_the_same_pid_do_not_take_each_others_files(tmp_path, monkeypatch):
    """One renames its file while the other has just written its own."""
    cache, embeds = MediaCache(tmp_path, nn.Linear(1, 1), None), [np.ones((2, 3), dtype=np.float32)]
    replace, written = os.replace, []

    def late(unfinished: Any, path: Any) -> None:
        written.append(unfinished)
        if len(written) == 1:
            cache.put({"tone": 1}, embeds)
        replace(unfinished, path)

    monkeypatch.setattr(os, "replace", late)
    cache.put({"tone": 1}, embeds)
    assert len(set(written)) == 2
    np.testing.assert_array_equal(cache.get({"tone": 1}), embeds)


@pytest.mark.parametrize("media", ["embeds", "raw"])
def test_media_that_cannot_be_loaded_are_the_prompts_error(path, media):
    def missing(prompt: Prompt) -> dict:
        raise FileNotFoundError(prompt.media["tone"])

    with pytest.raises(DataError, match="prompt 0/7: its media cannot be loaded: FileNotFoundError: 7"):
        MediaEncoder(path, missing, media=media).encode(make_prompts(7))


def test_a_recording_that_hangs_is_seen_from_other_threads(path):
    begun, go_on = threading.Event(), threading.Event()

    def hang(prompt: Prompt) -> dict:
        begun.set()
        go_on.wait(5)
        return load_media(prompt)

    encoder = MediaEncoder(path, hang, media="raw")
    with ThreadPoolExecutor(1) as threads:
        encoding = threads.submit(encoder.encode, make_prompts(1))
        assert begun.wait(60)
        time.sleep(0.05)
        assert encoder.stalled_s >= 0.04
        go_on.set()
        encoding.result(60)
    assert encoder.stalled_s == 0.0


@pytest.fixture(scope="module", params=[make_qwen2_5_omni, make_qwen3_omni], ids=["qwen2_5", "qwen3"])
def omni(request, tmp_path_factory) -> str:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    torch.set_num_threads(1)
    return str(request.param(tmp_path_factory.mktemp("omni")))


def of_lengths(*lengths: int) -> dict:
    """Recordings of so many samples, which end loudly."""
    rng = np.random.default_rng(sum(lengths))
    audio = [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]
    for waveform in audio:
        waveform[-200:] *= 5
    return {"audio": audio, "sampling_rate": 16000}


@pytest.mark.parametrize(
    "lengths",
    # Shorter than the transform's window, around whole seconds and hops, two at once, beyond five minutes.
    [(300,), (15_601,), (15_999,), (16_000,), (16_001,), (96_000,), (96_208,), (4_000, 50_000), (4_800_400,)],
)
def test_frames_are_those_of_the_processors_own_window(omni, lengths):
    """Bit for bit, and no more of them: the real processors' windows are 300 seconds long."""
    processor, media = load_processor(omni), of_lengths(*lengths)
    assert processor.feature_extractor.n_samples == 300 * 16000
    text = AUDIO_PROMPT * len(lengths)
    own = processor(text=text, return_tensors="np", **media)
    process = family_of(load_config(omni)).process_audio
    assert process is not None
    ours, embedded = process(processor, "<|AUDIO|>", media)
    num_frames = own["feature_attention_mask"].sum(-1)
    assert ours["input_features"].shape == (len(lengths), 128, num_frames.max())
    assert ours["feature_attention_mask"].sum(-1).tolist() == num_frames.tolist()
    placeholder = audio_token_id(load_config(omni))
    assert sum(embedded) == (own["input_ids"] == placeholder).sum()
    for mine, theirs, count in zip(ours["input_features"], own["input_features"], num_frames, strict=True):
        np.testing.assert_array_equal(mine[:, :count], theirs[:, :count])


def test_raw_media_are_read_once_however_many_texts_ask(omni):
    loaded = []

    def load(prompt: Prompt) -> dict:
        loaded.append(prompt.id)
        return {"audio": [tone(i) for i in prompt.media["tones"]], "sampling_rate": 16000}

    encoder, processor = MediaEncoder(omni, load, media="raw"), load_processor(omni)
    two = AUDIO_PROMPT.replace("what", "<|audio_bos|><|AUDIO|><|audio_eos|>what")
    prompts = [Prompt(id="two", text=text, media={"tones": (1, 2)}) for text in (two, two + "why?")]
    for prompt in prompts:
        (encoded,) = encoder.encode([prompt])
        own = processor(text=prompt.text, return_tensors="np", **load(prompt))
        assert encoded.prompt_token_ids == tuple(own["input_ids"][0].tolist())
        assert not encoded.media  # the engine takes the features
    assert loaded == ["two"] * 3 and (encoder.num_misses, encoder.num_hits) == (1, 1)
    with pytest.raises(DataError, match=r"prompt two: 1 <\|AUDIO\|> in its text, 2 audio"):
        encoder.encode([Prompt(id="two", text=AUDIO_PROMPT, media={"tones": (1, 2)})])


def test_raw_features_are_forgotten_beyond_the_bound(path):
    encoder = MediaEncoder(path, load_media, media="raw", cache_bytes=500_000)  # of one recording: 141,400
    encoder.encode(make_prompts(*range(8)))
    assert 400_000 < encoder._num_bytes <= 500_000
    assert encoder._num_bytes == sum(heard.num_bytes for heard in encoder._cache.values())


@pytest.mark.parametrize("media", ["embeds", "raw"])
def test_a_recording_too_short_for_an_embedding_is_named(path, media):
    encoder = MediaEncoder(path, lambda prompt: of_lengths(100), media=media)
    with pytest.raises(DataError, match="prompt 0/7: 0 of 1 recordings are long enough for the model"):
        encoder.encode(make_prompts(7))
