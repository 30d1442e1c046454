"""What was done on the GPU: memory before and after, each step with its seconds, who holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ..errors import GpuError
from .meter import DeviceMemory, ProcessMemory

__all__ = [
    "GIB",
    "Act",
    "GpuReport",
    "Holding",
    "Outcome",
    "Reading",
    "Step",
    "gigabytes",
    "reports_json",
    "reports_of",
]

GIB = 1 << 30

Act: TypeAlias = Literal["unload", "sleep", "stop", "wake", "start", "prove"]
Outcome: TypeAlias = Literal["done", "no effect", "failed"]

_DONE: dict[str, str] = {
    "unload": "unloaded",
    "sleep": "put to sleep",
    "stop": "stopped",
    "wake": "woken",
    "start": "started",
}


def gigabytes(count: int) -> str:
    """Return bytes as people of this field write them: GiB with one decimal, called GB."""
    return f"{count / GIB:.1f} GB"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Reading(_Model):
    """A GPU's memory at one moment, in bytes. `held` is ComfyUI's own part of `used`."""

    total: int
    used: int
    free: int
    held: int

    @classmethod
    def of(cls, memory: DeviceMemory, held: int) -> Reading:
        """Return a meter's reading with what ComfyUI holds."""
        return cls(total=memory.total, used=memory.used, free=memory.free, held=held)


class Step(_Model):
    """One thing that was done: `freed` in bytes by the meter, None where nobody measured."""

    act: Act
    target: str
    seconds: float
    outcome: Outcome = "done"
    freed: int | None = None
    detail: str = ""

    def line(self) -> str:
        """Return it as a line for people."""
        if self.act == "prove" and self.outcome == "done":
            return f"{self.target} answered {self.detail} ({self.seconds:.2f} s)"
        head = {
            "done": f"{self.target} {_DONE.get(self.act, self.act)}",
            "no effect": f"{self.target}: {self.act} had no effect",
            "failed": f"{self.target}: {self.act} failed",
        }[self.outcome]
        figures = [f"{self.seconds:.2f} s"]
        if self.freed is not None and self.act in ("unload", "sleep", "stop"):
            figures.insert(0, f"{gigabytes(self.freed)} freed")
        return f"{head} ({', '.join(figures)})" + (f": {self.detail}" if self.detail else "")


class Holding(_Model):
    """A process with memory on the GPU; `used` in bytes, None where the driver does not tell."""

    pid: int
    name: str
    used: int | None

    @classmethod
    def of(cls, process: ProcessMemory) -> Holding:
        """Return a meter's process."""
        return cls(pid=process.pid, name=process.name, used=process.used)

    def __str__(self) -> str:
        """Return it as people read it."""
        size = "unknown" if self.used is None else gigabytes(self.used)
        return f"{self.name} (pid {self.pid}) {size}"


class GpuReport(_Model):
    """What one take or resume did. Byte counts; seconds; None and empty are "not known".

    `ok` is False where it failed, or went on with less room than was wished.
    `need` is what had to be free. `holding` is None where the driver does not tell who holds
    memory. `verified` says that the meter saw the room; `peak` is the most that was used while the
    lease was held.
    """

    format: Literal["animation_studio/gpu_report/1"] = "animation_studio/gpu_report/1"
    purpose: str
    service: str | None = None
    ok: bool = True
    device: str = ""
    need: int = 0
    before: Reading | None = None
    after: Reading | None = None
    verified: bool = False
    peak: int | None = None
    seconds: float = 0.0
    steps: list[Step] = []
    paused: list[str] = []
    resumed: list[str] = []
    holding: list[Holding] | None = None
    warnings: list[str] = []

    def lines(self) -> list[str]:
        """Return the report as lines for people, the result first."""
        lines = [self._result(), *(f"  {step.line()}" for step in self.steps)]
        if self.paused:
            lines.append(f"paused: {', '.join(self.paused)}")
        if self.resumed:
            lines.append(f"resumed: {', '.join(self.resumed)}")
        if self.peak is not None:
            lines.append(f"peak while held: {gigabytes(self.peak)}")
        if self.holding:
            lines.append(f"on the GPU: {', '.join(map(str, self.holding))}")
        elif self.before is not None and self.holding is None:
            lines.append("on the GPU: unknown (the driver does not tell)")
        return lines

    def text(self) -> str:
        """Return lines and warnings as one text."""
        return "\n".join([*self.lines(), *(f"warning: {text}" for text in self.warnings)])

    def _result(self) -> str:
        what = self.purpose if self.service is None else f"{self.purpose} ({self.service})"
        if self.before is None or self.after is None:
            return f"{what}: not measured, {self.seconds:.1f} s"
        change = f"{gigabytes(self.before.free)} free before, {gigabytes(self.after.free)} after"
        need = f"{gigabytes(self.need)} needed, " if self.need else ""
        return f"{what}: {need}{change}, {self.seconds:.1f} s on {self.device}"


def reports_json(reports: Sequence[GpuReport]) -> str:
    """Return reports as one JSON text: a list, in the order in which things were done."""
    return json.dumps([report.model_dump(mode="json") for report in reports], indent=2)


def reports_of(text: str) -> list[GpuReport]:
    """Return what `reports_json` wrote; an empty text gives none. Raises GpuError for others."""
    if not text:
        return []
    try:
        return _Reports.validate_json(text)
    except ValidationError as error:
        raise GpuError(
            f"report: this text is no GPU report ({error.error_count()} faults). Connect the "
            "report output of VRAM Guard or Resume LLM."
        ) from None


_Reports = TypeAdapter(list[GpuReport])
