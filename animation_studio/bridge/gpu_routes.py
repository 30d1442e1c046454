"""`/animation_studio/gpu`: the state by GET, acts by POST, for the page and for scripts.

    GET  /animation_studio/gpu          meter, services, lease, journal
    POST /animation_studio/gpu/sleep    {"service": KEY, "level": 1 or 2 (optional)}
    POST /animation_studio/gpu/wake     {"service": KEY}
    POST /animation_studio/gpu/free     {}: unload ComfyUI's models
    POST /animation_studio/gpu/resume   {}: wake what a crash left paused

Acts answer {"ok": true, "steps": [...]} or, with status 400, 403, 409 or 502, {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web
from server import PromptServer

from ..errors import ConfigError, GpuError, StudioError

__all__ = ["register"]

_logger = logging.getLogger("animation_studio")
_LIMIT = 4096
Act: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def register() -> None:
    """Add the routes to ComfyUI's server, where there is one."""
    if not hasattr(PromptServer, "instance"):
        return
    routes = PromptServer.instance.routes
    routes.get("/animation_studio/gpu")(_status)
    for name, act in {"sleep": _sleep, "wake": _wake, "free": _free, "resume": _resume}.items():
        routes.post(f"/animation_studio/gpu/{name}")(_guarded(act))


async def _status(_: web.Request) -> web.Response:
    # Here and below, so that the arbiter costs nothing at ComfyUI's start.
    from ..gpu.status import status_of
    from . import gpu

    try:
        arbiter = await asyncio.to_thread(gpu.arbiter)
        status = await gpu.submit(status_of(arbiter))
    except StudioError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.Response(text=status.model_dump_json(), content_type="application/json")


def _guarded(act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Let same-origin requests with a small JSON object through, and name what goes wrong."""

    async def handle(request: web.Request) -> web.Response:
        if not _same_origin(request):
            return _refusal(403, "Only pages of this ComfyUI, and scripts, may do this.")
        if request.content_type != "application/json":
            return _refusal(415, "Send a JSON object, with Content-Type: application/json.")
        try:
            body = json.loads(await _text(request))
            if not isinstance(body, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            return _refusal(400, f"The body is no JSON object: {error}.")
        try:
            return web.json_response({"ok": True, **await act(body)})
        except ConfigError as error:
            return _refusal(400, str(error))
        except GpuError as error:
            return _refusal(409, str(error))
        except StudioError as error:
            return _refusal(502, str(error))

    return handle


async def _text(request: web.Request) -> str:
    data = b""
    while piece := await request.content.read(_LIMIT + 1):
        data += piece
        if len(data) > _LIMIT:
            raise ValueError(f"more than {_LIMIT} bytes")
    return data.decode() or "{}"


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def _same_origin(request: web.Request) -> bool:
    """Whether no other site's page sent it; ComfyUI itself checks loopback addresses only."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")


def _key(body: dict[str, Any]) -> str:
    key = body.get("service")
    if not isinstance(key, str):
        raise ConfigError('"service" should be the name of a service of services.yaml.')
    return key


async def _sleep(body: dict[str, Any]) -> dict[str, Any]:
    from ..gpu import manual
    from . import gpu

    level = body.get("level")
    if level not in (None, 1, 2) or isinstance(level, bool):
        raise ConfigError('"level" should be 1 or 2.')
    arbiter = await asyncio.to_thread(gpu.arbiter)
    return await gpu.submit(manual.sleep(arbiter, _key(body), level))


async def _wake(body: dict[str, Any]) -> dict[str, Any]:
    from ..gpu import manual
    from . import gpu

    arbiter = await asyncio.to_thread(gpu.arbiter)
    return await gpu.submit(manual.wake(arbiter, _key(body)))


async def _free(_: dict[str, Any]) -> dict[str, Any]:
    from ..gpu import manual
    from . import gpu

    arbiter = await asyncio.to_thread(gpu.arbiter)
    return await gpu.submit(manual.free(arbiter))


async def _resume(_: dict[str, Any]) -> dict[str, Any]:
    from . import gpu

    arbiter = await asyncio.to_thread(gpu.arbiter)
    done = await gpu.submit(arbiter.recover(offered=True))
    left = arbiter.journal.read().paused
    return {"ok": done, "paused": [pause.model_dump(mode="json") for pause in left]}
