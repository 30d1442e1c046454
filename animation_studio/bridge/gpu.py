"""The arbiter in the running ComfyUI: leases of prompts, ended when their prompt has ended."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..errors import GpuError, StudioError
from ..gpu.arbiter import Arbiter
from ..gpu.lease import LeaseRequest, Progress, ResumeRequest
from ..gpu.loop import BackgroundLoop
from ..gpu.meter import open_meter
from ..gpu.report import GpuReport
from ..gpu.service import Service
from ..gpu.services import open_service
from ..registry import ServiceEntry
from . import studio
from .host import ComfyHost, is_running

__all__ = [
    "arbiter",
    "ask",
    "current_prompt",
    "loop",
    "recover",
    "resume",
    "running_prompt",
    "show",
    "submit",
    "succeeded",
    "take",
    "wait_for",
]

T = TypeVar("T")

_logger = logging.getLogger("animation_studio")
_POLL = 0.05
# Seconds that ComfyUI's end may be held up for.
_AT_EXIT = 20.0
_making = threading.Lock()
_watched: set[str] = set()


@cache
def loop() -> BackgroundLoop:
    """Return the arbiter's event loop."""
    return BackgroundLoop("animation-studio-gpu")


@cache
def _host() -> ComfyHost:
    return ComfyHost()


def arbiter() -> Arbiter:
    """Return the arbiter of this ComfyUI. Raises ConfigError where services.yaml is broken."""
    # Under a lock: prompts, routes and the recovery come on threads of their own.
    with _making:
        return _arbiter()


@cache
def _arbiter() -> Arbiter:
    folder = studio.state_folder()
    atexit.register(_end_with_comfyui)
    return Arbiter(
        services=_Services(folder / "logs"),
        settings=lambda: studio.registry().gpu_settings(),
        meter=open_meter(),
        host=_host(),
        folder=folder,
    )


class _Services:
    """The services as services.yaml says now; one stays the same object while its entry does."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._open: dict[str, tuple[ServiceEntry, Service]] = {}

    def __call__(self) -> Mapping[str, Service]:
        registry = studio.registry()
        registry.gpu_settings()  # says when the file cannot be read
        for key, entry in registry.services.items():
            if key not in self._open or self._open[key][0] != entry:
                self._open[key] = (entry, open_service(key, entry, self._logs))
        return {key: self._open[key][1] for key in registry.services}


def current_prompt() -> str:
    """Return the id of the prompt whose node runs on this thread. Raises GpuError for none."""
    context = get_executing_context()
    if context is None:
        raise GpuError("This node can only run inside a prompt of ComfyUI.")
    return str(context.prompt_id)


def running_prompt() -> tuple[str, Mapping[str, Any]] | None:
    """Return the id and the graph of the prompt that runs now, None where there is none."""
    server = getattr(PromptServer, "instance", None)
    running = server.prompt_queue.get_current_queue_volatile()[0] if server else []
    return (str(running[0][1]), running[0][2]) if running else None


def succeeded(prompt_id: str) -> bool:
    """Return whether a prompt ended well, as far as ComfyUI remembers."""
    history = PromptServer.instance.prompt_queue.get_history(prompt_id, map_function=dict)
    status = history.get(prompt_id, {}).get("status") or {}
    return bool(status.get("status_str") == "success")


def take(request: LeaseRequest, node_id: str) -> GpuReport:
    """Take a lease for the prompt that `request.holder` names, from its node's thread.

    Stops within a second when ComfyUI is interrupted; what was paused is given back when the
    prompt has ended. Raises StudioError as `Arbiter.take`.
    """
    taking = arbiter()
    _watch(request.holder, taking)
    return wait_for(taking.take(request, _told(node_id)))


def resume(request: ResumeRequest, node_id: str) -> GpuReport:
    """Give services back, from a node's thread. Raises StudioError as `Arbiter.resume`."""
    resuming = arbiter()
    _watch(request.holder, resuming)
    return wait_for(resuming.resume(request, _told(node_id)))


def ask(question: Coroutine[Any, Any, T]) -> T:
    """Return the answer of the arbiter's loop, waiting on a node's thread.

    Without a look for interruptions: ComfyUI would take them for a failed fingerprint, and go on.
    """
    return loop().submit(question).result()


async def submit(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the arbiter's loop from another event loop (the server's)."""
    return await asyncio.wrap_future(loop().submit(work))


def recover() -> None:
    """Give back what an earlier ComfyUI left paused, in the background."""
    loop().submit(_recover())


async def _recover() -> None:
    try:
        await arbiter().recover()
    except StudioError as error:
        _logger.warning("Animation Studio: %s", error)


def _end_with_comfyui() -> None:
    """Give back what the running prompt paused when ComfyUI is stopped (Ctrl-C).

    What does not come back in time, and whatever kills the process, is the next start's.
    """
    lease = arbiter().lease
    if lease is None:
        return
    _logger.info("Animation Studio: ending the lease of the GPU before ComfyUI ends")
    comfy.model_management.interrupt_current_processing()
    end = time.monotonic() + _AT_EXIT
    while is_running() and time.monotonic() < end - _AT_EXIT / 2:
        time.sleep(_POLL)  # its step uses the models
    _host().end()
    try:
        # RuntimeError: at the interpreter's end Python may start no thread any more.
        loop().submit(arbiter().end(lease.holder)).result(max(1.0, end - time.monotonic()))
    except (concurrent.futures.TimeoutError, RuntimeError):
        _logger.warning("Animation Studio: the next start of ComfyUI wakes what is still paused")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the arbiter's loop and return its result, from a node's thread.

    When ComfyUI is interrupted it is cancelled within a second, and the interruption is raised.
    """
    with _host().visited() as visit:
        return visit.wait(
            loop().submit(work),
            comfy.model_management.throw_exception_if_processing_interrupted,
        )


def show(node_id: str, text: str) -> None:
    """Show on a node what it does now (web/report.js); nothing of it is kept.

    What an expanded node does (ComfyUI calls it PARENT.0.0.N) is shown on the one in the page.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        message = {"node": node_id.partition(".")[0], "text": text}
        server.send_sync("animation_studio.progress", message, server.client_id)


def _told(node_id: str) -> Progress:
    """Show each step on the node and in the log."""

    def tell(text: str) -> None:
        _logger.info("Animation Studio: %s", text)
        show(node_id, text)

    return tell


def _watch(prompt_id: str, ending: Arbiter) -> None:
    """End the prompt's lease when it no longer runs, however it ended.

    Looked for and not told: ComfyUI has no signal for the end of a prompt that also comes when a
    node failed or the run was interrupted.
    """
    if prompt_id not in _watched:
        _watched.add(prompt_id)
        watching = loop().submit(_end_with(prompt_id, ending, lambda: is_running(prompt_id)))
        watching.add_done_callback(_tell)


async def _end_with(prompt_id: str, ending: Arbiter, runs: Callable[[], bool]) -> None:
    try:
        while runs():
            await asyncio.sleep(_POLL)
    finally:
        _watched.discard(prompt_id)
        report = await ending.end(prompt_id)
    if report is not None and report.steps:
        _logger.info("Animation Studio: %s", report.text())


def _tell(watching: concurrent.futures.Future[None]) -> None:
    if not watching.cancelled() and (error := watching.exception()) is not None:
        _logger.error("Animation Studio: a lease could not be ended", exc_info=error)
