"""What is asked of the arbiter, and what it asks of ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

__all__ = ["Host", "LeaseRequest", "Level", "Progress", "Purpose", "ResumeRequest", "ResumeWhen"]

Purpose: TypeAlias = Literal["image", "llm", "voice", "everything off"]
ResumeWhen: TypeAlias = Literal["end of prompt", "next guard", "never"]
Level: TypeAlias = Literal["configured", "sleep 1", "sleep 2", "stop"]
Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class LeaseRequest:
    """Room that somebody wants on the GPU.

    `holder` is the prompt's id (or an action's name): whoever asks again under it changes his own
    lease. `need` is in bytes, None for the configuration's. `service` is the one that will be used
    (purposes llm and voice), None for the first of that role. `pause` names the services that may
    be paused, None for all. `timeout` in seconds bounds waiting and making room together. With
    `best_effort` too little room is no error: what was gained is kept, and warned about.
    """

    holder: str
    purpose: Purpose
    need: int | None = None
    service: str | None = None
    pause: frozenset[str] | None = None
    level: Level = "configured"
    timeout: float = 120.0
    resume: ResumeWhen = "end of prompt"
    best_effort: bool = False


@dataclass(frozen=True)
class ResumeRequest:
    """A wish to have services back: `service`, or None for all that are paused."""

    holder: str
    service: str | None = None
    timeout: float = 300.0


class Host(Protocol):
    """ComfyUI, as the one who holds memory too."""

    def device(self) -> str | None:
        """Return the UUID of the GPU that ComfyUI computes on, as the meter has it, or None."""

    def held(self) -> int:
        """Return the bytes that ComfyUI's process holds there and can use again."""

    def busy(self) -> bool:
        """Return whether prompts run or wait in ComfyUI's queue."""

    async def unload(self) -> str:
        """Unload ComfyUI's models and return why memory may have stayed; empty where none did.

        Waits while a prompt runs that did not ask for this itself.
        """
