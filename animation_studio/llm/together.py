"""Several things at once, of which none goes on alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["together"]

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all of them at once and return their results in order.

    The first error cancels the others and is raised; so does a cancellation of this call. Either
    way it returns only when all of them have ended.
    """
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        failed = [task for task in tasks if _has_failed(task)]
        await _end(tasks)
    # Of one moment's errors the first in order: what the caller sees does not depend on luck.
    return [task.result() for task in (failed or tasks)]


async def _end(tasks: list[asyncio.Task[T]]) -> None:
    """Cancel what still runs and wait for it; a cancellation meanwhile is passed on afterwards."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in running):
        cancelled = await _wait(running) or cancelled
    for task in tasks:
        _has_failed(task)  # looked at, so that asyncio does not report it as forgotten
    if cancelled is not None:
        raise cancelled


async def _wait(tasks: list[asyncio.Task[T]]) -> asyncio.CancelledError | None:
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError as error:
        return error
    return None


def _has_failed(task: asyncio.Task[T]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
