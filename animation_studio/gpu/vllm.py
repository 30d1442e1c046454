"""vLLM: sleeps and wakes by the routes that VLLM_SERVER_DEV_MODE=1 opens (vLLM 0.8 and later).

What shapes this module (tests/services measure it on a real one): a request to a sleeping vLLM
hangs, and /health and /v1/models are 200 all the same. /is_sleeping says true as soon as the
scheduler pauses, before memory is free, so only the answer to POST /sleep is its end. That order is
carried out even if whoever gave it is gone and a wake came meanwhile, and then the engine answers
requests without its memory: so a sleep that is under way is always brought to its end first.
"""

from __future__ import annotations

import asyncio
import re

from ..http import Deadline, Query, Reply
from .http_service import HttpService, Pauses
from .openai_api import model_of, one_token
from .service import Condition, ServiceState

__all__ = ["VllmService"]

_NO_ROUTE = (404, 405, 501)
_MODE_UNKNOWN = (400, 422)
_HOW_TO_SLEEP = (
    "Start vLLM with the environment variable VLLM_SERVER_DEV_MODE=1 and the option "
    "--enable-sleep-mode, so that it can sleep."
)
_NO_SLEEP_ROUTES = "it has no sleep routes"
_TOLD = re.compile(r'^vllm:engine_sleep_state\{[^}]*sleep_state="(\w+)"[^}]*\} 1', re.M)
_LEVELS = {"awake": 0, "weights_offloaded": 1, "discard_all": 2}
# Level 2 dropped the weights: they get memory, are read again, and only then is there a cache.
# Each step does nothing where it was done before, so the whole may be repeated after a failure.
_WAKE_2: tuple[tuple[str, Query, dict[str, str] | None], ...] = (
    ("/wake_up", (("tags", "weights"),), None),
    ("/collective_rpc", (), {"method": "reload_weights"}),
    ("/wake_up", (("tags", "kv_cache"),), None),
    ("/reset_prefix_cache", (), None),
)


class VllmService(HttpService):
    """A vLLM server of one model."""

    can_sleep = True

    async def look(self) -> Condition:
        """Ask /is_sleeping, and /health where there is no such route."""
        asleep, reply = await self._is_sleeping(self._entry.timeouts.answer)
        if asleep is not None:
            return Condition(ServiceState.ASLEEP if asleep else ServiceState.AWAKE)
        if reply.status not in _NO_ROUTE:
            return self.trouble(reply)
        health = await self.ask("GET", self.health_path, expect_json=False)
        if not health.ok:
            return self.trouble(health)
        return Condition(ServiceState.AWAKE, f"{_NO_SLEEP_ROUTES}. {_HOW_TO_SLEEP}", False)

    async def fall_asleep(self, level: int, deadline: Deadline) -> None:
        """POST /sleep: first politely, then for certain; then look."""
        asked = f"sleep (level {level})"
        if await self._sleeps(asked, deadline) and await self._told_level(deadline) != 0:
            return
        await self._to_sleep(asked, level, deadline)
        await self._until(True, asked, deadline)

    async def wake_up(self, level: int, deadline: Deadline) -> None:
        """POST /wake_up, in the order that the level needs; then look."""
        asked = f"wake (level {level})"
        asleep, reply = await self._is_sleeping(min(self._entry.timeouts.answer, deadline.left))
        if asleep is False or (asleep is None and reply.status in _NO_ROUTE):
            return
        if asleep is None:
            raise self.refusal(asked, reply)
        told = await self._told_level(deadline)
        if told == 0:
            await self._to_sleep(asked, level, deadline)
        if 2 in (level, told):
            for path, query, body in _WAKE_2:
                await self._wake_step(asked, path, query, body, deadline)
        else:
            await self._wake_step(asked, "/wake_up", (), None, deadline)
        await self._until(False, asked, deadline)

    async def work(self, deadline: Deadline) -> str:
        """Answer one token, after a look at whether it would answer at all."""
        asked = "answer one token"
        model = await model_of(self, deadline)
        asleep, reply = await self._is_sleeping(min(self._entry.timeouts.answer, deadline.left))
        if asleep:
            said = "is asleep: a request would wait without an end, so none was sent"
            raise self.error(asked, said, "Wake it first.")
        if asleep is None and reply.status not in _NO_ROUTE:
            raise self.refusal(asked, reply)
        return await one_token(self, model, deadline)

    async def _is_sleeping(self, timeout: float) -> tuple[bool | None, Reply]:
        """Return what /is_sleeping says, None where it says neither, and the reply."""
        reply = await self.ask("GET", "/is_sleeping", timeout=timeout)
        said = reply.data.get("is_sleeping") if reply.ok else None
        if reply.ok and not isinstance(said, bool):
            reply = self.unlike(reply, "is_sleeping")
        return (said if isinstance(said, bool) else None), reply

    async def _sleeps(self, asked: str, deadline: Deadline) -> bool:
        asleep, reply = await self._is_sleeping(min(self._entry.timeouts.answer, deadline.left))
        if asleep is not None:
            return asleep
        if reply.status in _NO_ROUTE:
            raise self.error(asked, f"cannot: {_NO_SLEEP_ROUTES}", _HOW_TO_SLEEP)
        raise self.refusal(asked, reply)

    async def _to_sleep(self, asked: str, level: int, deadline: Deadline) -> None:
        """Order sleep and let answers in progress end; cut them when half the time is over.

        Somebody else's long answer is worth some seconds, and no more: whoever took the GPU waits.
        The first request stays open meanwhile: vLLM ends both when the last answer is cut.
        """
        polite = asyncio.create_task(self._post_sleep(level, "wait", deadline))
        try:
            done, _ = await asyncio.wait({polite}, timeout=deadline.left / 2)
            reply = polite.result() if done else await self._post_sleep(level, "abort", deadline)
        finally:
            polite.cancel()
        if not reply.ok:
            raise self.refusal(asked, reply)

    async def _post_sleep(self, level: int, mode: str, deadline: Deadline) -> Reply:
        # By query only: a JSON body is ignored and means level 1. `mode` is ignored before 0.17.
        query = [("level", str(level)), ("mode", mode)]
        reply = await self._post("/sleep", query, None, deadline)
        if reply.status in _MODE_UNKNOWN:
            reply = await self._post("/sleep", query[:1], None, deadline)
        return reply

    async def _wake_step(
        self,
        asked: str,
        path: str,
        query: Query,
        body: dict[str, str] | None,
        deadline: Deadline,
    ) -> None:
        reply = await self._post(path, query, body, deadline)
        if reply.ok:
            return
        step = path + "".join(f"?{name}={value}" for name, value in query)
        raise self.wake_refusal(asked, f"{reply.said} (to POST {step})", reply)

    async def _told_level(self, deadline: Deadline) -> int | None:
        """Return the level that /metrics tells (since vLLM 0.11), None where it tells none.

        Where /is_sleeping says true, 0 means that the sleep is still under way. The level counts,
        whoever put it to sleep: woken from level 2 as from level 1 it would answer with noise.
        """
        timeout = min(self._entry.timeouts.answer, deadline.left)
        reply = await self.ask("GET", "/metrics", timeout=timeout, expect_json=False)
        found = _TOLD.search(reply.text) if reply.ok else None
        return _LEVELS.get(found[1]) if found else None

    async def _until(self, asleep: bool, asked: str, deadline: Deadline) -> None:
        pauses = Pauses(deadline)
        reply = None
        while await pauses.more():
            timeout = min(self._entry.timeouts.answer, deadline.left)
            says, reply = await self._is_sleeping(timeout)
            if says is asleep:
                return
        assert reply is not None
        if not reply.ok:
            raise self.refusal(asked, reply)
        said = f"agreed, but after {deadline.seconds:.3g} s /is_sleeping still says the contrary"
        raise self.error(asked, said, "Look at its log; if it stays so, restart it.")

    async def _post(
        self, path: str, query: Query, body: dict[str, str] | None, deadline: Deadline
    ) -> Reply:
        return await self.ask(
            "POST", path, timeout=deadline.left, query=query, body=body, expect_json=False
        )
