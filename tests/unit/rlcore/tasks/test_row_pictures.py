"""Rows with images and videos: what a model that sees is shown, and what is said of bad ones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny_models import make_qwen2_5_omni, make_qwen2_5_vl

from rlcore.errors import DataError
from rlcore.models.media import MediaEncoder
from rlcore.tasks import Rows
from rlcore.types import Prompt

SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"
IMAGE, VIDEO = "<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    return str(make_qwen2_5_omni(tmp_path_factory.mktemp("models") / "omni"))


def grey(value: int, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.full((height, width), value, dtype=np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a second of sound, a picture, and three frames of a video."""
    soundfile.write(tmp_path / "1.wav", 0.3 * np.sin(np.arange(16000) / 5), 16000)
    grey(200).save(tmp_path / "a.png")
    for number in range(3):
        grey(50 * number).save(tmp_path / f"f{number}.jpg")
    return tmp_path


def asked(data: Path, model: str, rows: Sequence[Mapping[str, Any]], **args: Any) -> list[Prompt]:
    path = data / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Rows(str(path), model, eval=str(path), **args).prompts("train")


def content(prompt: Prompt) -> str:
    return prompt.text.removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]


def test_pictures_stand_in_front_of_sound_and_question(data: Path, omni: str) -> None:
    frames = ["f0.jpg", "f1.jpg", "f2.jpg"]
    rows = [
        {"prompt": "What?", "audio": "1.wav", "video": frames, "images": "a.png"},
        {"prompt": "Two?", "video": [frames[:2], frames]},
    ]
    one, two = asked(data, omni, rows)
    assert content(one) == f"{VIDEO}{IMAGE}{SOUND}What?" and content(two) == f"{VIDEO}{VIDEO}Two?"
    assert one.media == {
        "audio": [str(data / "1.wav")],
        "images": [str(data / "a.png")],
        "videos": [[str(data / name) for name in frames]],
    }
    task = Rows("unread", omni)
    media = task.load_media(one)
    assert media["images"][0].shape == (40, 60, 3) and media["images"][0].min() == 200
    (video,) = media["videos"]
    assert video.shape == (3, 40, 60, 3) and video.dtype == np.uint8
    assert video.mean(axis=(1, 2, 3)) == pytest.approx([0, 50, 100], abs=2)
    assert [len(each) for each in task.load_media(two)["videos"]] == [2, 3]
    cut = Rows("unread", omni, max_seconds=1, max_pixels=600).load_media(one)
    assert cut["images"][0].shape == (20, 30, 3) and cut["videos"][0].shape == (2, 20, 30, 3)

    # Tokens without the tower are those with it: one for each embedding.
    whole, counted = (
        MediaEncoder(omni, task.load_media, media="raw", sees=sees).encode([one])[0] for sees in (True, False)
    )
    assert whole.prompt_token_ids == counted.prompt_token_ids
    shown = whole.media_inputs
    assert shown["video_grid_thw"].tolist() == [[2, 20, 28]]
    assert shown["image_grid_thw"].tolist() == [[1, 4, 6]]
    assert len(shown["video_embeds"]) == 2 * 10 * 14 and len(shown["image_embeds"]) == 6
    assert "image_embeds" not in counted.media_inputs


def test_pictures_inside_messages(data: Path, omni: str) -> None:
    held = (data / "a.png").read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(held).decode()}"
    parts = [
        {"type": "image", "image": "a.png"},
        {"type": "text", "text": "then"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "video", "video": ["f0.jpg", "f1.jpg"]},
        {"type": "image"},
    ]
    rows = [
        {"messages": [{"role": "user", "content": parts}], "images": ["f2.jpg"]},
        {"messages": [{"role": "user", "content": "Hm?"}], "images": ["f2.jpg"], "audio": "1.wav"},
    ]
    one, beside = asked(data, omni, rows)
    assert content(one) == f"{IMAGE}then{IMAGE}{VIDEO}{IMAGE}"
    first, second, third = one.media["images"]
    assert (first, third) == (str(data / "a.png"), str(data / "f2.jpg"))
    assert Path(second).parent == data / "image" and Path(second).suffix == ".png"
    assert Path(second).read_bytes() == held
    assert content(beside) == f"{IMAGE}{SOUND}Hm?"


def test_images_of_a_data_set(data: Path, omni: str) -> None:
    stored = io.BytesIO()
    grey(7).save(stored, "PNG")
    table = {"prompt": ["x"] * 4, "photo": [{"bytes": stored.getvalue(), "path": None}] * 4}
    features = datasets.Features({"prompt": datasets.Value("string"), "photo": datasets.Image(decode=False)})
    folder = data / "set"
    folder.mkdir()
    datasets.Dataset.from_dict(table, features=features).to_parquet(str(folder / "train.parquet"))
    prompts = Rows(str(folder), omni).prompts("train")
    assert content(prompts[0]) == f"{IMAGE}x"
    (place,) = prompts[0].media["images"]
    assert Path(place).parent == folder / "image" and Path(place).read_bytes() == stored.getvalue()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"images": "1.wav"}, "1.wav: unreadable image: cannot identify"),
        ({"images": "../a.png"}, "image '../a.png' leads out of"),
        ({"images": {"path": "b.png"}}, "image 'b.png': no such file"),
        ({"video": ["f0.jpg", "f9.jpg"]}, "image 'f9.jpg': no such file"),
        ({"video": "https://a.b/c.mp4"}, "video 'https://a.b/c.mp4' is an address"),
        ({"video": 5}, "video is '5'; it must be the path"),
    ],
)
def test_bad_pictures_are_named(data: Path, omni: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"rows.jsonl:1: .*{said}"):
        asked(data, omni, [{"prompt": "x", **row}])


def test_a_model_that_hears_nothing(data: Path, omni: str) -> None:
    path = str(make_qwen2_5_vl(data / "vl"))
    (prompt,) = asked(data, path, [{"prompt": "x", "images": ["a.png", "f1.jpg"]}])
    assert content(prompt) == f"{IMAGE}{IMAGE}x"
    with pytest.raises(DataError, match=r"it has a recording, and Qwen2.5-VL hears none"):
        asked(data, path, [{"prompt": "x", "audio": "1.wav"}])
