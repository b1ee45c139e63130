"""Reads text-only conversations for the mix: a model that is fine-tuned on speech alone forgets how to
write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlcore.errors import DataError
from rlcore.models.chat_template import Messages
from rlcore.records.files import JsonObject, numbered_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Holds a conversation whose last turn, the assistant's, is the target."""

    id: str
    """Id made of the line's number in the file: `text-000017`."""
    messages: Messages
    """Turns of the conversation before the last."""
    target: str
    """Text of the last turn."""


def read_conversations(path: str | Path) -> list[Conversation]:
    """Reads JSON lines as the hub has them: `{"messages": [{"role": "user", "content": "..."}, ...]}`, with
    the assistant's turn last.

    Raises:
        DataError: The file is missing or empty, or a line is not such a conversation; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; sft.text_data names JSON lines of chat messages")
    found = []
    for number, row in numbered_rows(path, 'like {"messages": [{"role", "content"}, ...]}'):
        found.append(_conversation(row, f"{path}:{number}", number))
    if not found:
        raise DataError(f"{path}: empty; sft.text_data names JSON lines of chat messages")
    return found


def _conversation(row: JsonObject, where: str, number: int) -> Conversation:
    try:
        turns = row["messages"]
        roles = [turn["role"] for turn in turns]
        texts = [turn["content"] for turn in turns]
    except (KeyError, TypeError) as error:
        raise DataError(f'{where}: not {{"messages": [{{"role", "content"}}, ...]}}: {error!r}') from error
    if len(turns) < 2 or roles[-1] != "assistant" or not all(isinstance(t, str) and t for t in texts):
        raise DataError(
            f"{where}: roles {roles}; at least two turns of text are needed, the last the assistant's"
        )
    messages = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in zip(roles[:-1], texts[:-1], strict=True)
    ]
    return Conversation(id=f"text-{number:06d}", messages=messages, target=texts[-1])
