"""What every kind of service shares: questions by HTTP, acts that go to their end, stop and start.

A kind inherits from HttpService and says how it stands, sleeps, wakes and proves itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from ..errors import ServiceError, StudioError
from ..http import Deadline, Outcome, Query, Reply, advice, api_key, ask, struck
from ..registry.services import ServiceEntry
from .commands import Launched, launch, run_command
from .service import Condition, OutOfMemory, Proof, ServiceState

__all__ = ["HttpService", "Pauses"]

# First pause between two looks, factor, longest; in seconds.
_PAUSES = (0.025, 1.5, 0.5)

# vLLM, PyTorch and llama.cpp say the first; Ollama the second.
_OUT_OF_MEMORY = re.compile(r"out.?of.?memory|requires more (system|gpu) memory", re.IGNORECASE)


class Pauses:
    """Growing pauses between looks: `while await pauses.more(): look`.

    The first look comes at once, the last when the deadline has passed.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._next = 0.0

    async def more(self) -> bool:
        """Pause; return False when no time is left for another look."""
        first, factor, longest = _PAUSES
        if self._next and not self._deadline.rest:
            return False
        await asyncio.sleep(min(self._next, self._deadline.rest))
        self._next = min(self._next * factor, longest) or first
        return True


class HttpService(ABC):
    """A Service that is asked by HTTP; see `service.Service` for what each method promises.

    `log_folder` takes the output of its start command, as NAME.log.
    """

    can_sleep = False
    health = "/health"

    def __init__(self, key: str, entry: ServiceEntry, log_folder: Path) -> None:
        self._key = key
        self._entry = entry
        self._log = log_folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', key)}.log"
        self._launched: Launched | None = None
        self._act_name = ""
        self._act: asyncio.Task[None] | None = None
        self._abandoned = False

    @property
    def key(self) -> str:
        """Its name in services.yaml."""
        return self._key

    @property
    def entry(self) -> ServiceEntry:
        """What services.yaml says of it."""
        return self._entry

    @property
    def can_stop(self) -> bool:
        """Whether it can be ended, and started again afterwards."""
        return self._entry.stop is not None and self._entry.start is not None

    # What a kind says of itself

    @abstractmethod
    async def look(self) -> Condition:
        """Ask how it stands, whatever is under way. Raises ServiceError for the key alone."""

    async def fall_asleep(self, level: int, deadline: Deadline) -> None:
        """Do what `sleep` promises, by the deadline."""
        raise self.error("be put to sleep", "cannot give memory back without ending", _NO_SLEEP)

    async def wake_up(self, level: int, deadline: Deadline) -> None:
        """Do what `wake` promises, by the deadline."""
        return  # one that cannot sleep is awake

    @abstractmethod
    async def work(self, deadline: Deadline) -> str:
        """Let it do the least work there is and return what that was, by the deadline."""

    # The protocol

    async def condition(self) -> Condition:
        """Ask how it stands."""
        if self._abandoned:
            # However it stands now, it is about to stand otherwise. The act keeps its own time.
            await self._settled(None)
        try:
            return await self.look()
        except StudioError as error:
            return Condition(ServiceState.FAILING, str(error), self.can_sleep)

    async def sleep(self, level: int) -> None:
        """Put it to sleep."""
        deadline = Deadline(self._entry.timeouts.sleep)
        await self._to_its_end("sleep", deadline, lambda: self.fall_asleep(level, deadline))

    async def wake(self, level: int) -> None:
        """Wake it."""
        deadline = Deadline(self._entry.timeouts.wake)
        await self._to_its_end("wake", deadline, lambda: self.wake_up(level, deadline))

    async def stop(self) -> None:
        """Stop it."""
        deadline = Deadline(self._entry.timeouts.stop)
        await self._to_its_end("stop", deadline, lambda: self._stop(deadline))

    async def start(self) -> None:
        """Start it."""
        deadline = Deadline(self._entry.timeouts.start)
        await self._settle("start", deadline)
        reply = await self._ask_health(deadline)
        if reply.ok:
            return
        if reply.outcome is not Outcome.REFUSED:
            # Something listens: another start would only fight with it for the port.
            await self._until_healthy(deadline, None)
            return
        if self._entry.start is None:
            raise self.error("start", "does not run and has no start command", _no_command("start"))
        launched = launch(self._entry.start, self._log, f"{self.name}: its start command")
        try:
            await self._until_healthy(deadline, launched)
        except BaseException:
            await launched.end()
            raise
        self._launched = launched

    async def prove(self) -> Proof:
        """Let it do the least work there is."""
        deadline = Deadline(self._entry.timeouts.wake)
        await self._settle("prove that it works", deadline)
        started = time.monotonic()
        what = await self.work(deadline)
        return Proof(what, time.monotonic() - started)

    # For the kinds

    @property
    def health_path(self) -> str:
        """The path of its health check: the user's, else the kind's own."""
        return self._entry.health or self.health

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"Service {self._key} ({self._entry.base_url})"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None = None,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        expect_json: bool = True,
    ) -> Reply:
        """Send one request; `timeout` defaults to that of a short question."""
        limit = self._entry.timeouts.answer if timeout is None else timeout
        return await ask(
            self._entry,
            method,
            path,
            timeout=limit,
            query=query,
            body=body,
            expect_json=expect_json,
        )

    def good(self, asked: str, reply: Reply) -> Reply:
        """Return a good reply; raise ServiceError for any other."""
        if not reply.ok:
            raise self.refusal(asked, reply)
        return reply

    def error(self, asked: str, said: str, advice: str) -> ServiceError:
        """Return the error of what was asked ("wake"), what came of it, and what to do."""
        return ServiceError(f"{self.name} was asked to {asked} and {said}. {advice}")

    def refusal(self, asked: str, reply: Reply) -> ServiceError:
        """Return the error of a reply that is not good."""
        return self.error(asked, reply.said, self.advice(reply))

    def wake_refusal(self, asked: str, said: str, reply: Reply) -> ServiceError:
        """Return the error of a reply to an order that takes GPU memory; `said` tells of it."""
        if not _OUT_OF_MEMORY.search(reply.text):
            return self.error(asked, said, self.advice(reply))
        advice = "Free GPU memory and wake it again; if that fails too, restart it."
        return OutOfMemory(str(self.error(asked, f"has too little memory: it {said}", advice)))

    def advice(self, reply: Reply) -> str:
        """Return what to do about a reply that is not good."""
        return advice(reply)

    def trouble(self, reply: Reply) -> Condition:
        """Return the condition that a reply tells which is not good."""
        states = {
            Outcome.REFUSED: ServiceState.STOPPED,
            Outcome.UNREACHABLE: ServiceState.SILENT,
            Outcome.SILENT: ServiceState.SILENT,
        }
        state = states.get(reply.outcome, ServiceState.FAILING)
        return Condition(state, f"It {reply.said}. {self.advice(reply)}", self.can_sleep)

    def unlike(self, reply: Reply, expected: str) -> Reply:
        """Return a good reply as the garbage that it is: without what its kind always says."""
        said = f"answered {reply.status} without {expected}"
        return Reply(Outcome.GARBAGE, said, reply.status, reply.text)

    # Acts

    async def _to_its_end(
        self, name: str, deadline: Deadline, act: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run an act that goes on when the caller is cancelled; `act` keeps the deadline itself."""
        await self._settle(name, deadline)
        task = asyncio.create_task(act())
        # Nobody may be left to hear of its failure.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._act_name, self._act = name, task
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._abandoned = True
            raise

    async def _settle(self, asked: str, deadline: Deadline) -> None:
        if not await self._settled(deadline.left):
            said = f"is still busy with the order to {self._act_name}, which was cancelled"
            raise self.error(asked, said, advice(Reply(Outcome.SILENT, said)))

    async def _settled(self, seconds: float | None) -> bool:
        """Wait for the act of an earlier caller; return whether none is under way any more."""
        task = self._act
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                return False
        self._act, self._abandoned = None, False
        return True

    # Stop and start

    async def _stop(self, deadline: Deadline) -> None:
        await self.order_end(deadline)
        pauses = Pauses(deadline)
        while await pauses.more():
            # A short question: one that hangs while it ends must not use up the time.
            reply = await self.ask("GET", self.health_path, timeout=min(deadline.left, 1.0))
            if reply.outcome is Outcome.REFUSED:
                break
        else:
            said = f"still listens after {deadline.seconds:.3g} s"
            raise self.error("stop", said, "Check its stop command in services.yaml.")
        launched, self._launched = self._launched, None
        if launched is not None and not await launched.wait(deadline.left):
            said = f"no longer listens, but its process {launched.pid} has not ended"
            raise self.error("stop", said, "It may still hold memory: look at its log.")

    async def order_end(self, deadline: Deadline) -> None:
        """Run the stop command. Whether it did its work is what the address says."""
        if self._entry.stop is None:
            raise self.error("stop", "has no stop command", _no_command("stop"))
        try:
            what = f"{self.name}: its stop command"
            await run_command(self._entry.stop, deadline.left, what)
        except ServiceError as error:
            # A command that finds nothing to stop fails too (pkill, docker stop).
            reply = await self.ask("GET", self.health_path, expect_json=False)
            if reply.outcome is not Outcome.REFUSED:
                raise self._clean(error) from None

    async def _until_healthy(self, deadline: Deadline, launched: Launched | None) -> None:
        reply = Reply(Outcome.REFUSED, "")
        pauses = Pauses(deadline)
        while await pauses.more():
            reply = await self._ask_health(deadline)
            if reply.ok:
                return
            if launched is not None and launched.exit_status not in (None, 0):
                said = f"its start command ended with status {launched.exit_status}"
                advice = "Try the command in a terminal and correct it in services.yaml."
                raise self._clean(self.error("start", f"{said}. {launched.tail()}", advice))
        said = f"was not ready after {deadline.seconds:.3g} s: it {reply.said}"
        if launched is not None:
            said += f". What was started is ended again. {launched.tail()}"
        advice = "Raise timeouts.start in services.yaml if it needs longer."
        raise self._clean(self.error("start", said, advice))

    async def _ask_health(self, deadline: Deadline) -> Reply:
        limit = min(self._entry.timeouts.answer, deadline.left)
        return await self.ask("GET", self.health_path, timeout=limit, expect_json=False)

    def _clean(self, error: ServiceError) -> ServiceError:
        """Return the error without the key, which a server may print among its arguments."""
        return ServiceError(struck(api_key(self._entry), str(error)))


_NO_SLEEP = "Give it stop and start commands in services.yaml: stopping it frees its memory."


def _no_command(name: str) -> str:
    return (
        f"Write the command as a list in services.yaml, for example "
        f'{name}: ["systemctl", "--user", "{name}", "NAME"].'
    )
