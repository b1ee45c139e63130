"""Images and frames as they are to be looked at, and files that hold none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from rlcore.errors import DataError
from rlcore.inputs.pictures import check_image, check_video, frames_of, image_of


def test_an_image_is_upright_and_in_colour(tmp_path: Path) -> None:
    left_dark = np.zeros((20, 40), dtype=np.uint8)
    left_dark[:, 20:] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter to the right
    Image.fromarray(left_dark).save(tmp_path / "a.jpg", exif=turned)
    image = image_of(tmp_path / "a.jpg")
    assert image.shape == (40, 20, 3)
    assert image[:15].max() < 20 and image[25:].min() > 230
    assert image_of(tmp_path / "a.jpg", max_pixels=200).shape == (20, 10, 3)
    assert image_of(tmp_path / "a.jpg", max_pixels=801).shape == (40, 20, 3)


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.png: no such image"):
        image_of(tmp_path / "none.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    check_image(tmp_path / "cut.png")
    with pytest.raises(DataError, match=r"cut.png: unreadable image: .*truncated"):
        image_of(tmp_path / "cut.png")
    Image.new("L", (4, 4)).save(tmp_path / "small.png")
    with pytest.raises(
        DataError, match=r"whole.png: frames of one video have one size; these have \[\(4, 4\)"
    ):
        frames_of([str(tmp_path / "whole.png"), str(tmp_path / "small.png")], 2.0)


def test_the_frames_of_a_file(tmp_path: Path) -> None:
    """Ten frames a second, of which the first second is grey as its tenth, and a pause after it."""
    av = pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    path = str(tmp_path / "clip.mkv")
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
        for tick in [*range(10), 30, 31]:
            frame = av.VideoFrame.from_ndarray(np.full((16, 32), 8 * tick, dtype=np.uint8), format="gray")
            frame.pts, frame.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    check_video(path)
    frames = frames_of(path, 2.0)
    assert frames.shape == (7, 16, 32, 3)
    assert frames[:, 0, 0, 0].tolist() == pytest.approx([0, 40, 72, 72, 72, 72, 240], abs=1)
    assert frames_of(path, 2.0, max_seconds=1).shape[0] == 2
    assert frames_of(path, 10.0, max_seconds=0.3, max_pixels=128).shape == (3, 8, 16, 3)
    soundfile.write(tmp_path / "sound.wav", np.zeros(1600), 16000)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    for name, said in (
        ("sound.wav", "it holds no pictures"),
        ("no.mp4", "unreadable video"),
        ("x", "no such"),
    ):
        with pytest.raises(DataError, match=rf"{name}: {said}"):
            check_video(tmp_path / name)
