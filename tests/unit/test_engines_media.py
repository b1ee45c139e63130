from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import AUDIO_PROMPT, make_qwen2_audio, tone

from rlcore.engines.hf_model import load_model, load_processor, save_checkpoint
from rlcore.engines.media import MediaEncoder
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
