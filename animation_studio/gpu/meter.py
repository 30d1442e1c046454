"""How much memory a GPU has, how much is free, and who holds the rest, by NVML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["DeviceMemory", "Meter", "ProcessMemory", "open_meter"]


@dataclass(frozen=True)
class ProcessMemory:
    """A process with memory on the GPU; `used` in bytes, None where the driver does not tell."""

    pid: int
    name: str
    used: int | None


@dataclass(frozen=True)
class DeviceMemory:
    """One GPU at one moment, in bytes; `used` and `free` make up `total`.

    `index` is NVML's. `uuid` begins with "GPU-" ("MIG-" for a part of one); torch has it without.
    """

    index: int
    uuid: str
    name: str
    total: int
    used: int
    free: int


class Meter(Protocol):
    """What tells the truth about a GPU's memory; every call reads anew."""

    @property
    def problem(self) -> str:
        """Why nothing can be read, as a sentence with what to do; empty where it can."""

    def devices(self) -> list[DeviceMemory]:
        """Return every GPU that can be read; empty with a `problem`, never an exception."""

    def read(self, index: int) -> DeviceMemory | None:
        """Return one GPU's memory; None where it cannot be read or the driver says N/A."""

    def processes(self, index: int) -> Sequence[ProcessMemory] | None:
        """Return who holds memory on a GPU, the largest first; None where that is unknown."""


def open_meter() -> Meter:
    """Return the meter of this machine, which says by itself what it cannot read, and why."""
    from .nvml import NvmlMeter

    return NvmlMeter()
