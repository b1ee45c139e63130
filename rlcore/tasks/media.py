"""Checks and reads the media of rows, as one model takes them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlcore.errors import DataError, MissingDependencyError
from rlcore.tasks.conversation import KINDS, Place
from rlcore.types import Prompt

if TYPE_CHECKING:
    from rlcore.models.families import Family

NAMES = {"audio": "audio", "image": "images", "video": "videos"}
"""What a processor calls several media of a kind."""


class ModelMedia:
    """The media that a model takes.

    Args:
        model_path: checkpoint folder or hub id.
        max_seconds: longer recordings and videos are cut to this.
        max_pixels: larger images and frames are made smaller, to this many pixels.
    """

    def __init__(self, model_path: str, max_seconds: float | None, max_pixels: int | None):
        self._path, self._max_seconds, self._max_pixels = model_path, max_seconds, max_pixels

    @cached_property
    def processor(self) -> Any:
        """The model's processor, loaded at first use."""
        from rlcore.models.hf_model import load_processor

        return load_processor(self._path)

    @cached_property
    def reserved(self) -> list[str]:
        """The tokens that no text of a row may hold: the model would read them as media."""
        from rlcore.models.hf_model import media_token_ids, tokenizer_of

        tokenizer = tokenizer_of(self.processor)
        return [str(t) for t in tokenizer.convert_ids_to_tokens(media_token_ids(self._config, tokenizer))]

    @cached_property
    def placeholders(self) -> dict[str, str | None]:
        """The token that stands for a medium of each kind; None where the model takes none."""
        from rlcore.models.hf_model import placeholder_id, tokenizer_of

        tokenizer, found = tokenizer_of(self.processor), dict[str, str | None]()
        for kind in KINDS:
            takes = self._family.encode_audio if kind == "audio" else self._family.vision
            token_id = placeholder_id(self._config, kind)
            is_taken = takes is not None and token_id is not None
            found[kind] = str(tokenizer.convert_ids_to_tokens(token_id)) if is_taken else None
        return found

    def check(self, kind: str, place: Place) -> None:
        """Refuses, before a run depends on it, a file that cannot be read.

        Raises:
            DataError: it cannot, the model takes none of its kind, or hears less than the whole recording.
            MissingDependencyError: what would read it is not installed.
        """
        if kind == "audio":
            self._check_sound(str(place))
        elif self._family.vision is None:
            from rlcore.models.media import no_vision

            raise DataError(no_vision(self._config))
        elif kind == "image":
            _pictures().check_image(place)
        elif isinstance(place, str):
            _pictures().check_video(place)
        else:
            for frame in place:
                _pictures().check_image(frame)

    def load(self, prompt: Prompt) -> dict[str, Any]:
        """Reads a prompt's media as the processor takes them (`rlcore.models.families.base.Media`).

        Raises:
            DataError: a file cannot be read to its end.
        """
        media: dict[str, Any] = {}
        if paths := prompt.media.get("audio"):
            media["sampling_rate"] = hertz = int(self.processor.feature_extractor.sampling_rate)
            media["audio"] = [_sound().waveform_of(path, hertz, self._max_seconds) for path in paths]
        if paths := prompt.media.get("images"):
            media["images"] = [_pictures().image_of(path, self._max_pixels) for path in paths]
        if videos := prompt.media.get("videos"):
            assert self._family.vision is not None, "check refuses videos"
            rate, limits = self._family.vision.frame_rate, (self._max_seconds, self._max_pixels)
            media["videos"] = [_pictures().frames_of(video, rate, *limits) for video in videos]
        return media

    @cached_property
    def _config(self) -> Any:
        from rlcore.models.hf_model import load_config

        return load_config(self._path)

    @cached_property
    def _family(self) -> Family:
        from rlcore.models.families import family_of

        return family_of(self._config)

    def _check_sound(self, path: str) -> None:
        if not self.placeholders["audio"]:
            raise DataError(f"it has a recording, and {self._family.name} hears none ({self._path})")
        seconds = _sound().seconds_of(path)
        window = self._family.heard_seconds(self.processor)
        if self._max_seconds is None and seconds is not None and window is not None and seconds > window:
            raise DataError(
                f"{path}: {seconds:.1f} s are longer than the {window:g} s that the model hears; "
                f"task.args.max_seconds={window:g} cuts such recordings"
            )


def _pictures() -> Any:
    try:
        from rlcore.inputs import pictures
    except ImportError as error:
        raise MissingDependencyError(
            "images are read by Pillow, which is not installed: pip install -e '.[rows]' in the project's "
            "folder"
        ) from error
    return pictures


def _sound() -> Any:
    try:
        from rlcore.inputs import sound
    except ImportError as error:
        raise MissingDependencyError(
            "recordings are read by soundfile, which is not installed: pip install -e '.[rows]' in the "
            "project's folder"
        ) from error
    return sound
