"""A scripted GPU that holds what a real server says it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.nvml_standin import ScriptedGpu

__all__ = ["Follower"]


class Follower:
    """Lets the scripted GPU hold what the server should hold, and keeps what was seen."""

    def __init__(self, gpu: ScriptedGpu, memory: Callable[[], int]) -> None:
        self.seen: list[int] = []
        self._gpu, self._memory = gpu, memory
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Follower:
        self._gpu.set(used=self._memory())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            used = self._memory()
            if not self.seen or self.seen[-1] != used:
                self.seen.append(used)
                self._gpu.set(used=used)
