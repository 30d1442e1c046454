"""Messages as OpenAI's route takes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from .messages import ChatRequest, Message

__all__ = ["media_type", "message_bodies", "told"]

_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def media_type(picture: bytes) -> str | None:
    """Return the media type of a file by its first bytes; None for what is no PNG and no JPEG."""
    return next((kind for start, kind in _KINDS if picture.startswith(start)), None)


def message_bodies(messages: Sequence[Message], addition: str = "") -> list[dict[str, Any]]:
    """Return the messages, pictures before the text, with `addition` after the last text."""
    bodies = [{"role": one.role, "content": _content(one, one.text)} for one in messages[:-1]]
    last = messages[-1]
    text = f"{last.text}\n\n{addition}" if addition else last.text
    return [*bodies, {"role": last.role, "content": _content(last, text)}]


def _content(message: Message, text: str) -> str | list[dict[str, Any]]:
    if not message.pictures:
        return text
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_url(picture)}}
        for picture in message.pictures
    ]
    return [*pictures, {"type": "text", "text": text}]


def _data_url(picture: bytes) -> str:
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def told(request: ChatRequest) -> str:
    """Return what a model is asked for that nothing holds to it."""
    if request.schema is not None:
        schema = json.dumps(request.schema, separators=(",", ":"), ensure_ascii=False)
        return (
            "Answer with one JSON object and nothing else, not even a code fence. It must obey "
            f"this JSON schema:\n{schema}"
        )
    return f"Answer with one of these and nothing else: {', '.join(request.choices)}"
