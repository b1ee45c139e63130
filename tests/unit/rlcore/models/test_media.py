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
from tiny_models import AUDIO_PROMPT, make_qwen2_audio, tone
from torch import nn

from rlcore.errors import DataError
from rlcore.models import media_cache
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
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
