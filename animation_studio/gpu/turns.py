"""Whose turn it is: one lease at a time, in this process and among all that share the folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ..errors import GpuError, StudioError
from .journal import Holder, Journal, Pause
from .lease import Progress
from .lock import GpuLock
from .trace import MemoryTrace

__all__ = ["Lease", "Turns"]

_logger = logging.getLogger("animation_studio")
_POLL = 0.02


@dataclass
class Lease:
    """Who has the GPU in this process, what for, and since when (UTC)."""

    holder: str
    purpose: str
    since: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    trace: MemoryTrace | None = None


class Turns:
    """Hands out the lease. All on one event loop: what has no `await` between is one act."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.lease: Lease | None = None
        self._lock = GpuLock(folder)
        self._journal = journal
        self._busy = False
        self._waiting = 0

    @property
    def awaited(self) -> bool:
        """Whether somebody of this process waits for his turn."""
        return self._waiting > 0

    def pauses_of(self, holder: str) -> list[Pause]:
        """Return what `holder` paused. Raises GpuError where the journal cannot be read."""
        return [pause for pause in self._journal.read().paused if pause.holder == holder]

    @contextlib.asynccontextmanager
    async def turn(
        self, holder: str, purpose: str, deadline: float | None, progress: Progress
    ) -> AsyncIterator[None]:
        """Wait until `holder` may have the GPU, and make it the lease's holder.

        The lease outlives the block; `drop` ends it. One that began here and has nothing paused
        ends when the block raises a StudioError. Raises GpuError after `deadline` (monotonic
        seconds; None: never), and when lock or journal cannot be written.
        """
        fresh = await self._wait(holder, deadline, progress)
        self._busy = True
        try:
            if fresh:
                self.lease = Lease(holder, purpose)
                self._journal.set_holder(Holder.of_this_process(holder, purpose))
            assert self.lease is not None
            self.lease.purpose = purpose
            yield
        except StudioError:
            if fresh and not self._has_paused(holder):
                self.drop()
            raise
        finally:
            self._busy = False

    def _has_paused(self, holder: str) -> bool:
        try:
            return bool(self.pauses_of(holder))
        except StudioError:
            return False  # a journal that cannot be read keeps no lease

    def drop(self) -> None:
        """End the lease: nobody has the GPU."""
        lease, self.lease = self.lease, None
        if lease is None:
            return
        if lease.trace is not None:
            lease.trace.stop()
        try:
            self._journal.set_holder(None)
        except StudioError as error:
            _logger.warning("Animation Studio: %s", error)
        self._lock.release()

    async def _wait(self, holder: str, deadline: float | None, progress: Progress) -> bool:
        """Return True when the lock was taken for a new lease, False for the holder's own."""
        self._waiting += 1
        told = ""
        try:
            while True:
                why = self._blocked(holder)
                if not why:
                    if self.lease is not None:
                        return False
                    if self._lock.try_acquire():
                        return True
                    why = self._other_process()
                if deadline is not None and time.monotonic() > deadline:
                    raise GpuError(f"The GPU is not free: {why} Try again when that has ended.")
                if why != told:
                    told = why
                    progress(f"waiting for the GPU: {why}")
                await asyncio.sleep(_POLL)
        finally:
            self._waiting -= 1

    def _blocked(self, holder: str) -> str:
        lease = self.lease
        if lease is not None and (lease.holder != holder or self._busy):
            since = lease.since.astimezone().strftime("%H:%M:%S")
            return f"{lease.holder} has it for {lease.purpose} since {since}."
        return "another act is under way." if self._busy else ""

    def _other_process(self) -> str:
        holder = self._journal.read().holder
        if holder is None:
            return "another process of Animation Studio has it."
        return f"process {holder.pid} has it for {holder.purpose} ({holder.holder})."
