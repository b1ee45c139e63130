"""Turns a row's messages, in OpenAI's form, or its question into the conversation that a chat template
renders, and collects its media on the way."""

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

KINDS = {"audio": "audio", "image": "images", "video": "video"}
"""Column by the kind of media, which is also the type of a part and of a processor's placeholder."""
_DATA = {"input_audio": "audio", "image_url": "image", "input_image": "image"}
"""Kind by the type of OpenAI's parts that hold media themselves, or name them in an object."""
_IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_FIRST_BYTES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}
"""Suffix by an image's first bytes, where its name has none; .webp where it begins otherwise."""
_ROLES = ("system", "developer", "user", "assistant", "tool")

Turn = dict[str, Any]
Place = str | list[str]
"""A file: of a recording, an image or a video. A list: images that are the frames of one video."""
Places = dict[str, list[Place]]
"""Media by kind, in the conversation's order."""


def question_messages(text: str, media: Mapping[str, Sequence[Place]]) -> list[Turn]:
    """Returns one user turn: the media, videos and images first, then the text."""
    return [{"role": "user", "content": _content(_parts(media), text)}]


def read_messages(
    messages: object, column: Places, locate: Callable[[object, str], Place]
) -> tuple[list[Turn], Places, str | None]:
    """Reads messages in OpenAI's form.

    A part of type `audio`, `image` or `video` that names nothing stands for the next one of the row's column.
    Where no part is of that kind, the column's media stand in front of the last user turn.

    Args:
        column: the media of the row's columns.
        locate: returns the place of what a part of a kind names or holds.

    Returns:
        The turns up to the answer; the media in them; and the last turn's text, where that is the
        assistant's.

    Raises:
        DataError: they are of another form; says which turn and what it holds.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError(f"messages are {str(messages)[:80]!r}; they must be a list of turns")
    turns: list[Turn] = []
    found: dict[str, list[Place | None]] = {kind: [] for kind in KINDS}
    for number, turn in enumerate(messages, 1):
        try:
            turns.append(_read_turn(turn, found, locate))
        except DataError as error:
            raise DataError(f"messages: turn {number}: {error}") from error
    answer = None
    if turns[-1]["role"] == "assistant":
        content = turns.pop()["content"]
        answer = content if isinstance(content, str) else None
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise DataError("messages: no turn of the user is there to be answered")
    in_front = {kind: places for kind, places in column.items() if not found[kind]}
    last = max(i for i, turn in enumerate(turns) if turn["role"] == turns[-1]["role"])
    turns[last]["content"] = _content(_parts(in_front), turns[last]["content"])
    media: Places = {}
    for kind, named in found.items():
        named = named or [None] * len(in_front.get(kind, ()))
        of_column = column.get(kind, [])
        if (places := named.count(None)) != len(of_column):
            raise DataError(
                f"messages: {places} parts of type {kind} name no file, and the row has {len(of_column)}"
            )
        rest = iter(of_column)
        media[kind] = [next(rest) if place is None else place for place in named]
    return turns, media, answer


def _parts(media: Mapping[str, Sequence[Place]]) -> list[Turn]:
    return [{"type": kind} for kind in reversed(KINDS) for _ in media.get(kind, ())]


def _read_turn(
    turn: object, found: dict[str, list[Place | None]], locate: Callable[[object, str], Place]
) -> Turn:
    if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
        raise DataError(f"got {str(turn)[:80]!r}; a turn has `content` and a `role`, of {', '.join(_ROLES)}")
    # Parquet gives every turn all keys.
    kept = {str(key): value for key, value in turn.items() if value is not None}
    content = kept.get("content", "" if "tool_calls" in kept else None)
    if isinstance(content, str):
        return kept | {"content": content}
    if not isinstance(content, list | tuple):
        raise DataError(f"its content is {str(content)[:80]!r}; it must be a text or a list of parts")
    return kept | {"content": _joined([_read_part(part, found, locate) for part in content])}


def _read_part(
    part: object, found: dict[str, list[Place | None]], locate: Callable[[object, str], Place]
) -> Turn:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    # Parquet gives every part all keys.
    kept = {key: v for key, v in part.items() if v is not None} if isinstance(part, Mapping) else {}
    kind = kept.get("type")
    if kind in ("text", "input_text") and isinstance(kept.get("text"), str):
        return {"type": "text", "text": kept["text"]}
    if kind in KINDS:
        named = [kept[key] for key in (kind, "path", f"{kind}_url", "url") if key in kept]
        found[kind].append(locate(named[0], kind) if named else None)
        return {"type": kind}
    if kind in _DATA:
        value = kept.get(kind, kept.get("image_url"))
        found[_DATA[kind]].append(locate(_decoded(value, kind), _DATA[kind]))
        return {"type": _DATA[kind]}
    raise DataError(
        f"got the part {str(part)[:80]!r}; a part is {{type: text, text: ...}}, "
        "{type: audio, audio: PATH}, {type: image, image: PATH}, {type: video, video: PATH}, or OpenAI's "
        "input_audio or image_url"
    )


def _decoded(value: object, kind: str) -> object:
    """Returns what OpenAI's `input_audio` or `image_url` holds, as a data set on the hub would hold it; or
    the path that it names."""
    if kind != "input_audio":
        value = value.get("url") if isinstance(value, Mapping) else value
        if not str(value).startswith("data:"):
            return value
    data = value.get("data") if isinstance(value, Mapping) else value
    try:
        return {"bytes": base64.b64decode(str(data).rpartition(",")[2], validate=True)}
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{kind}: its data is no base64: {error}") from error


def _content(parts: Sequence[Turn], content: str | Sequence[Turn]) -> str | list[Turn]:
    texts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return _joined([*parts, *texts])


def places_of(value: object, kind: str, root: Path) -> list[Place]:
    """Returns the media that a column of a kind names or holds: one, or a list of them. A list of images in
    the column of videos is one video's frames.

    Raises:
        DataError: as `located`.
    """
    values = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    if kind == "video" and values and all(_is_image(each) for each in values):
        values = [values]
    return [located(each, root, kind) for each in values]


def _is_image(value: object) -> bool:
    named = value.get("path") if isinstance(value, Mapping) else value
    return isinstance(named, str) and named.lower().endswith(_IMAGE_FILES)


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


def located(value: object, root: Path, kind: str) -> Place:
    """Returns the place of what a row names, or holds: what it holds is written below `root/audio` or
    `root/image`, once, under a name that its content gives.

    Args:
        value: a path, relative to `root`; or `{path: ..., bytes: ...}`, as Parquet files of the hub have. Of
            a video also the list of its frames.
        kind: one of `KINDS`.

    Raises:
        DataError: it is neither, leads out of `root`, or there is no such file.
    """
    if kind == "video" and isinstance(value, list | tuple) and value:
        return [str(located(each, root, "image")) for each in value]
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return str(_unpacked(value["bytes"], root, kind))
        value = value.get("path") or value.get("url")
    if not isinstance(value, str) or "\0" in value or not value.strip():
        raise DataError(f"{kind} is {str(value)[:80]!r}; it must be the path of a file")
    if "://" in value:
        raise DataError(f"{kind} {value[:80]!r} is an address: download the file, and name its path")
    # Not resolved: a link inside the folder is its owner's own doing.
    path = Path(abspath(root / expanduser(value)))
    if not path.is_relative_to(abspath(root)):
        raise DataError(
            f"{kind} {value!r} leads out of {root} (set task.args.audio_root to the folder that holds it)"
        )
    if not path.is_file():
        raise DataError(f"{kind} {value!r}: no such file below {root}")
    return str(path)


def _unpacked(content: bytes, root: Path, kind: str) -> Path:
    images = [suffix for first, suffix in _FIRST_BYTES.items() if content.startswith(first)]
    suffix = {
        "audio": SUFFIXES.get(content[:4], ".mp3"),
        "image": images[0] if images else ".webp",
        "video": ".mp4",
    }[kind]
    target = Path(abspath(root)) / kind / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if not target.is_file():
        with replaced(target, is_shared=True) as partial:
            partial.write_bytes(content)
    return target
