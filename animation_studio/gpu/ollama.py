"""Ollama: unloads its models when told so, and loads one at the next request for it.

Asleep means that it holds no model in GPU memory (GET /api/ps). Routes as of Ollama 0.12, the same
since 0.1.33.
"""

from __future__ import annotations

from typing import Any

from ..http import Deadline, Reply
from .http_service import HttpService, Pauses
from .service import Condition, ServiceState

__all__ = ["OllamaService"]

_BUSY = "A model is unloaded when its last answer has ended: wait, or restart Ollama."


class OllamaService(HttpService):
    """An Ollama server with all its models."""

    can_sleep = True
    health = "/api/version"

    async def look(self) -> Condition:
        """Ask which models are loaded."""
        reply = await self.ask("GET", "/api/ps")
        models = self._loaded(reply)
        if models is None:
            return self.trouble(self.unlike(reply, "models") if reply.ok else reply)
        return Condition(ServiceState.AWAKE if models else ServiceState.ASLEEP)

    async def fall_asleep(self, level: int, deadline: Deadline) -> None:
        """Unload every loaded model and wait until none is listed; there is one level only."""
        asked = "unload its models"
        for model in await self._models(asked, deadline):
            body = {"model": model, "keep_alive": 0, "stream": False}
            self.good(
                asked, await self.ask("POST", "/api/generate", timeout=deadline.left, body=body)
            )
        pauses = Pauses(deadline)
        left: list[str] = []
        while await pauses.more():
            left = await self._models(asked, deadline)
            if not left:
                return
        said = f"agreed, but still holds {', '.join(left)} after {deadline.seconds:.3g} s"
        raise self.error(asked, said, _BUSY)

    async def wake_up(self, level: int, deadline: Deadline) -> None:
        """Load `entry.model`; without one the next request loads its own."""
        model = self.entry.model
        if model is None:
            return
        asked = f"load {model}"
        body = {"model": model, "stream": False}
        reply = await self.ask("POST", "/api/generate", timeout=deadline.left, body=body)
        if not reply.ok:
            raise self.wake_refusal(asked, reply.said, reply)
        if reply.data.get("done") is not True:
            raise self.error(asked, "ended its answer before it was done", "Look at its log.")

    async def work(self, deadline: Deadline) -> str:
        """Answer one token by `entry.model` or the first loaded; without any tell the version."""
        asked = "answer one token"
        loaded = [] if self.entry.model else await self._models(asked, deadline)
        model = self.entry.model or (loaded[0] if loaded else None)
        if model is None:
            self.good("tell its version", await self.ask("GET", "/api/version"))
            return "its version, since no model is loaded or named"
        # `think` off is refused by models that cannot think; one token is one token either way.
        body: dict[str, Any] = {"model": model, "prompt": "Hello", "stream": False}
        body["options"] = {"num_predict": 1}
        reply = self.good(
            asked, await self.ask("POST", "/api/generate", timeout=deadline.left, body=body)
        )
        if reply.data.get("done") is not True:
            raise self.error(asked, "ended its answer before it was done", "Look at its log.")
        return f"one token of {model}"

    async def _models(self, asked: str, deadline: Deadline) -> list[str]:
        timeout = min(self.entry.timeouts.answer, deadline.left)
        reply = self.good(asked, await self.ask("GET", "/api/ps", timeout=timeout))
        models = self._loaded(reply)
        if models is None:
            raise self.refusal(asked, self.unlike(reply, "models"))
        return models

    @staticmethod
    def _loaded(reply: Reply) -> list[str] | None:
        """Return the names of models in GPU memory; None where the reply is no such list."""
        if not reply.ok or "models" not in reply.data:
            return None
        models = reply.data["models"] or []  # null, where none is loaded, in old versions
        if not isinstance(models, list):
            return None
        names = []
        for model in models:
            if not isinstance(model, dict) or not isinstance(model.get("name"), str):
                return None
            # One that runs on the CPU alone is nobody's concern here.
            if model.get("size_vram", 1):
                names.append(model["name"])
        return names
