"""Making room: the smallest sufficient step, and the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import ConfigError, GpuError, StudioError
from .gauge import HELD_ASLEEP_GB
from .lease import LeaseRequest
from .report import GIB, gigabytes
from .service import Condition, Service, ServiceState, named
from .work import Work

__all__ = ["make_room", "needed", "target_of"]

# A need of the configuration that is more than the whole card is cut to this part of it, so that
# the defaults, made for 16 GB, do something sensible on smaller cards too. The rest is the
# desktop's and the drivers'.
_USABLE = 0.85


def target_of(request: LeaseRequest, services: Mapping[str, Service]) -> Service | None:
    """Return the service that a lease is for: the named one, else the first of the purpose's role.

    None for pictures and for everything off. Raises ConfigError where there is none.
    """
    if request.purpose not in ("llm", "voice"):
        return None
    if request.service is not None:
        return named(services, request.service)
    for service in services.values():
        if service.entry.role == request.purpose:
            return service
    raise ConfigError(
        f"services.yaml has no service for {request.purpose}: add one under `services:`."
    )


def needed(
    request: LeaseRequest,
    target: Service | None,
    work: Work,
    conditions: Mapping[str, Condition],
) -> int:
    """Return the bytes that must be free. Raises GpuError for more than the card has.

    A service that sleeps has a part of its own already.
    """
    total = work.before.total if work.before else None
    if request.need is not None:
        if total is not None and request.need > total:
            raise GpuError(
                f"{gigabytes(request.need)} are asked for and the GPU has {gigabytes(total)} in "
                "all: ask for less (needed_gb)."
            )
        return request.need
    if request.purpose == "everything off":
        return 0
    figure: float | None = target.entry.vram_gb if target else None
    if figure is None:
        figure = getattr(work.settings.needs_gb, request.purpose)
    if target is not None and conditions[target.key].state is ServiceState.ASLEEP:
        figure -= min(figure / 2, HELD_ASLEEP_GB)
    need = int(figure * GIB)
    return need if total is None else min(need, int(total * _USABLE))


async def make_room(
    work: Work,
    request: LeaseRequest,
    target: Service | None,
    need: int,
    conditions: Mapping[str, Condition],
) -> bool:
    """Make room and return whether the meter saw it.

    Nothing, then unloading ComfyUI's models (pictures need them: not for those), then sleep, one
    service after the other, then stop. Without a meter every step is taken once. Raises GpuError
    when the room cannot be had; what was paused is then still paused.
    """
    if target is not None and conditions[target.key].state is ServiceState.AWAKE:
        return not work.gauge.problem
    making = _Making(work, request, target, need, conditions)
    if request.purpose == "everything off":
        await work.unload()
        await making.pause_all()
        return await making.check() if need else not work.gauge.problem
    await making.pause_group()
    if await making.enough():
        return True
    if not making.for_comfyui:
        await work.unload(need)
        if await making.enough():
            return True
    if await making.sleeps() or await making.stops():
        return True
    return await making.check()


class _Making:
    """One attempt: who may be paused, in which order, and what stood against it."""

    def __init__(
        self,
        work: Work,
        request: LeaseRequest,
        target: Service | None,
        need: int,
        conditions: Mapping[str, Condition],
    ) -> None:
        self.work = work
        self.request = request
        self.target = target
        self.need = need
        self.conditions = conditions
        self.for_comfyui = request.purpose == "image"
        allowed = request.pause
        self.candidates = [
            service
            for service in work.services.values()
            if service is not target and (allowed is None or service.key in allowed)
        ]
        # The largest first: the fewest are paused.
        self.candidates.sort(key=lambda service: -(service.entry.vram_gb or 0.0))
        self.asleep: set[str] = set()
        self.stopped: set[str] = set()
        self.hints: list[str] = []

    async def enough(self) -> bool:
        return bool(self.need) and await self.work.gauge.has(
            self.need, for_comfyui=self.for_comfyui
        )

    async def pause_group(self) -> None:
        """Of a group at most one is awake, whatever the memory says."""
        group = self.target.entry.group if self.target else None
        if group is None:
            return
        for mate in self.work.services.values():
            if mate.entry.group != group or mate is self.target or not self.awake(mate):
                continue
            if mate not in self.candidates:
                raise GpuError(
                    f"{mate.key} is awake, and of the group {group!r} only one may be; this node "
                    "may not pause it: choose another value for `pause`."
                )
            await self.sleep_or_stop(mate)

    async def pause_all(self) -> None:
        for service in self.candidates:
            if self.awake(service):
                await self.sleep_or_stop(service)

    async def sleeps(self) -> bool:
        for service in self.candidates:
            if not self.awake(service) or service.key in self.asleep | self.stopped:
                continue
            level = self.level(service)
            if self.request.level == "stop" and service.can_stop:
                level = 0
            elif not self.can_sleep(service):
                continue
            if await self.pause(service, level):
                return True
        return False

    async def stops(self) -> bool:
        """Stop what sleep did not free enough of: the sleeping still hold some, the rest all."""
        # First those that still hold all of theirs: a sleeping one keeps little, and starts slowly.
        candidates = sorted(self.candidates, key=self.is_asleep)
        for service in candidates:
            state = self.conditions[service.key].state
            at_work = service.entry.role == "voice" and state is ServiceState.SILENT
            if state is ServiceState.STOPPED or at_work:
                continue
            if not service.can_stop or service.key in self.stopped:
                continue
            if self.work.gauge.problem and service.key in self.asleep:
                continue  # nobody can say that sleep was not enough
            if await self.pause(service, 0):
                return True
        return False

    async def sleep_or_stop(self, service: Service) -> None:
        if self.can_sleep(service) and not (self.request.level == "stop" and service.can_stop):
            await self.pause(service, self.level(service))
        elif service.can_stop:
            await self.pause(service, 0)
        else:
            self.hints.append(self.cannot(service))
            self.work.warnings.append(self.cannot(service))

    async def pause(self, service: Service, level: int) -> bool:
        try:
            enough = await self.work.pause(
                service, level, self.request.resume, self.need, for_comfyui=self.for_comfyui
            )
        except GpuError:
            raise  # the time is up, or the journal cannot be written: no further steps
        except StudioError as error:
            self.hints.append(str(error))
            self.work.warnings.append(self.work.without_addresses(str(error)))
            return False
        (self.asleep if level else self.stopped).add(service.key)
        step = self.work.steps[-1]
        if step.outcome == "no effect" and level:
            hint = (
                f"{service.key} said that it sleeps and the memory stayed. A vLLM frees it only "
                "when it was started with --enable-sleep-mode; else give it `stop` and `start` "
                "commands in services.yaml."
            )
            self.hints.append(hint)
            self.work.warnings.append(hint)
        return enough

    def awake(self, service: Service) -> bool:
        return self.conditions[service.key].state is ServiceState.AWAKE

    def is_asleep(self, service: Service) -> bool:
        state = self.conditions[service.key].state
        return service.key in self.asleep or state is ServiceState.ASLEEP

    def can_sleep(self, service: Service) -> bool:
        return service.can_sleep and self.conditions[service.key].can_sleep

    def level(self, service: Service) -> int:
        return {"sleep 1": 1, "sleep 2": 2}.get(self.request.level, service.entry.sleep_level)

    def cannot(self, service: Service) -> str:
        detail = self.conditions[service.key].detail
        return (
            f"{service.key} cannot be paused: {detail or 'it has no sleep.'} Give it `stop` and "
            "`start` commands in services.yaml."
        )

    async def check(self) -> bool:
        """Return True for room, False where nobody can measure it. Raises GpuError for none."""
        work = self.work
        if work.gauge.problem:
            return False
        if await self.enough():
            return True
        self.hints += self.obstacles()
        said = " ".join(self.sentences())
        # What the configuration wishes for every card is no reason to stop a run, where all that
        # can be done is done.
        if self.request.best_effort or (self.request.need is None and not self.hints):
            work.warnings.append(work.without_addresses(said))
            return False
        raise GpuError(said)

    def obstacles(self) -> Iterable[str]:
        """Say of each service that may still hold memory why it was not paused."""
        paused = {self.target.key} if self.target else set()
        for key, service in self.work.services.items():
            condition = self.conditions[key]
            if key in paused | self.asleep | self.stopped:
                continue
            if condition.state in (ServiceState.SILENT, ServiceState.FAILING):
                yield f"{key} is {condition.state.value}: {condition.detail}"
            elif condition.state is ServiceState.AWAKE and service not in self.candidates:
                yield f"{key} is awake, and this node may not pause it."
            elif condition.state is ServiceState.AWAKE and not self.can_sleep(service):
                yield self.cannot(service)

    def sentences(self) -> Iterable[str]:
        work, gauge = self.work, self.work.gauge
        device = gauge.device()
        name = device.name if device else "the GPU"
        room = gauge.room(for_comfyui=self.for_comfyui) or 0
        yield (
            f"There is no room for {self.request.purpose}: {gigabytes(self.need)} must be free on "
            f"{name}, and {gigabytes(room)} are"
            + (" (with what ComfyUI holds itself)." if self.for_comfyui else ".")
        )
        done = [step.line() for step in work.steps]
        yield f"Done: {'; '.join(done)}." if done else "Nothing could be paused."
        holding = gauge.holding()
        who = ", ".join(map(str, holding)) if holding else "unknown (the driver does not tell)"
        yield f"Memory is held by: {who}."
        yield from dict.fromkeys(self.hints)
        if not self.hints:
            yield "End what else uses the GPU, or ask for less (needed_gb)."
