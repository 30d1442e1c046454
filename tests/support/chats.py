"""Asking a language model in tests: clients with short time-outs, and what their errors owe."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.llm.chat import ChatClient
from animation_studio.llm.messages import ChatAnswer, ChatRequest, Message
from animation_studio.registry.services import ServiceEntry
from tests.support.standin_service import StandIn

__all__ = ["PNG", "SCHEMA", "ask", "client_at", "client_of", "fails", "request", "run"]

# Enough of a PNG for whoever looks at its first bytes.
PNG = b"\x89PNG\r\n\x1a\n and so on"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "maxLength": 40},
        "mood": {"type": "string", "enum": ["happy", "sad"]},
        "lines": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
    },
    "required": ["action", "mood", "lines"],
    "additionalProperties": False,
}
# Seconds after which a test that hangs fails.
PATIENCE = 30.0


def client_at(url: str, kind: str = "vllm", **entry: Any) -> ChatClient:
    """Return a client of the service "writer"; `entry` is what services.yaml would say."""
    timeouts = {"answer": 2.0, "generate": 20.0, **entry.pop("timeouts", {})}
    values = {"kind": kind, "base_url": url, "timeouts": timeouts, **entry}
    return ChatClient("writer", ServiceEntry.model_validate(values))


def client_of(server: StandIn, **entry: Any) -> ChatClient:
    """Return a client of a stand-in."""
    return client_at(server.url, server.kind, **entry)


def request(text: str = "Hello", max_tokens: int = 400, **more: Any) -> ChatRequest:
    """Return a request of one message; `pictures` go into it."""
    message = Message("user", text, tuple(more.pop("pictures", ())))
    return ChatRequest([message], max_tokens, **more)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a loop of its own; what hangs fails."""

    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(limited())


def ask(client: ChatClient, *texts: Any, **more: Any) -> ChatAnswer:
    """Ask once and return the answer."""
    answer: ChatAnswer = run(client.ask(request(*texts, **more)))
    return answer


def fails(client: ChatClient, *texts: Any, model: str = "tiny", **more: Any) -> str:
    """Ask once what must fail; return the message, which owes service, address, model, advice."""
    with pytest.raises(ServiceError) as caught:
        ask(client, *texts, **more)
    text = str(caught.value)
    assert text.startswith(f"{client.name} was asked for an answer of {model} and "), text
    check_error(text)
    return text


def check_error(text: str) -> None:
    """Check what every message owes: no more than a few lines, whole sentences, printable."""
    assert text.endswith("."), text
    assert text.count(". ") >= 1, text
    assert len(text) < 700, text
    assert text.isprintable(), text
