"""The OpenAI-compatible routes that several kinds of service have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..http import Deadline, Reply, model_ids
from .http_service import HttpService

__all__ = ["model_of", "one_token"]

_ASKED = "answer one token"
_NO_ROUTE = (404, 405, 501)
# "abort" is the one that means that nothing came.
_GOOD_ENDS = ("length", "stop", "tool_calls", "eos")


async def model_of(service: HttpService, deadline: Deadline) -> str:
    """Return the model that services.yaml names, else the first that the server offers."""
    if service.entry.model is not None:
        return service.entry.model
    timeout = min(service.entry.timeouts.answer, deadline.left)
    reply = service.good(_ASKED, await service.ask("GET", "/v1/models", timeout=timeout))
    names = model_ids(reply)
    if not names:
        raise service.error(_ASKED, "offers no model", "Load one, or name it as `model`.")
    return names[0]


async def one_token(service: HttpService, model: str, deadline: Deadline) -> str:
    """Let a language model answer one token and return what it was asked.

    A plain completion, which needs no chat template; a chat where the server has none.
    """
    body = {"model": model, "max_tokens": 1, "temperature": 0.0, "stream": False}
    plain: dict[str, Any] = {**body, "prompt": "Hello"}
    chat: dict[str, Any] = {**body, "messages": [{"role": "user", "content": "Hello"}]}
    reply = await _post(service, "/v1/completions", plain, deadline)
    if reply.status in _NO_ROUTE:
        # Also the answer to an unknown model; then the second says so again.
        reply = await _post(service, "/v1/chat/completions", chat, deadline)
    if not reply.ok:
        raise service.refusal(_ASKED, reply)
    end = _finish_reason(reply.data)
    if end not in _GOOD_ENDS:
        said = f"ended its answer with finish_reason {end!r}"
        raise service.error(_ASKED, said, "Look at its log; if it stays so, restart it.")
    return f"one token of {model}"


async def _post(
    service: HttpService, path: str, body: Mapping[str, Any], deadline: Deadline
) -> Reply:
    return await service.ask("POST", path, timeout=deadline.left, body=body)


def _finish_reason(data: Mapping[str, Any]) -> object:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("finish_reason") if isinstance(first, dict) else None
