"""What the page asks for over HTTP. Every route here only reads."""

from __future__ import annotations

import asyncio

from aiohttp import web
from server import PromptServer

from . import studio

__all__ = ["register"]


def register() -> None:
    """Add the pack's routes to ComfyUI's server, where there is one."""
    if not hasattr(PromptServer, "instance"):
        return
    PromptServer.instance.routes.get("/animation_studio/problems")(_problems)


async def _problems(_: web.Request) -> web.Response:
    """Answer `{"problems": [{"severity", "text"}, ...]}` of the configuration as it is now."""
    registry = await asyncio.to_thread(studio.registry)
    found = [{"severity": p.severity, "text": str(p)} for p in registry.problems]
    return web.json_response({"problems": found})
