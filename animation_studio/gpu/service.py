"""What the arbiter asks of a service, whatever its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..errors import ConfigError, ServiceError
from ..registry.problems import nearest
from ..registry.services import ServiceEntry

__all__ = ["Condition", "OutOfMemory", "Proof", "Service", "ServiceState", "conditions_of", "named"]


class ServiceState(str, Enum):
    """How a service stands, as it says itself; what it holds is the meter's to say.

    STOPPED: nothing listens at its address. SILENT: somebody does, and no answer came in time.
    FAILING: it answers, but with an error or not as its kind does; `Condition.detail` says how.
    """

    AWAKE = "awake"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    SILENT = "silent"
    FAILING = "failing"


@dataclass(frozen=True)
class Condition:
    """A service's state with what it said. `can_sleep` is False where it was found not to.

    `detail` is one sentence without the service's name: empty where there is nothing to explain.
    """

    state: ServiceState
    detail: str = ""
    can_sleep: bool = True


class OutOfMemory(ServiceError):  # noqa: N818 - as torch names its own
    """A service could not wake for want of GPU memory: make room and try again, or restart it."""


@dataclass(frozen=True)
class Proof:
    """That a service works: what it was asked and how long the answer took, in seconds."""

    what: str
    seconds: float


class Service(Protocol):
    """One service of `services.yaml`. Safe to cancel at every await; one caller at a time.

    Every method but `condition` raises ServiceError, whose message names the service, what was
    asked of it, what it answered and what to do; each ends within its time-out of `entry.timeouts`.

    Cancelling `sleep`, `wake` or `stop` frees the caller at once, but a server goes on with what
    it was asked: the act goes to its end in the background, within its own time-out, and the next
    method waits for that end first. So whoever cancels a `sleep` calls `wake`, and whoever cancels
    a `stop` calls `start`; both do nothing where nothing is to be done. `condition` waits for such
    an end too, so that it never calls a service awake that is about to fall asleep; else it takes
    no longer than `timeouts.answer` for each question. A cancelled `start` ends what it started.
    """

    @property
    def key(self) -> str:
        """Its name in services.yaml."""

    @property
    def entry(self) -> ServiceEntry:
        """What services.yaml says of it."""

    @property
    def can_sleep(self) -> bool:
        """Whether its kind can give memory back without ending."""

    @property
    def can_stop(self) -> bool:
        """Whether it can be ended, and started again afterwards."""

    async def condition(self) -> Condition:
        """Ask how it stands. Never raises for what a server does; never sends it any work."""

    async def sleep(self, level: int) -> None:
        """Put it to sleep at level 1 or 2 and return when it says that it is asleep.

        A service that is asleep stays so, at the level it has.
        """

    async def wake(self, level: int) -> None:
        """Wake it from a sleep of this level and return when it says that it is awake.

        Nothing happens to one that is awake. Raises OutOfMemory where the GPU has too little.
        A kind that loads its model at the next request loads `entry.model` here, if it is named.
        """

    async def stop(self) -> None:
        """Run the configured stop command and return when nothing listens any more."""

    async def start(self) -> None:
        """Run the configured start command and return when its health check passes.

        The command is not run where something listens already; then only health is waited for.
        """

    async def prove(self) -> Proof:
        """Let it do the least work there is (a language model: answer one token).

        Raises ServiceError, without sending work, for one that sleeps and would not answer.
        """


async def conditions_of(services: Mapping[str, Service]) -> dict[str, Condition]:
    """Ask all services at once how they stand."""
    answers = await asyncio.gather(*(service.condition() for service in services.values()))
    return dict(zip(services, answers, strict=True))


def named(services: Mapping[str, Service], key: str) -> Service:
    """Return the service `key`. Raises ConfigError, with the nearest name, where there is none."""
    if key not in services:
        known = ", ".join(services) or "none"
        raise ConfigError(
            f"services.yaml has no service {key!r}.{nearest(key, services)} Known: {known}."
        )
    return services[key]
