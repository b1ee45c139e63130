"""Explanations in the form of OpenAI's API, for clients that speak it."""

from __future__ import annotations

import time
import uuid
from typing import Any


def chat_completion(model: str, explained: dict[str, Any]) -> dict[str, Any]:
    """Returns a chat completion whose message is the model's answer, with the explanation beside it."""
    tokens = explained["tokens"]
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": explained["answer"], "refusal": None},
                "logprobs": None,
                "finish_reason": "length" if explained["finish_reason"] == "length" else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": tokens["prompt"],
            "completion_tokens": tokens["completion"],
            "total_tokens": tokens["prompt"] + tokens["completion"],
        },
        "explanation": explained,
    }


def model_list(model: str) -> dict[str, Any]:
    """Returns the one model that is served, as OpenAI's list of models."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "rlcore"}]}
