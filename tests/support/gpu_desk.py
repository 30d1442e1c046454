"""A whole GPU for tests of the arbiter: a scripted card, stand-in servers, and ComfyUI's part."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from animation_studio.gpu.arbiter import Arbiter
from animation_studio.gpu.journal import Journal
from animation_studio.gpu.lease import LeaseRequest, ResumeRequest
from animation_studio.gpu.meter import open_meter
from animation_studio.gpu.report import GpuReport
from animation_studio.gpu.service import Service
from animation_studio.gpu.services import open_service
from animation_studio.registry.services import GpuSettings, ServiceEntry
from tests.support.nvml_standin import ScriptedGpu
from tests.support.standin_service import StandIn

GB = 10**9
QUICK = {"answer": 0.3, "sleep": 1.5, "wake": 1.5, "stop": 2.0, "start": 5.0}


class HeldByTest:
    """Stands where ComfyUI does: unloading gives `models` bytes back, and `stays` not."""

    def __init__(self, gpu: ScriptedGpu) -> None:
        self.gpu = gpu
        self.models = 0
        self.stays = 0
        self.unloads = 0
        self.note = ""
        self.waits: Callable[[], bool] = lambda: False
        self.prompts = 0
        self.uuid: str | None = gpu.uuid

    def load(self, models: int, stays: int = 0) -> None:
        self.models, self.stays = models, stays
        self.gpu.add(models + stays)

    def device(self) -> str | None:
        return self.uuid

    def busy(self) -> bool:
        return self.prompts > 0

    def held(self) -> int:
        return self.models + self.stays

    async def unload(self) -> str:
        while self.waits():
            await asyncio.sleep(0.01)
        self.unloads += 1
        models, self.models = self.models, 0
        self.gpu.add(-models)
        return self.note


class Desk:
    """An arbiter with its services; use in a `with` block."""

    def __init__(self, gpu: ScriptedGpu, folder: Path, **settings: Any) -> None:
        self.gpu = gpu
        self.folder = folder
        self.host = HeldByTest(gpu)
        self.settings = {"settle_seconds": 0.3, "needs_gb": {"image": 12.0}, **settings}
        self.servers: dict[str, StandIn] = {}
        self.entries: dict[str, ServiceEntry] = {}
        self._open: dict[str, Service] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(
        self,
        key: str,
        kind: str = "vllm",
        *,
        commands: bool = False,
        running: bool = True,
        **more: Any,
    ) -> StandIn:
        """Add a service, with stop and start `commands`; `more` is its entry's or its model's."""
        fields = {name: more.pop(name) for name in list(more) if name in ServiceEntry.model_fields}
        server = StandIn(kind, gpu=self.gpu, **more)
        self._stack.enter_context(server)
        self.servers[key] = server
        own = server.commands() if commands else {}
        self.entries[key] = ServiceEntry.model_validate(
            {"kind": kind, "base_url": server.url, "timeouts": QUICK, **own, **fields}
        )
        if not running:
            server.crash()
        return server

    def services(self) -> Mapping[str, Service]:
        for key, entry in self.entries.items():
            if key not in self._open:
                self._open[key] = open_service(key, entry, self.folder / "logs")
        return self._open

    def arbiter(self) -> Arbiter:
        """A new arbiter, as a process of the pack has one."""
        return Arbiter(
            services=self.services,
            settings=lambda: GpuSettings.model_validate(self.settings),
            meter=open_meter(),
            host=self.host,
            folder=self.folder,
        )

    def run(self, use: Callable[[Arbiter], Coroutine[Any, Any, Any]]) -> Any:
        """Run `use(arbiter)` on a loop of its own and return what it returns."""

        async def whole() -> Any:
            self._open.clear()
            arbiter = self.arbiter()
            try:
                return await use(arbiter)
            finally:
                # As when a process ends in the middle of a lease: its threads end too.
                if arbiter.lease is not None and arbiter.lease.trace is not None:
                    arbiter.lease.trace.stop()

        return asyncio.run(whole())

    def put_to_sleep(self, key: str) -> None:
        """As somebody else would have done it before."""
        self.run(lambda _: self.services()[key].sleep(1))

    @property
    def paused(self) -> list[str]:
        """What the journal says is paused."""
        return [pause.service for pause in Journal(self.folder).read().paused]

    @property
    def holder(self) -> str | None:
        holder = Journal(self.folder).read().holder
        return holder.holder if holder else None

    def work_while_asleep(self) -> int:
        """Requests for work that a sleeping server got: each would have hung."""
        return sum(server.model.work_while_asleep for server in self.servers.values())


def image(**more: Any) -> LeaseRequest:
    return LeaseRequest(**{"holder": "prompt", "purpose": "image", "timeout": 10.0, **more})


def llm(service: str | None = None, **more: Any) -> LeaseRequest:
    given = {"holder": "prompt", "purpose": "llm", "service": service, "timeout": 10.0}
    return LeaseRequest(**{**given, **more})


def resume(service: str | None = None, holder: str = "prompt") -> ResumeRequest:
    return ResumeRequest(holder, service, 10.0)


def acts(report: GpuReport) -> list[tuple[str, str]]:
    """What was done with whom, in order."""
    return [(step.act, step.target) for step in report.steps]


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """As tests.support.waiting, beside what runs on this loop."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True
