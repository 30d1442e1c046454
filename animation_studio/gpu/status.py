"""How the GPU, its services and leases stand now: for the page, scripts, and people in need."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from .arbiter import Arbiter
from .journal import Holder, Pause, alive
from .report import Holding, Reading
from .service import conditions_of

__all__ = ["GpuStatus", "status_of"]


class DeviceStatus(BaseModel):
    """One GPU, in bytes. `leased` says that leases are about this one."""

    index: int
    name: str
    total: int
    used: int
    free: int
    leased: bool


class MeterStatus(BaseModel):
    """What can be measured; `problem` says why nothing can. `holding` None: nobody tells."""

    problem: str
    devices: list[DeviceStatus]
    reading: Reading | None
    holding: list[Holding] | None


class ServiceStatus(BaseModel):
    """A service, without its address and commands, which are its owner's."""

    key: str
    name: str
    kind: str
    role: str
    group: str | None
    vram_gb: float | None
    state: str
    detail: str
    can_sleep: bool
    can_stop: bool


class LeaseStatus(BaseModel):
    """Who has the GPU in this process."""

    holder: str
    purpose: str
    since: datetime


class JournalStatus(BaseModel):
    """What is paused, and who has the GPU in whatever process; `problem` of the file."""

    problem: str
    holder: Holder | None
    paused: list[Pause]


class GpuStatus(BaseModel):
    """Everything at once."""

    meter: MeterStatus
    services: list[ServiceStatus]
    lease: LeaseStatus | None
    journal: JournalStatus


async def status_of(arbiter: Arbiter) -> GpuStatus:
    """Ask meter, services and journal. Raises ConfigError where services.yaml is broken."""
    gauge, lease, journal = arbiter.gauge(), arbiter.lease, arbiter.journal
    state = journal.read()
    return GpuStatus(
        meter=MeterStatus(
            problem=gauge.problem,
            devices=[
                DeviceStatus(
                    index=device.index,
                    name=device.name,
                    total=device.total,
                    used=device.used,
                    free=device.free,
                    leased=device.index == gauge.index,
                )
                for device in arbiter.meter.devices()
            ],
            reading=gauge.reading(),
            holding=gauge.holding(),
        ),
        services=await _services(arbiter),
        lease=LeaseStatus(holder=lease.holder, purpose=lease.purpose, since=lease.since)
        if lease
        else None,
        journal=JournalStatus(
            problem=journal.problem,
            holder=state.holder if state.holder and alive(state.holder) else None,
            paused=list(state.paused),
        ),
    )


async def _services(arbiter: Arbiter) -> list[ServiceStatus]:
    services = arbiter.services
    conditions = await conditions_of(services)
    return [
        ServiceStatus(
            key=key,
            name=service.entry.name or key,
            kind=service.entry.kind,
            role=service.entry.role,
            group=service.entry.group,
            vram_gb=service.entry.vram_gb,
            state=conditions[key].state.value,
            detail=conditions[key].detail,
            can_sleep=service.can_sleep and conditions[key].can_sleep,
            can_stop=service.can_stop,
        )
        for key, service in services.items()
    ]
