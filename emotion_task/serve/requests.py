"""Reads what a client sends into an `Ask`: a recording by itself, a form, or OpenAI's chat.

Whatever cannot be read is refused with a sentence that says what was due. Knows no model.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.datastructures import FormData, Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from emotion_task.serve.ask import Ask
from emotion_task.serve.refused import MALFORMED, Refused

_GENDERS = ("male", "female")
_MAX_TEXT = 2000
"""Characters of a transcript, or of a turn of a conversation."""
_MAX_TURNS = 16
_FIELDS = ("text", "gender", "curves")
_IGNORED = {"user", "metadata", "store", "modalities", "logprobs", "top_logprobs", "response_format"}
"""OpenAI's fields that change nothing here where they hold what is so in any case."""
_TEXT_ONLY = {"response_format": {"type": "text"}, "modalities": ["text"], "logprobs": False}
_KNOWN = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "n",
    "stream",
}


async def form_ask(body: bytes, headers: Headers, query: QueryParams) -> Ask:
    """Reads a recording: the body itself, or the part `file` of a form (multipart/form-data). `text`,
    `gender` and `curves` are parts of the form, or stand in the address.

    Raises:
        Refused: a part is missing, unknown or malformed, or the form has no end.
    """
    if "multipart/form-data" not in headers.get("content-type", "").lower():
        return _asked(body, query)
    form = await _form(body, headers)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refused(MALFORMED, "The form has no part `file` with a recording.")
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    return _asked(await file.read(), {**query, **texts}, ("file",))


def chat_ask(body: bytes, max_tokens: int) -> Ask:
    """Reads a request of OpenAI's chat completions, whose conversation has one `input_audio`.

    The question is the client's. Where the conversation has no text, it is that of the model's training.

    Raises:
        Refused: it is no such request, or asks for what is not done here.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(MALFORMED, f"The body is not JSON: {error}.") from error
    if not isinstance(request, dict):
        raise Refused(MALFORMED, "The body must be a JSON object with `messages`.")
    _check_fields(request)
    messages = request.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= _MAX_TURNS:
        raise Refused(MALFORMED, f"messages: a list of 1 to {_MAX_TURNS} turns is needed.")
    recordings: list[bytes] = []
    turns = [_turn(turn, f"messages[{i}]", recordings) for i, turn in enumerate(messages)]
    if len(recordings) != 1:
        raise Refused(
            MALFORMED, f"messages: one part of type input_audio is needed, {len(recordings)} are there."
        )
    if turns[-1]["role"] != "user":
        raise Refused(MALFORMED, "messages: the last turn must be the user's.")
    has_text = any(part["type"] == "text" for turn in turns for part in turn["content"])
    return Ask(
        recording=recordings[0],
        messages=turns if has_text else None,
        sampling=_sampling(request, max_tokens),
        seed=_number(request, "seed", int, -(2**63), 2**63 - 1),
    )


async def _form(body: bytes, headers: Headers) -> FormData:
    boundary = re.search(r'boundary=(?:"([^"]+)"|([^\s;]+))', headers["content-type"])
    if boundary is None:
        raise Refused(MALFORMED, "The content type multipart/form-data names no boundary.")
    if f"--{boundary[1] or boundary[2]}--".encode("latin-1") not in body:
        raise Refused(MALFORMED, "The form is cut off: its closing boundary is missing.")

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers, chunks(), max_files=1, max_fields=len(_FIELDS), max_part_size=4 * _MAX_TEXT
    )
    try:
        return await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise Refused(MALFORMED, f"The form cannot be read: {error}.") from error


def _asked(recording: bytes, fields: Mapping[str, str], known: tuple[str, ...] = ()) -> Ask:
    if unknown := sorted(set(fields) - {*_FIELDS, *known}):
        raise Refused(MALFORMED, f"{unknown[0]}: no such field; there are {', '.join(_FIELDS)}.")
    gender, text = fields.get("gender") or None, (fields.get("text") or "").strip() or None
    if gender is not None and gender not in _GENDERS:
        raise Refused(MALFORMED, f"gender: got {gender!r}; male or female, or leave it out.")
    return Ask(
        recording=recording,
        text=_bounded(text, "text"),
        gender=gender,
        curves=fields.get("curves", "") in ("1", "true"),
    )


def _bounded(text: str | None, where: str) -> str | None:
    if text is not None and len(text) > _MAX_TEXT:
        raise Refused(MALFORMED, f"{where}: {len(text)} characters; at most {_MAX_TEXT} are taken.")
    if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused(MALFORMED, f"{where}: half of a surrogate pair is no character.")
    return text


def _check_fields(request: Mapping[str, Any]) -> None:
    for name, value in request.items():
        is_harmless = name in _IGNORED and (value is None or value == _TEXT_ONLY.get(name, value))
        if name not in _KNOWN and not is_harmless:
            raise Refused(MALFORMED, f"{name}: {value!r} is not supported here."[:300])
    if request.get("stream"):
        raise Refused(MALFORMED, "stream: answers come whole here; leave it out, or send false.")
    if request.get("n") not in (None, 1):
        raise Refused(MALFORMED, "n: one answer is given; leave it out, or send 1.")


def _turn(turn: object, where: str, recordings: list[bytes]) -> dict[str, Any]:
    """Returns a turn as chat templates take them; adds its recordings to `recordings`."""
    if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
        raise Refused(MALFORMED, f"{where}: an object with a role (system, user or assistant) is needed.")
    content = turn.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise Refused(MALFORMED, f"{where}.content: a text, or a list of parts is needed.")
    parts = []
    for i, part in enumerate(content):
        here = f"{where}.content[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": _bounded(part["text"], f"{here}.text")})
        elif kind == "input_audio":
            recordings.append(_decoded(part.get("input_audio"), f"{here}.input_audio"))
            parts.append({"type": "audio"})
        else:
            raise Refused(MALFORMED, f"{here}: a part of type text or input_audio is needed.")
    return {"role": turn["role"], "content": parts}


def _decoded(audio: object, where: str) -> bytes:
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(data, str):
        raise Refused(MALFORMED, f"{where}.data: the recording in base64 is needed.")
    if data.startswith("data:"):  # some clients send a data URL
        data = data.partition(",")[2]
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(MALFORMED, f"{where}.data: not base64: {error}.") from error


def _sampling(request: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    newer = _number(request, "max_completion_tokens", int, 1, math.inf)
    wanted = newer if newer is not None else _number(request, "max_tokens", int, 1, math.inf)
    settings = {
        "max_tokens": None if wanted is None else min(int(wanted), max_tokens),
        "temperature": _number(request, "temperature", float, 0, 2),
        "top_p": _number(request, "top_p", float, 1e-3, 1),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _number(request: Mapping[str, Any], name: str, kind: type, low: float, high: float) -> Any:
    value = request.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (kind is int and value % 1):
        what = "a whole number" if kind is int else "a number"
        raise Refused(MALFORMED, f"{name}: got {value!r}; {what} from {low:g} to {high:g} is needed."[:300])
    return kind(value)
