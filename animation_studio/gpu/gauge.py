"""The one GPU that a lease is about: read, and waited for until memory is really there."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from .lease import Host
from .meter import DeviceMemory, Meter
from .report import GIB, Holding, Reading

__all__ = ["HELD_ASLEEP_GB", "Gauge", "least_expected"]

# What a sleeping vLLM keeps, its context and graphs: 1.1 to 1.3 GB (vLLM's own measurements).
HELD_ASLEEP_GB = 1.3

# Memory counts as there when this many samples in a row say so: freed blocks can flicker while
# another process lets go (facts of WSL2's driver).
_SAMPLES = 3
_INTERVAL = 0.01
# Samples that differ by less are the same: a desktop and a video never quite stand still.
_STILL = 64 << 20
# After this many seconds without change nothing more is coming back.
_QUIET = 1.0


class Gauge:
    """A meter at one device. Everything is None or False where it cannot be read."""

    def __init__(self, meter: Meter, host: Host, index: int | None) -> None:
        """Choose the device: `index` (NVML's), else the one ComfyUI uses, else the first."""
        self._meter = meter
        self._host = host
        self._index = index
        if index is None and (devices := meter.devices()):
            uuid = host.device()
            same = [device.index for device in devices if uuid in (None, device.uuid)]
            self._index = same[0] if same else None

    @property
    def problem(self) -> str:
        """Why there is no figure; empty where there is one."""
        if self._meter.problem:
            return self._meter.problem
        if self._index is not None and self.device() is None:
            return f"the driver gives no figures for GPU {self._index}"
        if self._index is None:
            return "NVML does not list the GPU that ComfyUI uses; name one as gpu.device"
        return ""

    @property
    def index(self) -> int | None:
        """NVML's index of the device."""
        return self._index

    def device(self) -> DeviceMemory | None:
        """Return the device as it is now."""
        return None if self._index is None else self._meter.read(self._index)

    def reading(self) -> Reading | None:
        """Return the memory as it is now, with ComfyUI's part."""
        device = self.device()
        return None if device is None else Reading.of(device, self._host.held())

    def holding(self) -> list[Holding] | None:
        """Return who holds memory, None where that is unknown."""
        processes = None if self._index is None else self._meter.processes(self._index)
        return None if processes is None else [Holding.of(process) for process in processes]

    def room(self, *, for_comfyui: bool) -> int | None:
        """Return the bytes that can be had: those free, for ComfyUI also those it holds already."""
        reading = self.reading()
        if reading is None:
            return None
        return reading.free + (reading.held if for_comfyui else 0)

    async def has(self, need: int, *, for_comfyui: bool) -> bool:
        """Return whether three samples in a row show `need` bytes; the first that does not ends."""
        for sample in range(_SAMPLES):
            if sample:
                await asyncio.sleep(_INTERVAL)
            room = self.room(for_comfyui=for_comfyui)
            if room is None or room < need:
                return False
        return True

    async def settle(
        self, need: int, *, for_comfyui: bool, start: int, expected: int, seconds: float
    ) -> bool:
        """Wait until `need` bytes are there, three samples in a row; return whether they are.

        Ends early with False when no more is to be expected: `expected` bytes (0: unknown) came
        since there were `start`, or something came and then nothing more. `seconds` bounds it.
        """
        end = time.monotonic() + seconds
        last: deque[int] = deque(maxlen=_SAMPLES)
        moved = time.monotonic()
        while (room := self.room(for_comfyui=for_comfyui)) is not None:
            now = time.monotonic()
            if last and abs(room - last[-1]) > _STILL:
                moved = now
            last.append(room)
            full = len(last) == _SAMPLES
            if full and min(last) >= need:
                return True
            still = full and max(last) - min(last) <= _STILL
            came = min(last) - start
            if still and (came >= expected if expected else came > _STILL and now - moved > _QUIET):
                return False
            if now > end:
                return False
            await asyncio.sleep(_INTERVAL)
        return False


def least_expected(vram_gb: float | None) -> int:
    """Return the bytes that should come back when a service of this size sleeps; 0: unknown.

    `vram_gb` is a round figure: four fifths of it, less what it keeps.
    """
    return 0 if vram_gb is None else max(0, int((0.8 * vram_gb - HELD_ASLEEP_GB) * GIB))
