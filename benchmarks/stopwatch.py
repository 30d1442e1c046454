"""Where time goes: functions are wrapped, and each one's own time is summed under a label."""

from __future__ import annotations

import functools
import inspect
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

Label = str | Callable[..., str]


@dataclass
class _Frame:
    whole: bool
    inside: float = 0.0


@dataclass
class Stopwatch:
    """Sums seconds and calls by label. Own time only: what a wrapped function called counts there.

    Works across awaits and tasks, since a task inherits its maker's context.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self._frame: ContextVar[_Frame | None] = ContextVar("frame", default=None)

    def clear(self) -> None:
        """Begin anew."""
        self.seconds.clear()
        self.calls.clear()

    def watch(self, owner: Any, name: str, label: Label, *, whole: bool = False) -> None:
        """Wrap `owner.name`. `label` may be made from its arguments; `whole` counts all inside."""
        inner = getattr(owner, name)
        if inspect.iscoroutinefunction(inner):

            @functools.wraps(inner)
            async def outer(*args: Any, **kwargs: Any) -> Any:
                begun = self._begin(whole)
                try:
                    return await inner(*args, **kwargs)
                finally:
                    self._end(begun, _text(label, args, kwargs))
        else:

            @functools.wraps(inner)
            def outer(*args: Any, **kwargs: Any) -> Any:
                begun = self._begin(whole)
                try:
                    return inner(*args, **kwargs)
                finally:
                    self._end(begun, _text(label, args, kwargs))

        setattr(owner, name, outer)

    def _begin(self, whole: bool) -> tuple[float, _Frame | None, _Frame]:
        above = self._frame.get()
        frame = _Frame(whole or (above is not None and above.whole))
        self._frame.set(frame)
        return time.perf_counter(), above, frame

    def _end(self, begun: tuple[float, _Frame | None, _Frame], label: str) -> None:
        start, above, frame = begun
        spent = time.perf_counter() - start
        self._frame.set(above)
        if above is not None:
            above.inside += spent
            if above.whole:
                return
        self.seconds[label] += spent - (0.0 if frame.whole else frame.inside)
        self.calls[label] += 1


def _text(label: Label, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return label if isinstance(label, str) else label(*args, **kwargs)
