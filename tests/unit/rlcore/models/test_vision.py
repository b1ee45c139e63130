"""What families that see make of images and videos: the same as their models' own forward, in packed rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from engine_cases import PictureTask
from tiny_models import TEXT_PROMPT, make_qwen2_5_omni, make_qwen2_5_vl, make_qwen2_audio

from rlcore.config import LearnerConfig, ModelConfig
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.trainable import choose_trained
from rlcore.errors import ConfigError, DataError
from rlcore.models.families.qwen_vision import grid_positions
from rlcore.models.hf_model import load_config, load_model, load_processor
from rlcore.models.media import MediaEncoder
from rlcore.models.media_modules import silent_media
from rlcore.plan.sizes import sizes_of_config
from rlcore.types import Prompt

pytestmark = pytest.mark.slow

IMAGE, VIDEO = "<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"
AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    torch.set_num_threads(1)
    makers = {"omni": make_qwen2_5_omni, "vl": make_qwen2_5_vl}
    paths: dict[str, str] = {}

    def make(name: str) -> str:
        if name not in paths:
            paths[name] = str(makers[name](tmp_path_factory.mktemp("models") / name))
        return paths[name]

    return make


def asked(text: str, **media: object) -> Prompt:
    return Prompt(id=text, text=TEXT_PROMPT.replace("what", f"{text} what"), media={"seed": 3, **media})


def group_of(path: str, prompt: Prompt, *completions: np.ndarray) -> TokenGroup:
    (encoded,) = MediaEncoder(path, PictureTask().load_media, media="raw").encode([prompt])
    return TokenGroup(
        prompt_token_ids=np.array(encoded.prompt_token_ids),
        token_ids=completions,
        media_inputs=encoded.media_inputs,
    )


@pytest.mark.parametrize("name", ["omni", "vl"])
def test_pictures_in_packed_rows_give_the_values_and_gradients_of_plain_ones(
    made: Callable[[str], str], name: str
) -> None:
    """A prompt with pictures, and one without, each with several completions in one row, against the model's
    own forward from the pixels."""
    path = made(name)
    model, processor = load_model(path), load_processor(path)
    choose_trained(model, ModelConfig(media="raw"), LearnerConfig())
    media = {"images": [(60, 90), (30, 40)]}
    # Behind a video transformers counts otherwise in Qwen2.5-VL.
    text = f"{IMAGE}and{IMAGE}" if name == "vl" else f"{AUDIO}{VIDEO}{IMAGE}and{AUDIO}{IMAGE}"
    if name == "omni":
        media |= {"tones": [1, 2], "videos": [(3, 64, 48)]}
    rng = np.random.default_rng(0)
    short, long, other = (rng.integers(20, 60, size=size) for size in (3, 9, 4))
    prompt = asked(text, **media)
    groups = [group_of(path, prompt, short, long), group_of(path, asked("hm"), other)]

    inputs = processor(text=prompt.text, return_tensors="pt", **_given(prompt))
    assert tuple(inputs["input_ids"][0].tolist()) == tuple(groups[0].prompt_token_ids)
    ids = torch.cat([inputs.pop("input_ids")[0], torch.from_numpy(long)])[None]
    inputs.pop("attention_mask")
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(1, len(long))], dim=1)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0]
    logprobs = logits[-len(long) - 1 : -1].log_softmax(-1)
    own = logprobs.gather(-1, torch.from_numpy(long)[:, None])[:, 0]
    expected = _gradients(model, own.sum())

    packed = completion_logprobs(model, groups).logprobs
    torch.testing.assert_close(packed[1], own, rtol=0, atol=2e-6)
    got = _gradients(model, packed[1].sum())
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert got.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(got[parameter], gradient, rtol=0, atol=2e-5 * largest)
    plain = completion_logprobs(model, groups[1:]).rows()[0]
    np.testing.assert_allclose(packed[2, :4].detach(), plain, rtol=0, atol=2e-6)


def _given(prompt: Prompt) -> dict[str, object]:
    loaded = PictureTask().load_media(prompt)
    kept = {name: value for name, value in loaded.items() if not isinstance(value, list) or value}
    return kept | ({"videos_kwargs": {"cap_pixels_per_frame": True}} if "videos" in kept else {})


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_positions_in_time_height_and_width(made: Callable[[str], str]) -> None:
    """Text, a video of two steps of 1 x 2 embeddings, text; then an image of 2 x 1 at once."""
    config = load_config(made("vl"))
    video, image = config.video_token_id, config.image_token_id
    tokens = np.array([9, 9, video, video, video, video, 9, image, image, 9])
    grids = {"video_grid_thw": np.array([[2, 2, 4]]), "image_grid_thw": np.array([[1, 4, 2]])}
    assert grid_positions(config, tokens, grids, 25).tolist() == [
        [0, 1, 2, 2, 27, 27, 28, 29, 29, 31],
        [0, 1, 2, 2, 2, 2, 28, 29, 30, 31],
        [0, 1, 2, 3, 2, 3, 28, 29, 29, 31],
    ]


def test_pictures_that_do_not_fit_are_named(made: Callable[[str], str], tmp_path: Path) -> None:
    encoder = MediaEncoder(made("omni"), PictureTask().load_media, media="raw")
    with pytest.raises(DataError, match=r"2 <\|IMAGE\|> in its text, 1 image"):
        encoder.encode([asked(IMAGE * 2, images=[(30, 30)])])
    with pytest.raises(DataError, match=r"1 <\|VIDEO\|> in its text, 0 video"):
        encoder.encode([asked(IMAGE + VIDEO, images=[(30, 30)])])
    with pytest.raises(DataError, match=r"the processor refused it: .*aspect ratio"):
        encoder.encode([asked(IMAGE, images=[(1, 300)])])
    # Three rows are no three channels.
    (thin,) = encoder.encode([asked(IMAGE + VIDEO, images=[(3, 40)], videos=[(3, 3, 40)])])
    assert thin.media_inputs["image_grid_thw"].tolist() == [[1, 2, 16]]
    assert thin.media_inputs["video_grid_thw"].tolist() == [[2, 8, 84]]
    deaf = MediaEncoder(str(make_qwen2_audio(tmp_path)), PictureTask().load_media, media="raw")
    with pytest.raises(DataError, match=r"videos, which Qwen2-Audio does not take here; Qwen2.5-Omni and Q"):
        deaf.encode([asked("hm", images=[(30, 30)])])


def test_the_vision_tower_is_never_trained(made: Callable[[str], str]) -> None:
    for name, media in (("omni", "raw"), ("vl", "embeds")):
        model = load_model(made(name))
        with pytest.raises(
            ConfigError, match=r"model.freeze: (model.)?visual.* once a prompt: freeze 'visual'"
        ):
            choose_trained(model, ModelConfig(media=media, freeze=()), LearnerConfig())


def test_a_rank_with_pictures_alone_has_nothing_for_a_tower(
    made: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("omni")
    seen = group_of(path, asked(IMAGE, images=[(30, 30)]), np.arange(20, 24))
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "all_gather_object", lambda out, mine: out.__setitem__(0, mine))
    assert silent_media([seen]) is None
    both = group_of(path, asked(IMAGE + AUDIO, images=[(30, 30)], tones=[1]), np.arange(20, 24))
    silence = silent_media([seen, both])
    assert silence is not None and sorted(silence) == ["feature_attention_mask", "input_features"]
    model = load_model(path)
    rows = [completion_logprobs(model, [seen], silent_media=media) for media in (None, silence)]
    torch.testing.assert_close(rows[0].logprobs, rows[1].logprobs, rtol=0, atol=0)
    rows[1].logprobs.sum().backward()
    heard = [p.grad for name, p in model.named_parameters() if "audio_tower" in name]
    assert any(grad is not None for grad in heard)
    assert all(grad is None or float(grad.abs().max()) == 0 for grad in heard)


def test_the_plan_counts_a_vision_tower_apart(made: Callable[[str], str]) -> None:
    for name in ("omni", "vl"):
        config, model = load_config(made(name)), load_model(made(name))
        seeing = sum(p.numel() for n, p in model.named_parameters() if "visual." in n)
        assert sizes_of_config(config).other_media == seeing > 10_000
