"""llama.cpp's llama-server: as a router it loads and unloads models, with one model it does not.

Router mode (llama-server without a model, since December 2025) lists a status with each model; one
that "sleeps" was unloaded because it was idle (--sleep-idle-seconds) and holds little.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..http import Deadline, Reply
from .http_service import HttpService, Pauses
from .openai_api import one_token
from .service import Condition, ServiceState

__all__ = ["LlamaCppService"]

_HOLDS_MEMORY = ("loaded", "loading")
_READY = ("loaded", "sleeping")
_NO_ROUTE = (404, 405, 501)
_HOW_TO_SLEEP = (
    "Start llama-server without a model (router mode), or give it stop and start commands in "
    "services.yaml."
)
_ONE_MODEL = "it was started with one model, which it cannot unload"

# What it answers where the model is loaded, or loads, already.
_ALREADY = 400


class LlamaCppService(HttpService):
    """A llama-server, as a router or with one model."""

    can_sleep = True

    async def look(self) -> Condition:
        """Ask which models there are and how they stand."""
        reply = await self._list(self.entry.timeouts.answer)
        if not reply.ok:
            return self.trouble(reply)
        states = _states(reply)
        if states is None:
            return self.trouble(self.unlike(reply, "a list of models"))
        if not states.router:
            return await self._look_at_one()
        held = any(state in _HOLDS_MEMORY for state in states.of.values())
        return Condition(ServiceState.AWAKE if held else ServiceState.ASLEEP)

    async def fall_asleep(self, level: int, deadline: Deadline) -> None:
        """Unload every model and wait until none is loaded; there is one level only."""
        asked = "unload its models"
        for model, state in (await self._states(asked, deadline)).items():
            if state in (*_HOLDS_MEMORY, "sleeping"):
                body = {"model": model}
                self.good(
                    asked,
                    await self.ask("POST", "/models/unload", timeout=deadline.left, body=body),
                )
        pauses = Pauses(deadline)
        left: list[str] = []
        while await pauses.more():
            states = await self._states(asked, deadline)
            left = [model for model, state in states.items() if state in _HOLDS_MEMORY]
            if not left:
                return
        said = f"agreed, but still holds {', '.join(left)} after {deadline.seconds:.3g} s"
        raise self.error(asked, said, "Look at its log; if it stays so, restart it.")

    async def wake_up(self, level: int, deadline: Deadline) -> None:
        """Load `entry.model`; without one the next request loads its own."""
        model = self.entry.model
        if model is None or not (await self.look()).can_sleep:
            return
        asked = f"load {model}"
        pauses = Pauses(deadline)
        state, told, answer = "nothing", False, ""
        while await pauses.more():
            state = (await self._states(asked, deadline)).get(model, "nothing")
            if state in _READY:
                return
            if state == "failed" and told:
                # Its log knows why; too little memory is the common cause and is not told apart.
                raise self.error(asked, "could not", "Look at its log; free GPU memory and retry.")
            if state == "loading":
                continue
            # Also where it was told already: an unloading that came late can have undone it.
            body = {"model": model}
            reply = await self.ask("POST", "/models/load", timeout=deadline.left, body=body)
            if not reply.ok and reply.status != _ALREADY:
                raise self.wake_refusal(asked, reply.said, reply)
            told, answer = True, f"; it {reply.said}"
        said = f"had not done so after {deadline.seconds:.3g} s ({state}{answer})"
        raise self.error(asked, said, "Raise timeouts.wake in services.yaml if it needs longer.")

    async def work(self, deadline: Deadline) -> str:
        """Answer one token by `entry.model` or the first that is loaded."""
        asked = "answer one token"
        reply = await self._list(min(self.entry.timeouts.answer, deadline.left))
        states = _states(reply) if reply.ok else None
        if states is None:
            raise self.refusal(asked, self.unlike(reply, "a list") if reply.ok else reply)
        names = [name for name, state in states.of.items() if state in _READY or not states.router]
        model = self.entry.model or (names[0] if names else None)
        if model is None:
            return "its list of models, since none is loaded or named"
        return await one_token(self, model, deadline)

    async def _look_at_one(self) -> Condition:
        """A server of one model: only --sleep-idle-seconds puts it to sleep, work wakes it."""
        props = await self.ask("GET", "/props")
        if props.ok and props.data.get("is_sleeping") is True:
            said = f"{_ONE_MODEL} when told so; it sleeps because it was idle. {_HOW_TO_SLEEP}"
            return Condition(ServiceState.ASLEEP, said, False)
        return Condition(ServiceState.AWAKE, f"{_ONE_MODEL}. {_HOW_TO_SLEEP}", False)

    async def _list(self, timeout: float) -> Reply:
        reply = await self.ask("GET", "/models", timeout=timeout)
        if reply.status in _NO_ROUTE:
            reply = await self.ask("GET", "/v1/models", timeout=timeout)
        return reply

    async def _states(self, asked: str, deadline: Deadline) -> dict[str, str]:
        reply = await self._list(min(self.entry.timeouts.answer, deadline.left))
        states = _states(reply) if reply.ok else None
        if states is None:
            raise self.refusal(asked, self.unlike(reply, "a list") if reply.ok else reply)
        if not states.router:
            raise self.error(asked, f"cannot: {_ONE_MODEL}", _HOW_TO_SLEEP)
        return states.of


@dataclass(frozen=True)
class _Models:
    """Models by name with their state; `router` where the server tells states at all."""

    of: dict[str, str]
    router: bool


def _states(reply: Reply) -> _Models | None:
    """Read a list of models; None where the reply is none. A failed load is the state "failed"."""
    models = reply.data.get("data")
    if not isinstance(models, list):
        return None
    states, router = {}, False
    for model in models:
        if not isinstance(model, dict) or not isinstance(model.get("id"), str):
            return None
        status = model.get("status")
        value = status.get("value") if isinstance(status, dict) else None
        if isinstance(status, dict) and isinstance(value, str):
            router = True
            states[model["id"]] = "failed" if status.get("failed") else value
        else:
            states[model["id"]] = ""
    # A router without any model lists nothing; a server always lists its one.
    return _Models(states, router or not models)
