"""The acts of one operation on the GPU: each timed, measured, journaled, and put in the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from os import getpid
from typing import TypeVar

from ..errors import GpuError, ServiceError, StudioError
from ..registry.services import GpuSettings
from .gauge import HELD_ASLEEP_GB, Gauge, least_expected
from .journal import Journal, Pause
from .lease import Host, Progress, ResumeWhen
from .process import started_at
from .report import GIB, Act, Outcome, Step
from .service import Condition, OutOfMemory, Service, ServiceState

__all__ = ["HandedOver", "Work"]

T = TypeVar("T")

# How often a service that answers with errors, or not at all, is asked again, and after how long.
_TRIES = 3
_BETWEEN = 1.0
_POLL = 0.05
# Characters of an error that the journal keeps.
_NOTE = 1000
# What counts as all of it, since others move a little meanwhile.
_MOST = 0.9
# Less than this is what drivers and desktops move by themselves.
_NOTHING = 256 << 20


class HandedOver(Exception):  # noqa: N818 - no error: somebody else goes on
    """What is paused stays so, since somebody waits who will take it over."""


class Work:
    """One take, resume or end: what it did so far and how long it may go on.

    `deadline` is of time.monotonic(), None for "as long as each act may take". `yields` says
    whether waiting for ComfyUI should end because somebody else waits for the GPU.
    """

    def __init__(
        self,
        *,
        gauge: Gauge,
        host: Host,
        journal: Journal,
        settings: GpuSettings,
        services: Mapping[str, Service],
        holder: str,
        progress: Progress,
        deadline: float | None = None,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        self.gauge = gauge
        self.settings = settings
        self.services = services
        self.holder = holder
        self.deadline = deadline
        self.started = time.monotonic()
        self.before = gauge.reading()
        self.steps: list[Step] = []
        # Tried to pause, and paused: a sleep that failed may still come to pass.
        self.touched: list[str] = []
        self.paused: list[str] = []
        self.resumed: list[str] = []
        self.warnings: list[str] = []
        self._host = host
        self._journal = journal
        self._progress = progress
        self._yields = yields
        self._unloaded = False
        self._made_way: list[tuple[Service, int]] = []

    async def unload(self, need: int = 0) -> None:
        """Unload ComfyUI's models, once in an operation, and wait for the memory (bytes)."""
        if self._unloaded:
            return
        start, began = self.gauge.room(for_comfyui=False), time.monotonic()
        held = self._host.held()
        note = await self._act("unload", "ComfyUI's models", self._yielding(self._host.unload()))
        self._unloaded = True
        if note:
            self.warnings.append(note)
        released = held - self._host.held()
        if start is not None and released > _NOTHING:
            await self.gauge.settle(
                need or self._total(),
                for_comfyui=False,
                start=start,
                expected=int(_MOST * released),
                seconds=self.settings.settle_seconds,
            )
        self._done("unload", "ComfyUI's models", began, start, note)

    def _total(self) -> int:
        return self.before.total if self.before else 0

    async def until_idle(self) -> None:
        """Wait until ComfyUI has no prompt left, whose pictures would meet the woken service.

        Raises HandedOver when somebody else wants the GPU meanwhile.
        """
        while self._host.busy():
            if self._yields():
                raise HandedOver
            await asyncio.sleep(_POLL)

    async def _yielding(self, doing: Awaitable[T]) -> T:
        """Do something that may take minutes, and leave it when somebody else wants the GPU."""
        waiting = asyncio.ensure_future(doing)
        try:
            while not (await asyncio.wait({waiting}, timeout=_POLL))[0]:
                if self._yields():
                    raise HandedOver
            return waiting.result()
        finally:
            waiting.cancel()

    async def pause(
        self, service: Service, level: int, resume: ResumeWhen, need: int, *, for_comfyui: bool
    ) -> bool:
        """Put a service to sleep (`level` 1, 2) or stop it (0); return whether `need` is there.

        `need` in bytes, 0 for "whatever comes back", which is never enough. Journaled before it
        begins: after a crash it is known. Raises ServiceError.
        """
        pause = Pause(
            service=service.key,
            how="sleep" if level else "stop",
            level=level,
            phase="pausing",
            until="next_guard" if resume == "next guard" else "prompt_end",
            freed=sum(one.freed for one in self._pauses(service.key)),
            since=datetime.now(timezone.utc),
            pid=getpid(),
            started=started_at(getpid()) or 0.0,
            holder=self.holder,
        )
        start, began = self.gauge.room(for_comfyui=False), time.monotonic()
        self._journal.put(pause)
        if service.key not in self.touched:
            self.touched.append(service.key)
        act: Act = "sleep" if level else "stop"
        room = self.gauge.room(for_comfyui=for_comfyui)
        await self._act(act, service.key, service.sleep(level) if level else service.stop())
        enough = room is not None and (
            await self.gauge.settle(
                need or self._total() + 1,
                for_comfyui=for_comfyui,
                start=room,
                expected=least_expected(service.entry.vram_gb),
                seconds=self.settings.settle_seconds,
            )
        )
        if service.key not in self.paused:
            self.paused.append(service.key)
        freed = self._done(act, service.key, began, start, enough=enough)
        # A stop after a sleep: both have to be there again before it can come back.
        freed = pause.freed + max(0, freed)
        self._journal.put(pause.model_copy(update={"phase": "paused", "freed": freed}))
        return enough

    async def give_back(self, pause: Pause) -> None:
        """Have a paused service back, working, and take it out of the journal.

        Raises StudioError when that is not possible; the journal then says why.
        """
        service = self.services.get(pause.service)
        try:
            if service is None:
                raise ServiceError(
                    f"{pause.service} is paused and services.yaml has no such service, or a broken "
                    "one: put it right, or wake it by hand."
                )
            condition = await self._steady(service)
            if condition.state is ServiceState.STOPPED and not _is_to_start(pause, service):
                self._journal.remove(pause.service)
                self.warnings.append(f"{pause.service} has ended while it slept; it is left so.")
                return
            self._amend(pause.service, phase="resuming")
            await self.awaken(service, level=pause.level, need=pause.freed, condition=condition)
        except StudioError as error:
            self._amend(pause.service, note=self.without_addresses(str(error))[:_NOTE])
            raise
        self._journal.remove(pause.service)
        self.resumed.append(pause.service)

    def _pauses(self, service: str) -> list[Pause]:
        return [pause for pause in self._journal.read().paused if pause.service == service]

    def _amend(self, service: str, **changes: object) -> None:
        for pause in self._pauses(service):
            self._journal.put(pause.model_copy(update=changes))

    async def awaken(
        self, service: Service, *, level: int, need: int, condition: Condition | None = None
    ) -> None:
        """Have a service answer, whatever state it is in, and prove it.

        Others of its group are put to sleep first; ComfyUI is unloaded where `need` bytes (0:
        unknown) are not free. Waking out of memory: unload and try again, then stop and start.
        """
        condition = condition or await self._steady(service)
        if condition.state is not ServiceState.AWAKE:
            await self._make_way(service, need or _size_of(service, condition))
        if condition.state is ServiceState.ASLEEP:
            await self._wake(service, level or service.entry.sleep_level, need)
        elif condition.state is ServiceState.STOPPED:
            await self.timed("start", service, self._yielding(service.start()))
        elif condition.state is not ServiceState.AWAKE and not _speaks(service, condition):
            await self._restart(service, f"it is {condition.state.value}: {condition.detail}")
        await self._prove(service)

    async def _steady(self, service: Service) -> Condition:
        """Return how a service stands; one that is silent or fails is given time to recover."""
        for _ in range(_TRIES - 1):
            condition = await service.condition()
            if condition.state not in (ServiceState.SILENT, ServiceState.FAILING):
                return condition
            await asyncio.sleep(_BETWEEN)
        return await service.condition()

    async def _make_way(self, service: Service, need: int) -> None:
        group = service.entry.group
        mates = [
            mate
            for mate in self.services.values()
            if group is not None and mate.entry.group == group and mate.key != service.key
        ]
        for mate in mates:
            condition = await mate.condition()
            if condition.state is not ServiceState.AWAKE:
                continue
            if mate.can_sleep and condition.can_sleep:
                level = mate.entry.sleep_level
                self._made_way.append((mate, level))
                await self.timed("sleep", mate, mate.sleep(level))
            elif mate.can_stop:
                self._made_way.append((mate, 0))
                await self.timed("stop", mate, mate.stop())
        free = self.gauge.room(for_comfyui=False)
        if free is None or free < max(need, 1):
            await self.unload(need)

    async def undo_way(self) -> None:
        """Have those back that made way for one that did not come. Raises StudioError."""
        made, self._made_way = self._made_way, []
        for mate, level in reversed(made):
            await self.awaken(mate, level=level, need=0)

    async def _wake(self, service: Service, level: int, need: int) -> None:
        try:
            try:
                await self.timed("wake", service, service.wake(level))
            except OutOfMemory:
                await self.unload()
                await self._settled(need)
                await self.timed("wake", service, service.wake(level))
        except ServiceError as error:
            # A wake-up that failed does not roll back: what half woke is started anew.
            await self._restart(service, " ".join([str(error), *self.warnings]))

    async def _settled(self, need: int) -> None:
        """Give memory that was let go the time to arrive."""
        room = self.gauge.room(for_comfyui=False)
        if room is not None:
            seconds = self.settings.settle_seconds
            await self.gauge.settle(
                need or self._total() + 1,
                for_comfyui=False,
                start=room,
                expected=0,
                seconds=seconds,
            )

    async def _restart(self, service: Service, why: str) -> None:
        if not service.can_stop:
            raise ServiceError(
                f"{service.key} does not come back: {why} Restart it by hand, or give it `stop` "
                "and `start` commands in services.yaml, and the pack does."
            )
        # From here on it is ended: should this fail, the next try has to start it.
        self._amend(service.key, how="stop", level=0)
        await self.timed("stop", service, service.stop())
        await self.timed("start", service, self._yielding(service.start()))

    async def _prove(self, service: Service) -> None:
        began = time.monotonic()
        try:
            proof = await self._bounded(service.prove(), f"{service.key}: prove")
        except StudioError as error:
            self._failed("prove", service.key, began, str(error))
            raise
        self._done("prove", service.key, began, None, proof.what)

    async def timed(self, act: Act, service: Service, doing: Awaitable[None]) -> None:
        """Let a service do something and note it as a step. Raises StudioError."""
        start, began = self.gauge.room(for_comfyui=False), time.monotonic()
        await self._act(act, service.key, doing)
        self._done(act, service.key, began, start)

    async def _act(self, act: Act, target: str, doing: Awaitable[T]) -> T:
        self._progress(f"{target}: {act}")
        began = time.monotonic()
        try:
            return await self._bounded(doing, f"{target}: {act}")
        except StudioError as error:
            self._failed(act, target, began, str(error))
            raise

    async def _bounded(self, doing: Awaitable[T], what: str) -> T:
        if self.deadline is None:
            return await doing
        left = max(0.0, self.deadline - time.monotonic())
        try:
            return await asyncio.wait_for(doing, left)
        except asyncio.TimeoutError:
            raise GpuError(
                f"{what} did not end within the time-out of this node; give it more, or see why "
                "that is slow."
            ) from None

    def _failed(self, act: Act, target: str, began: float, detail: str) -> None:
        seconds = time.monotonic() - began
        self.steps.append(
            Step(
                act=act,
                target=target,
                seconds=seconds,
                outcome="failed",
                detail=self.without_addresses(detail),
            )
        )

    def without_addresses(self, text: str) -> str:
        """Return a message for reports, which travel with pictures: addresses are the user's."""
        for service in self.services.values():
            text = text.replace(f" ({service.entry.base_url})", "")
            text = text.replace(service.entry.base_url, "its address")
        return text

    def _done(
        self,
        act: Act,
        target: str,
        began: float,
        start: int | None,
        detail: str = "",
        *,
        enough: bool = False,
    ) -> int:
        """Note a step that is done and return the bytes that it freed, 0 where unknown.

        With `enough` room nobody waited for them.
        """
        now = self.gauge.room(for_comfyui=False) if start is not None else None
        freed = None if now is None or start is None else now - start
        outcome: Outcome = "done"
        if act in ("sleep", "stop") and not enough and freed is not None and freed < _NOTHING:
            outcome = "no effect"
            detail = detail or "it says that it is done, and the memory stayed"
        seconds = time.monotonic() - began
        self.steps.append(
            Step(
                act=act, target=target, seconds=seconds, freed=freed, outcome=outcome, detail=detail
            )
        )
        return freed or 0


def _is_to_start(pause: Pause, service: Service) -> bool:
    """Whether one that does not run is started: it was stopped, or crashed in this very lease.

    After a crash of ComfyUI, or of the machine, nobody knows why it ended while it slept.
    """
    return pause.how == "stop" or (pause.pid == getpid() and service.entry.start is not None)


def _size_of(service: Service, condition: Condition) -> int:
    """Return the bytes that a service takes when it comes back; 0 where that is not known."""
    held = HELD_ASLEEP_GB if condition.state is ServiceState.ASLEEP else 0.0
    return int(max(0.0, (service.entry.vram_gb or 0.0) - held) * GIB)


def _speaks(service: Service, condition: Condition) -> bool:
    """Whether a silent voice is only at work: while it generates it answers nobody (facts)."""
    return service.entry.role == "voice" and condition.state is ServiceState.SILENT
