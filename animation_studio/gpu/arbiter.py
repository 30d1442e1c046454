"""The arbiter: one lease at a time, for all prompts, threads and processes of the pack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from os import getpid
from pathlib import Path

from ..errors import GpuError, StudioError
from ..registry.services import GpuSettings
from .gauge import Gauge
from .journal import Journal, Pause, alive
from .lease import Host, LeaseRequest, Progress, ResumeRequest, ResumeWhen
from .meter import Meter
from .report import GpuReport
from .room import make_room, needed, target_of
from .service import Service, ServiceState, conditions_of, named
from .trace import MemoryTrace
from .turns import Lease, Turns
from .work import HandedOver, Work

__all__ = ["Arbiter"]

_logger = logging.getLogger("animation_studio")
# Seconds between two samples of the memory while a lease is held.
_SAMPLED = 0.25
# Seconds after which what could not be given back is tried again; the last one for ever.
_AGAIN = (2.0, 10.0, 30.0, 60.0)
_UNTIL: dict[ResumeWhen, str] = {"end of prompt": "prompt_end", "next guard": "next_guard"}


def _quiet(_: str) -> None:
    """Tell nobody."""


class Arbiter:
    """Leases of one GPU. All methods run on one event loop; each may be cancelled.

    `services` and `settings` are asked at every operation, and raise ConfigError where
    services.yaml is broken. `folder` keeps the lock and the journal: who shares it shares the GPU.
    """

    def __init__(
        self,
        *,
        services: Callable[[], Mapping[str, Service]],
        settings: Callable[[], GpuSettings],
        meter: Meter,
        host: Host,
        folder: Path,
    ) -> None:
        self._services = services
        self._settings = settings
        self._meter = meter
        self._host = host
        self._journal = Journal(folder)
        self._turns = Turns(folder, self._journal)
        self._caretaker: asyncio.Task[None] | None = None
        self._warned: set[str] = set()

    @property
    def meter(self) -> Meter:
        """What measures."""
        return self._meter

    @property
    def journal(self) -> Journal:
        """What is paused."""
        return self._journal

    @property
    def lease(self) -> Lease | None:
        """The lease of this process, if it has one."""
        return self._turns.lease

    @property
    def services(self) -> Mapping[str, Service]:
        """The services of services.yaml. Raises ConfigError."""
        return self._services()

    def gauge(self) -> Gauge:
        """Return the GPU that leases are about. Raises ConfigError."""
        return Gauge(self._meter, self._host, self._settings().device)

    async def take(self, request: LeaseRequest, progress: Progress = _quiet) -> GpuReport:
        """Give the GPU to `request.holder`: make room, and for a language model or voice wake it.

        Waits while another holder has it. Raises GpuError, with its `report`, when the room or the
        service cannot be had in time: what this call paused is then given back. When cancelled it
        stops at once, and `end` gives back.
        """
        deadline = time.monotonic() + request.timeout
        async with self._turns.turn(request.holder, request.purpose, deadline, progress):
            work = self._work(request.holder, progress, deadline)
            target = target_of(request, work.services)
            before = {pause.service for pause in self._journal.read().paused}
            self._take_over(request)
            need, verified = 0, False
            try:
                conditions = await conditions_of(work.services)
                need = needed(request, target, work, conditions)
                verified = await make_room(work, request, target, need, conditions)
                if target is not None:
                    await work.awaken(target, level=0, need=need)
                    self._journal.remove(target.key)
                if request.resume == "never":
                    for pause in self._journal.read().paused:
                        self._journal.remove(pause.service)
                self._begin_trace(work)
            except StudioError as error:
                undone = await self._undo(work, before)
                report = self._report(request.purpose, target, need, work, ok=False)
                raise GpuError(f"{error} {undone}".rstrip(), report=report) from error
            ok = verified or bool(work.gauge.problem)
            return self._report(request.purpose, target, need, work, ok=ok, verified=verified)

    async def resume(self, request: ResumeRequest, progress: Progress = _quiet) -> GpuReport:
        """Give services back now: the named one, or all that are paused.

        Where nothing is, the first language model that runs is woken if it sleeps, and proven. With
        nothing left to give back the lease ends. Raises GpuError with its `report`.
        """
        deadline = time.monotonic() + request.timeout
        async with self._turns.turn(request.holder, "resume", deadline, progress):
            work = self._work(request.holder, progress, deadline)
            pauses = self._to_give_back()
            try:
                await self._resume(request, pauses, work)
            except StudioError as error:
                await self._undo_way(work)
                report = self._report("resume", None, 0, work, ok=False)
                raise GpuError(str(error), report=report) from error
            service = work.services.get(request.service) if request.service else None
            report = self._report("resume", service, 0, work)
            if not self._journal.read().paused:
                self._turns.drop()
            return report

    async def end(self, holder: str) -> GpuReport | None:
        """End the lease of `holder`, if it has one, and give back what is due.

        What cannot be given back now stays in the journal and is tried again, and is no error.
        """
        lease = self.lease
        if lease is None or lease.holder != holder:
            return None
        ok, report = False, None
        async with self._turns.turn(holder, lease.purpose, None, _quiet):
            try:
                work = self._work(holder, giving_back=True)
                ok = await self._give_back_due(work)
                report = self._report("end", None, 0, work, ok=ok)
            except StudioError as error:  # services.yaml was broken meanwhile
                _logger.warning("Animation Studio: %s", error)
            finally:
                self._turns.drop()
                if not ok:
                    self._care()
        return report

    async def recover(self, *, offered: bool = False) -> bool:
        """Give back what a process that is gone left paused; return whether nothing is left.

        With `after_crash: offer` only when `offered` is accepted. Another process's lease is left
        alone.
        """
        if not self._journal.read().paused:
            return True
        if not offered and self._settings().after_crash == "offer":
            _logger.warning("Animation Studio: %s", self._left())
            return False
        try:
            ok = await self._give_back_now(everything=True)
        except GpuError as error:
            _logger.info("Animation Studio: nothing is resumed now: %s", error)
            ok = False
        if not ok:
            self._care(everything=True)
        return ok

    async def lacks_room_for_pictures(self) -> bool:
        """Return whether pictures lack the configuration's need and a service that is awake has it.

        False without a meter, and for a ComfyUI on the CPU, unless `gpu.device` names a GPU. Raises
        ConfigError where services.yaml is broken.
        """
        request = LeaseRequest("", "image")
        work = self._work("")
        no_gpu = work.settings.device is None and self._host.device() is None
        if no_gpu or work.gauge.problem:
            return False
        # One sample: this only looks, at every run; whoever then makes room looks three times.
        room = work.gauge.room(for_comfyui=True)
        if room is None or room >= needed(request, None, work, {}):
            return False
        conditions = await conditions_of(work.services)
        return any(
            conditions[key].state is ServiceState.AWAKE
            and (service.can_stop or (service.can_sleep and conditions[key].can_sleep))
            for key, service in work.services.items()
        )

    @contextlib.asynccontextmanager
    async def action(self, name: str) -> AsyncIterator[Work]:
        """Have the GPU for one act of a person or script. Raises GpuError while it is leased."""
        async with self._turns.turn(name, name, time.monotonic() + 1.0, _quiet):
            try:
                yield self._work(name, giving_back=True)
            except HandedOver:
                raise GpuError("A prompt wants the GPU: try again when it has ended.") from None
            finally:
                self._turns.drop()

    # -- what an operation is made of

    def _work(
        self,
        holder: str,
        progress: Progress = _quiet,
        deadline: float | None = None,
        *,
        giving_back: bool = False,
    ) -> Work:
        settings = self._settings()
        return Work(
            gauge=Gauge(self._meter, self._host, settings.device),
            host=self._host,
            journal=self._journal,
            settings=settings,
            services=self._services(),
            holder=holder,
            progress=progress,
            deadline=deadline,
            yields=lambda: giving_back and self._turns.awaited,
        )

    def _begin_trace(self, work: Work) -> None:
        lease, index = self.lease, work.gauge.index
        if lease is not None and lease.trace is None and index is not None:
            lease.trace = MemoryTrace(self._meter, index, _SAMPLED).start()

    def _peak(self) -> int | None:
        return self.lease.trace.peak if self.lease and self.lease.trace else None

    def _take_over(self, request: LeaseRequest) -> None:
        """Make what earlier leases left paused this lease's own."""
        until = _UNTIL.get(request.resume)
        for pause in self._journal.read().paused:
            if until is not None and (pause.holder, pause.until) != (request.holder, until):
                changed = {"holder": request.holder, "until": until}
                self._journal.put(Pause.model_validate({**pause.model_dump(), **changed}))

    def _to_give_back(self) -> list[Pause]:
        """Return what is paused, the last first; of a group only the one that was awake first.

        The others of its group were woken by a lease and may not be awake beside it.
        """
        services, groups = self._services(), set()
        due: list[Pause] = []
        for pause in self._journal.read().paused:
            service = services.get(pause.service)
            group = service.entry.group if service else None
            if group is not None and group in groups:
                self._journal.remove(pause.service)
                continue
            groups.add(group)
            due.insert(0, pause)
        return due

    async def _resume(self, request: ResumeRequest, pauses: list[Pause], work: Work) -> None:
        if request.service is None and pauses:
            for pause in pauses:
                await work.give_back(pause)
            return
        if request.service is None:
            await self._awaken_any(work)
            return
        service = named(work.services, request.service)
        mine = [pause for pause in pauses if pause.service == service.key]
        if mine:
            await work.give_back(mine[0])
        else:
            await work.awaken(service, level=0, need=0)

    async def _awaken_any(self, work: Work) -> None:
        """Prove the first language model that is awake, else wake the first that sleeps."""
        conditions = await conditions_of(work.services)
        for state in (ServiceState.AWAKE, ServiceState.ASLEEP):
            for key, service in work.services.items():
                if service.entry.role == "llm" and conditions[key].state is state:
                    await work.awaken(service, level=0, need=0, condition=conditions[key])
                    return
        work.warnings.append(
            "Nothing was paused and no language model of services.yaml runs: nothing to wake."
        )

    async def _undo(self, work: Work, before: set[str]) -> str:
        """Give back what a failed take paused, and not `before`; return what to say about it."""
        work.deadline = None
        left = []
        for pause in reversed(self._turns.pauses_of(work.holder)):
            if pause.service not in work.touched or pause.service in before:
                continue
            try:
                await work.give_back(pause)
            except StudioError as error:
                left.append(str(error))
        if left:
            return f"What was paused could not be given back: {' '.join(left)} It is tried again."
        back = [key for key in work.paused if key in work.resumed]
        return f"{', '.join(back)} is back." if back else ""

    async def _undo_way(self, work: Work) -> None:
        work.deadline = None
        try:
            await work.undo_way()
        except StudioError as error:
            work.warnings.append(str(error))

    async def _give_back_due(self, work: Work, *, everything: bool = False) -> bool:
        """Give back what is due; return False where something is left that must be tried again."""
        ok = True
        for pause in self._to_give_back():
            # Another process that runs keeps it for its own next guard.
            kept = pause.pid != getpid() and alive(pause)
            if pause.until == "next_guard" and (kept or not everything):
                continue
            try:
                await work.until_idle()
                await work.give_back(pause)
            except HandedOver:
                ok = False
                break
            except StudioError as error:
                ok = False
                self._warn(str(error))
        for text in work.warnings:
            self._warn(text)
        for key in work.resumed:
            _logger.info("Animation Studio: %s is back", key)
        return ok

    def _warn(self, text: str) -> None:
        """Say it once: what cannot be given back is tried for ever."""
        if text not in self._warned:
            self._warned.add(text)
            _logger.warning("Animation Studio: %s", text)

    def _report(
        self,
        purpose: str,
        target: Service | None,
        need: int,
        work: Work,
        *,
        ok: bool = True,
        verified: bool = False,
    ) -> GpuReport:
        gauge, device = work.gauge, work.gauge.device()
        warnings = list(dict.fromkeys(work.warnings))
        if gauge.problem and work.steps:
            warnings.append(f"Nothing was measured: {gauge.problem}")
        return GpuReport(
            purpose=purpose,
            service=target.key if target else None,
            ok=ok,
            device=device.name if device else "",
            need=need,
            before=work.before,
            after=gauge.reading(),
            verified=verified,
            peak=self._peak() if purpose in ("resume", "end") else None,
            seconds=time.monotonic() - work.started,
            steps=work.steps,
            paused=work.paused,
            resumed=work.resumed,
            holding=gauge.holding(),
            warnings=warnings,
        )

    # -- what could not be given back at once

    def _left(self) -> str:
        names = ", ".join(pause.service for pause in self._journal.read().paused)
        return (
            f"{names} was left paused by a ComfyUI that ended; POST /animation_studio/gpu/resume "
            "wakes it (or set after_crash: resume in services.yaml)."
        )

    def _care(self, *, everything: bool = False) -> None:
        if self._caretaker is None or self._caretaker.done():
            self._caretaker = asyncio.ensure_future(self._try_again(everything))

    async def _try_again(self, everything: bool) -> None:
        """Give back what is left, again and again; somebody's lease in between is waited for."""
        tries = 0
        while True:
            await asyncio.sleep(_AGAIN[min(tries, len(_AGAIN) - 1)])
            tries += 1
            with contextlib.suppress(StudioError):
                due = self._journal.read().paused
                if not any(everything or pause.until == "prompt_end" for pause in due):
                    return
                if self.lease is not None:
                    continue
                await self._give_back_now(everything=everything)

    async def _give_back_now(self, *, everything: bool) -> bool:
        """Give back outside of any lease. Raises GpuError while somebody has one."""
        async with self._turns.turn("recovery", "resume", time.monotonic() + 1.0, _quiet):
            try:
                work = self._work("recovery", giving_back=True)
                return await self._give_back_due(work, everything=everything)
            finally:
                self._turns.drop()
