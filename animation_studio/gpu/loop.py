"""The arbiter's event loop, on a thread of its own, and how other threads wait for it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

__all__ = ["BackgroundLoop", "Visit"]

T = TypeVar("T")

# How often a waiting thread looks whether it was interrupted: "within a second" with room to spare.
_LOOK = 0.1


class Visit:
    """A thread that waits for the loop, and meanwhile runs what must be run on that thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def run_here(self, job: Callable[[], T]) -> T:
        """Run `job` on the visiting thread and return its result. Called on the loop."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                value = job()
            except BaseException as error:
                loop.call_soon_threadsafe(_settle, result, None, error)
                if not isinstance(error, Exception):
                    raise  # an interruption is this thread's own
                return
            loop.call_soon_threadsafe(_settle, result, value, None)

        self._jobs.put(run)
        return await result

    def wait(self, future: Future[T], look: Callable[[], None]) -> T:
        """Return the future's result; `look` is called ten times a second and may raise to leave.

        Leaving cancels the future and does not wait for it.
        """
        future.add_done_callback(lambda _: self._jobs.put(None))
        try:
            while True:
                look()
                try:
                    job = self._jobs.get(timeout=_LOOK)
                except queue.Empty:
                    continue
                if job is None:
                    return future.result()
                job()
        except BaseException:
            future.cancel()
            raise


def _settle(result: asyncio.Future[T], value: T | None, error: BaseException | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(cast(T, value))
    elif isinstance(error, Exception):
        result.set_exception(error)
    else:
        result.cancel()


class BackgroundLoop:
    """An event loop on a daemon thread, started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop; the future may be cancelled, and cancels it there."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                ).start()
            return self._loop
