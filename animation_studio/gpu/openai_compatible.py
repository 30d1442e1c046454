"""Any server with OpenAI's routes (LM Studio, TabbyAPI, SGLang, ...): stopped and started only."""

from __future__ import annotations

from ..http import Deadline
from .http_service import HttpService
from .openai_api import model_of, one_token
from .service import Condition, ServiceState

__all__ = ["OpenAIService"]


class OpenAIService(HttpService):
    """A server of which nothing is known but OpenAI's routes."""

    health = "/v1/models"

    async def look(self) -> Condition:
        """Ask its health check."""
        reply = await self.ask("GET", self.health_path, expect_json=False)
        if not reply.ok:
            return self.trouble(reply)
        return Condition(ServiceState.AWAKE, can_sleep=False)

    async def work(self, deadline: Deadline) -> str:
        """Answer one token."""
        return await one_token(self, await model_of(self, deadline), deadline)
