"""GPT-SoVITS (api_v2.py): gives memory back only by ending.

It answers one request at a time: while it speaks, even its health check waits, so silence is not
death. `GET /control?command=exit` ends it (it answers 500 or nothing, then the process goes).
"""

from __future__ import annotations

from ..http import Deadline, Outcome, Reply
from .http_service import HttpService
from .service import Condition, ServiceState

__all__ = ["GptSovitsService"]


class GptSovitsService(HttpService):
    """A GPT-SoVITS server."""

    health = "/openapi.json"

    @property
    def can_stop(self) -> bool:
        """Whether it can be started again; it ends by itself when asked."""
        return self.entry.start is not None

    async def look(self) -> Condition:
        """Ask its health check."""
        reply = await self._ask_routes(self.entry.timeouts.answer)
        if reply.ok:
            return Condition(ServiceState.AWAKE, can_sleep=False)
        found = self.trouble(reply)
        if found.state is ServiceState.SILENT:
            said = f"It {reply.said}; it may be speaking, which takes as long as it takes."
            return Condition(ServiceState.SILENT, said, False)
        return found

    async def work(self, deadline: Deadline) -> str:
        """Answer its health check, within the time that speaking may take."""
        reply = await self._ask_routes(deadline.left)
        if not reply.ok:
            raise self.refusal("answer", reply)
        return "its list of routes"

    async def _ask_routes(self, timeout: float) -> Reply:
        """Ask its health check; where that is the kind's own, look whether it can speak."""
        if self.entry.health is not None:
            return await self.ask("GET", self.entry.health, timeout=timeout, expect_json=False)
        reply = await self.ask("GET", self.health, timeout=timeout)
        paths = reply.data.get("paths")
        if reply.ok and not (isinstance(paths, dict) and "/tts" in paths):
            return self.unlike(reply, "a route /tts")
        return reply

    async def order_end(self, deadline: Deadline) -> None:
        """Run the stop command, else ask it to exit where a start command brings it back."""
        if self.entry.stop is not None or self.entry.start is None:
            await super().order_end(deadline)
            return
        query = [("command", "exit")]
        reply = await self.ask(
            "GET", "/control", timeout=deadline.left, query=query, expect_json=False
        )
        # 500, a broken connection and silence are all how a yes can look.
        if reply.outcome is Outcome.UNREACHABLE or reply.status in (400, 401, 403, 404, 422):
            raise self.refusal("stop", reply)
