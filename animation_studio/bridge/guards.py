"""What VRAM Guard and Resume LLM do: a lease for the prompt, and the report of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast, get_args
from uuid import uuid4

from ..errors import ConfigError, GpuError, StudioError
from ..gpu.lease import LeaseRequest, Level, Purpose, ResumeRequest, ResumeWhen
from ..gpu.report import GIB, GpuReport, reports_json, reports_of
from ..registry import ALL, AUTO_SERVICE, NO_SERVICE, content_hash
from . import gpu, studio

__all__ = [
    "Passed",
    "Wish",
    "give_back",
    "guard",
    "lack_of_room",
    "room_for_pictures",
    "without_room",
]

_NO_ROOM = " no room "
_GUARD = "AnimStudio_VRAMGuard"
_CHOICES = {"purpose": Purpose, "level": Level, "resume": ResumeWhen}
_MOST_GB = 1 << 20
_ON_FAILURE = ("error", "warn", "go on")


@dataclass(frozen=True)
class Wish:
    """The widgets of VRAM Guard. `needed_gb` 0: the configuration's; `timeout` in seconds."""

    purpose: str
    needed_gb: float = 0.0
    service: str = AUTO_SERVICE
    pause: str = ALL
    level: str = "configured"
    timeout: float = 120.0
    resume: str = "end of prompt"
    best_effort: bool = False

    def request(self, holder: str) -> LeaseRequest:
        """Return what is asked of the arbiter. Raises ConfigError for values no widget has.

        A prompt over HTTP can hold them: ComfyUI 0.3.75 does not check the choices of a combo.
        """
        for name in ("service", "pause"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name}: give the name of a service.")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                )
        if not 0 <= self.needed_gb <= _MOST_GB:  # nor for NaN
            raise ConfigError(f"needed_gb {self.needed_gb}: give a number of GiB, 0 or more.")
        if not math.isfinite(self.timeout):
            raise ConfigError(f"timeout {self.timeout}: give a number of seconds.")
        if self.pause not in (ALL, NO_SERVICE):
            studio.registry().service(self.pause)
        pause = None if self.pause == ALL else frozenset({self.pause} - {NO_SERVICE})
        return LeaseRequest(
            holder=holder,
            purpose=cast(Purpose, self.purpose),
            need=int(self.needed_gb * GIB) if self.needed_gb else None,
            service=None if self.service == AUTO_SERVICE else self.service,
            pause=pause,
            level=cast(Level, self.level),
            timeout=float(self.timeout),
            resume=cast(ResumeWhen, self.resume),
            best_effort=self.best_effort,
        )


@dataclass(frozen=True)
class Passed:
    """What a node gives beside its value: for people, and the reports so far as JSON."""

    lines: list[str]
    warnings: list[str]
    text: str
    report: str


def guard(wish: Wish, on_failure: str, node_id: str, earlier: str = "") -> Passed:
    """Make room for the running prompt; `earlier` is the report that this one is added to.

    Raises StudioError where `on_failure` is "error", and for an `earlier` that is no report.
    """
    before = reports_of(earlier)
    # Who goes on with too little room wants what there is.
    request = replace(wish, best_effort=on_failure != "error").request(gpu.current_prompt())
    return _passed(lambda: gpu.take(request, node_id), request.purpose, on_failure, before)


def give_back(
    service: str, timeout: float, on_failure: str, node_id: str, earlier: str = ""
) -> Passed:
    """Give back what the running prompt paused; `earlier` is the report it is added to.

    Raises StudioError where `on_failure` is "error", and for an `earlier` that is no report.
    """
    before = reports_of(earlier)
    chosen = None if service == AUTO_SERVICE else service
    request = ResumeRequest(gpu.current_prompt(), chosen, timeout)
    return _passed(lambda: gpu.resume(request, node_id), "resume", on_failure, before)


def _passed(
    act: Callable[[], GpuReport], purpose: str, on_failure: str, before: list[GpuReport]
) -> Passed:
    if on_failure not in _ON_FAILURE:
        raise ConfigError(f"on_failure {on_failure!r}: choose one of {', '.join(_ON_FAILURE)}.")
    try:
        report = act()
    except StudioError as error:
        if on_failure == "error":
            raise
        found = error.report if isinstance(error, GpuError) else None
        report = found or GpuReport(purpose=purpose, ok=False)
        warnings = list(dict.fromkeys([str(error), *report.warnings]))
        report = report.model_copy(update={"warnings": warnings})
    if on_failure == "go on":
        report = report.model_copy(update={"warnings": []})
    return Passed(report.lines(), report.warnings, report.text(), reports_json([*before, report]))


def room_for_pictures(node_id: str) -> list[str]:
    """Make room for the pictures of the running prompt, where nothing in it did; return warnings.

    For nodes that sample, without a guard. Does nothing with `automatic_leases: false`, without a
    meter, or where there is room. Never raises: ComfyUI can still sample in less memory.
    """
    try:
        prompt = gpu.current_prompt()
        if not _is_wanted(prompt):
            return []
        report = gpu.take(Wish("image", best_effort=True).request(prompt), node_id)
    except StudioError as error:
        return [f"No room was made on the GPU: {error}"]
    return report.warnings


def lack_of_room() -> str:
    """Return what changes at every run while pictures lack room that `room_for_pictures` can make.

    For the end of fingerprints, since a cached node would not ask for the room; "" where there is
    room or none can be made. A graph that is run again as it was keeps it: nothing is sampled then.
    """
    global _last_look
    try:
        if not _is_wanted(None):
            return ""
    except StudioError:
        return ""
    prompt, graph = gpu.running_prompt() or ("", {})
    digest = content_hash(json.dumps(graph, sort_keys=True, default=repr))
    last = _last_look
    if last is not None and last.graph == digest and gpu.succeeded(last.prompt):
        return last.mark
    _last_look = _Look(prompt, digest, f"{_NO_ROOM}{uuid4().hex}")
    return _last_look.mark


@dataclass(frozen=True)
class _Look:
    """The last prompt that lacked room, the hash of its graph, what its fingerprint got."""

    prompt: str
    graph: str
    mark: str


_last_look: _Look | None = None


def without_room(fingerprint: object) -> object:
    """Return a fingerprint, or ComfyUI's list of them, without what `lack_of_room` added."""
    if isinstance(fingerprint, list):
        return [without_room(one) for one in fingerprint]
    return fingerprint.partition(_NO_ROOM)[0] if isinstance(fingerprint, str) else fingerprint


def _is_wanted(prompt: str | None) -> bool:
    settings = studio.registry().gpu_settings()
    if not settings.automatic_leases or not studio.registry().services:
        return False
    _, graph = gpu.running_prompt() or ("", {})
    if any(node.get("class_type") == _GUARD for node in graph.values()):
        return False  # its maker says what is to be done, and where
    arbiter = gpu.arbiter()
    lease = arbiter.lease
    if lease is not None and lease.holder == prompt and lease.purpose == "image":
        return False
    return gpu.ask(arbiter.lacks_room_for_pictures())
