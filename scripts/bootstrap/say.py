"""What the user sees: numbered steps, notes with the time, one sentence when something fails."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Problem", "Steps", "full_disk", "guarded", "plural_list", "sentence_of"]

# Between two lines of `tick` where the output is a file or a pipe, in seconds.
QUIET_SECONDS = 10.0
INTERRUPTED = 130
DISK_FULL = tuple(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)
)


class Problem(Exception):  # noqa: N818 - it is a sentence for the user
    """What failed, where, and what to do about it, in words for the user."""


class Steps:
    """Numbered steps on stderr, so that stdout stays free for results."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._step_began = self._last_tick = time.monotonic()
        self._open_line = False
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the first step could begin."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        self._step_began = self._last_tick = time.monotonic()
        self._line(f"[{self._number}/{self._total}] {title}")

    def note(self, text: str) -> None:
        """Say something worth keeping, with the seconds since the step began when it took some."""
        seconds = time.monotonic() - self._step_began
        suffix = f"  ({seconds:.0f} s)" if seconds >= 1 else ""
        self._line(f"      {text}{suffix}")

    def tick(self, text: str) -> None:
        """Say how far it is: one line that renews itself in a terminal, now and then elsewhere."""
        now = time.monotonic()
        line = f"      {text}  ({now - self._step_began:.0f} s)"
        if sys.stderr.isatty():
            print(f"\r{line[:100]:<100}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now - self._last_tick >= QUIET_SECONDS:
            self._last_tick = now
            self._line(line)

    def _line(self, text: str) -> None:
        if self._open_line:
            print(f"\r{'':<100}\r", end="", file=sys.stderr)
            self._open_line = False
        print(text, file=sys.stderr, flush=True)


def guarded(work: Callable[[], int]) -> int:
    """Return what `work` returns; turn what a user can meet into one sentence and an exit status.

    The status is 1 for a Problem or an OSError and 130 for Ctrl-C.
    """
    try:
        return work()
    except Problem as problem:
        print(f"\n{problem}", file=sys.stderr)
    except OSError as error:
        print(f"\n{sentence_of(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. What is finished is kept; the next run carries on.", file=sys.stderr)
        return INTERRUPTED
    return 1


def sentence_of(error: OSError) -> str:
    """Return an operating system's error as a sentence with the file and what to do."""
    where = str(error.filename) if error.filename else "a file of ours"
    if error.errno in DISK_FULL:
        return full_disk(where)
    if isinstance(error, PermissionError):
        return (
            f"{where}: permission denied. Give yourself access to it, or set ANIMATION_STUDIO_HOME."
        )
    return f"{where}: {error.strerror or error}."


def full_disk(where: str | Path) -> str:
    """Return the sentence for a disk without room."""
    return (
        f"The disk is full: {where} could not be written. Make room, or set ANIMATION_STUDIO_HOME "
        "to a folder on a larger disk; the next run carries on where this one stopped."
    )


def plural_list(names: list[str], most: int = 8) -> str:
    """Return names as "a, b, c and 4 more"; "nothing" for none."""
    if not names:
        return "nothing"
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
