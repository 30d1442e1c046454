"""Acts of a person or a script, outside prompts: what they did is their wish and is not undone."""

from __future__ import annotations

from typing import Any

from ..errors import StudioError
from .arbiter import Arbiter
from .service import named
from .work import Work

__all__ = ["free", "sleep", "wake"]


async def sleep(arbiter: Arbiter, key: str, level: int | None = None) -> dict[str, Any]:
    """Put a service to sleep (`level` None: as services.yaml says) and return the steps.

    Raises GpuError while the GPU is leased, ServiceError where the service does not.
    """
    service = named(arbiter.services, key)
    async with arbiter.action(f"sleep {key}") as work:
        await work.timed("sleep", service, service.sleep(level or service.entry.sleep_level))
        # Whoever puts it to sleep by hand wants that: no lease brings it back.
        arbiter.journal.remove(key)
        return _steps(work)


async def wake(arbiter: Arbiter, key: str) -> dict[str, Any]:
    """Wake or start a service and return the steps; raises as `sleep`."""
    service = named(arbiter.services, key)
    async with arbiter.action(f"wake {key}") as work:
        try:
            await work.awaken(service, level=0, need=0)
        except StudioError:
            await work.undo_way()
            raise
        # Whoever wakes it by hand has it back: no lease needs to.
        arbiter.journal.remove(key)
        return _steps(work)


async def free(arbiter: Arbiter) -> dict[str, Any]:
    """Unload ComfyUI's models, after the running prompt, and return the steps."""
    async with arbiter.action("free") as work:
        await work.unload()
        return _steps(work)


def _steps(work: Work) -> dict[str, Any]:
    return {
        "steps": [step.model_dump(mode="json") for step in work.steps],
        "warnings": work.warnings,
    }
