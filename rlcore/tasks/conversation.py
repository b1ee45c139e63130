"""Turns a row's messages, in OpenAI's form, or its question into the conversation that a chat template
renders, and collects its recordings on the way."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import abspath, expanduser
from pathlib import Path
from typing import Any

from rlcore.errors import DataError
from rlcore.inputs.hub import SUFFIXES
from rlcore.records.files import replaced

_IMAGES = ("image", "image_url", "input_image")
NO_IMAGES = "it has an image, and no model family takes images here: leave such rows or parts out"
_AUDIO_KEYS = ("audio", "path", "audio_url", "url")
"""Keys under which a part of type `audio` may name its recording."""
_ROLES = ("system", "developer", "user", "assistant", "tool")

Turn = dict[str, Any]


def question_messages(text: str, num_audio: int) -> list[Turn]:
    """Returns one user turn: the recordings, then the text."""
    return [{"role": "user", "content": _content([{"type": "audio"}] * num_audio, text)}]


def read_messages(
    messages: object, num_audio: int, locate: Callable[[object], str]
) -> tuple[list[Turn], list[str | None], str | None]:
    """Reads messages in OpenAI's form.

    A part of type `audio` that names no recording stands for the next one of the row's audio column. Where no
    part is audio, the column's recordings stand in front of the last user turn.

    Args:
        num_audio: recordings in the row's audio column.
        locate: returns the path of a recording that a part names or holds.

    Returns:
        The turns up to the answer; a path for each recording in them, None for the column's next one; and the
        last turn's text, where that is the assistant's.

    Raises:
        DataError: they are of another form; says which turn and what it holds.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError(f"messages are {str(messages)[:80]!r}; they must be a list of turns")
    turns: list[Turn] = []
    paths: list[str | None] = []
    for number, turn in enumerate(messages, 1):
        try:
            turns.append(_read_turn(turn, paths, locate))
        except DataError as error:
            raise DataError(f"messages: turn {number}: {error}") from error
    answer = None
    if turns[-1]["role"] == "assistant":
        content = turns.pop()["content"]
        answer = content if isinstance(content, str) else None
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise DataError("messages: no turn of the user is there to be answered")
    if num_audio and not paths:
        last = max(i for i, turn in enumerate(turns) if turn["role"] == turns[-1]["role"])
        turns[last]["content"] = _content([{"type": "audio"}] * num_audio, turns[last]["content"])
        paths = [None] * num_audio
    if (places := paths.count(None)) != num_audio:
        raise DataError(
            f"messages: {places} parts of type audio name no recording, and the row has {num_audio}"
        )
    return turns, paths, answer


def _read_turn(turn: object, paths: list[str | None], locate: Callable[[object], str]) -> Turn:
    if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
        raise DataError(f"got {str(turn)[:80]!r}; a turn has `content` and a `role`, of {', '.join(_ROLES)}")
    # Parquet gives every turn all keys.
    kept = {str(key): value for key, value in turn.items() if value is not None}
    content = kept.get("content", "" if "tool_calls" in kept else None)
    if isinstance(content, str):
        return kept | {"content": content}
    if not isinstance(content, list | tuple):
        raise DataError(f"its content is {str(content)[:80]!r}; it must be a text or a list of parts")
    return kept | {"content": _joined([_read_part(part, paths, locate) for part in content])}


def _read_part(part: object, paths: list[str | None], locate: Callable[[object], str]) -> Turn:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    # Parquet gives every part all keys.
    kept = {key: v for key, v in part.items() if v is not None} if isinstance(part, Mapping) else {}
    kind = kept.get("type")
    if kind in ("text", "input_text") and isinstance(kept.get("text"), str):
        return {"type": "text", "text": kept["text"]}
    if kind == "audio":
        named = [kept[key] for key in _AUDIO_KEYS if key in kept]
        paths.append(locate(named[0]) if named else None)
        return {"type": "audio"}
    if kind == "input_audio":
        paths.append(locate(_decoded(kept.get("input_audio"))))
        return {"type": "audio"}
    if kind in _IMAGES:
        raise DataError(NO_IMAGES)
    raise DataError(
        f"got the part {str(part)[:80]!r}; a part is {{type: text, text: ...}}, "
        "{type: audio, audio: PATH}, or OpenAI's input_audio"
    )


def _decoded(part: object) -> Mapping[str, object]:
    """Returns the recording that OpenAI's `input_audio` holds, as a data set on the hub would hold it."""
    data = part.get("data") if isinstance(part, Mapping) else None
    try:
        return {"bytes": base64.b64decode(str(data).rpartition(",")[2], validate=True)}
    except (binascii.Error, ValueError) as error:
        raise DataError(f"input_audio: its data is no base64: {error}") from error


def _content(parts: Sequence[Turn], content: str | Sequence[Turn]) -> str | list[Turn]:
    texts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return _joined([*parts, *texts])


def _joined(parts: Sequence[Turn]) -> str | list[Turn]:
    """Returns parts of text alone as a text, a line each: templates of text models take no parts."""
    if any(part["type"] != "text" for part in parts):
        return list(parts)
    return "\n".join(part["text"] for part in parts)


def texts_of(messages: Sequence[Turn]) -> Iterator[str]:
    """Yields the texts of a conversation."""
    for turn in messages:
        content = turn["content"]
        if isinstance(content, str):
            yield content
        else:
            yield from (part["text"] for part in content if part["type"] == "text")


def located(value: object, root: Path) -> str:
    """Returns the path of a recording that a row names, or holds: what it holds is written below
    `root/audio`, once, under a name that its content gives.

    Args:
        value: a path, relative to `root`; or `{path: ..., bytes: ...}`, as Parquet files of the hub have.

    Raises:
        DataError: it is neither, leads out of `root`, or there is no such file.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return str(_unpacked(value["bytes"], root))
        value = value.get("path") or value.get("url")
    if not isinstance(value, str) or "\0" in value or not value.strip():
        raise DataError(f"audio is {str(value)[:80]!r}; it must be the path of a file")
    if "://" in value:
        raise DataError(f"audio {value[:80]!r} is an address: download the file, and name its path")
    # Not resolved: a link inside the folder is its owner's own doing.
    path = Path(abspath(root / expanduser(value)))
    if not path.is_relative_to(abspath(root)):
        raise DataError(
            f"audio {value!r} leads out of {root} (set task.args.audio_root to the folder that holds it)"
        )
    if not path.is_file():
        raise DataError(f"audio {value!r}: no such file below {root}")
    return str(path)


def _unpacked(content: bytes, root: Path) -> Path:
    suffix = SUFFIXES.get(content[:4], ".mp3")
    target = Path(abspath(root)) / "audio" / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if not target.is_file():
        with replaced(target, is_shared=True) as partial:
            partial.write_bytes(content)
    return target
