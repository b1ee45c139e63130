"""Reads images, and the frames of videos, as uint8 arrays.

Images need Pillow, of the extra `rows` or `emotion`; videos PyAV, of the extra `video`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rlcore.errors import DataError, MissingDependencyError

_LATE = 1e-3
"""Seconds by which a frame may come late and still be the one of its time: containers round."""


def image_of(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """Returns an image as it is to be looked at, uint8 [height, width, 3].

    Args:
        max_pixels: makes a larger one smaller, in its proportions.

    Raises:
        DataError: the file is missing, or no image that Pillow reads to its end.
    """
    try:
        with Image.open(path) as image:
            return _array(ImageOps.exif_transpose(image), max_pixels)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: unreadable image: {error}") from error


def check_image(path: str | Path) -> None:
    """Reads an image's header.

    Raises:
        DataError: it is no image.
    """
    try:
        Image.open(path).close()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: unreadable image: {error}") from error


def frames_of(
    video: str | Path | Sequence[str],
    rate: float,
    max_seconds: float | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Returns frames of a video, uint8 [num_frames, height, width, 3].

    Args:
        video: a file, of which the frames at 0, 1 / rate, 2 / rate, ... seconds are taken; or the files of
            images, which are frames at that rate already.
        rate: frames a second.
        max_seconds: leaves out what comes later.
        max_pixels: makes larger frames smaller, in their proportions.

    Raises:
        DataError: a file is missing, broken or without pictures, or the images differ in size.
        MissingDependencyError: a file of video, and PyAV is not installed.
    """
    most = None if max_seconds is None else max(1, int(max_seconds * rate))
    if not isinstance(video, str | Path):
        frames = [image_of(path, max_pixels) for path in video[:most]]
        if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
            raise DataError(f"{video[0]}: frames of one video have one size; these have {sorted(sizes)}")
        return np.stack(frames)
    try:
        with _opened(video) as container:
            frames = [_array(frame.to_image(), max_pixels) for frame in _at_rate(container, rate, most)]
    except (DataError, MissingDependencyError):
        raise
    except Exception as error:  # the boundary to FFmpeg: one odd file is that file's fault
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{video}: unreadable video: {reason}") from error
    if not frames:
        raise DataError(f"{video}: empty: the file holds no pictures")
    return np.stack(frames)


def check_video(path: str | Path) -> None:
    """Reads a video's header.

    Raises:
        DataError: it is no video.
        MissingDependencyError: PyAV is not installed.
    """
    try:
        _opened(path).close()
    except (DataError, MissingDependencyError):
        raise
    except Exception as error:  # as in `frames_of`
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: unreadable video: {reason}") from error


def _opened(path: str | Path) -> Any:
    """Opens a file of video that holds pictures."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a video, which PyAV decodes: pip install -e '.[video]' in the project's folder (or "
            "give the list of its frames' image files: ffmpeg -i clip.mp4 -vf fps=2 clip_%03d.png)"
        ) from error
    if not Path(path).is_file():
        raise DataError(f"{path}: no such video")
    container = av.open(str(path), metadata_errors="replace")
    if not container.streams.video:
        container.close()
        raise DataError(f"{path}: it holds no pictures")
    return container


def _at_rate(container: Any, rate: float, most: int | None) -> Iterator[Any]:
    """Yields the frame that is to be seen at 0, 1 / rate, 2 / rate, ... seconds, `most` at most."""
    number, start, shown = 0, 0.0, None
    for frame in container.decode(video=0):
        start = frame.time if shown is None else start
        while shown is not None and number != most and frame.time - start > number / rate + _LATE:
            yield shown
            number += 1
        if number == most:
            return
        shown = frame
    while shown is not None and number != most and number / rate <= shown.time - start + _LATE:
        yield shown
        number += 1


def _array(image: Image.Image, max_pixels: int | None) -> np.ndarray:
    if max_pixels is not None and (scale := (max_pixels / (image.width * image.height)) ** 0.5) < 1:
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    return np.array(image.convert("RGB"))
