"""How the used memory of a GPU went while something ran."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from .meter import Meter

__all__ = ["MemoryTrace"]


class MemoryTrace:
    """Samples one GPU every `interval` seconds from `start` to `stop`, or in a `with` block.

    Of a long trace fewer points are kept, at most `points`: each is the highest of the samples it
    stands for. A trace can be started once. What cannot be read is left out.
    """

    def __init__(self, meter: Meter, index: int, interval: float = 0.1, points: int = 1000) -> None:
        self._meter = meter
        self._index = index
        self._interval = interval
        self._most = max(4, points)
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self._points: list[tuple[float, int]] = []
        self._samples = 0
        self._each = 1  # samples that one point stands for
        self._peak: int | None = None

    def start(self) -> MemoryTrace:
        """Take the first sample, then go on from a thread of its own; return the trace."""
        if self._thread is None:
            self._begun = time.monotonic()
            self._sample()
            self._thread = threading.Thread(
                target=self._run, name="animation-studio-memory-trace", daemon=True
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Take the last sample and end; does nothing where it has not begun or has ended."""
        if self._thread is not None and not self._ended.is_set():
            self._ended.set()
            # Bounded: a driver that hangs must not hang whoever ends a trace.
            self._thread.join(1.0)
            if not self._thread.is_alive():
                self._sample()

    def __enter__(self) -> MemoryTrace:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def peak(self) -> int | None:
        """The most bytes used in any sample; None where none could be read."""
        return self._peak

    @property
    def samples(self) -> int:
        """How many samples were read."""
        return self._samples

    def as_points(self) -> list[tuple[float, int]]:
        """Return (seconds since the start, bytes used), in the order of time."""
        with self._guard:
            return list(self._points)

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        device = self._meter.read(self._index)
        if device is None:
            return
        seconds = time.monotonic() - self._begun
        with self._guard:
            self._peak = max(self._peak or 0, device.used)
            if self._samples % self._each == 0:
                self._points.append((seconds, device.used))
            else:
                self._points[-1] = _higher(self._points[-1], (seconds, device.used))
            self._samples += 1
            if len(self._points) > self._most:
                pairs = zip(self._points[::2], self._points[1::2], strict=False)
                # Where the number is odd the last one stays for itself.
                rest = self._points[-1:] if len(self._points) % 2 else []
                self._points = [_higher(*pair) for pair in pairs] + rest
                self._each *= 2


def _higher(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, int]:
    return first if first[1] >= second[1] else second
