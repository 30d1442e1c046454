"""Running a command while the user sees that something happens, and knowing what it said."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from .say import Steps

__all__ = ["clean_environment", "follow", "printed_by"]

# Settings of the caller's shell that would lead a virtual environment's Python or pip elsewhere.
FOREIGN = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PIP_CONSTRAINT",
    "PIP_DRY_RUN",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_TARGET",
    "PIP_USER",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
)


def clean_environment(**changes: str) -> dict[str, str]:
    """Return the caller's environment variables without those that lead astray, and with these."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, **changes}


def printed_by(command: Sequence[str | Path], timeout: float = 120.0) -> str | None:
    """Return what a command prints, or None when it fails, does not exist or takes too long."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(),
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def follow(
    command: Sequence[str | Path],
    log: Path,
    steps: Steps,
    describe: Callable[[str], str | None],
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and its whole output (both streams).

    The output is kept in `log` too. `describe` turns a line into what the user is told, or None.
    On Ctrl-C the command is ended before the interruption goes on.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    with log.open("w", encoding="utf-8") as record:
        print("$", *words, file=record, flush=True)
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment() if environment is None else environment,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
            try:
                _show(lines, said, record, steps, describe)
            except BaseException:
                _end(process)
                raise
        return process.returncode, "".join(said)


def _show(
    lines: queue.Queue[str | None],
    said: list[str],
    record: IO[str],
    steps: Steps,
    describe: Callable[[str], str | None],
) -> None:
    now = "working"
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            steps.tick(now)
            continue
        if line is None:
            return
        said.append(line)
        record.write(line)
        now = describe(line) or now
        steps.tick(now)


def _pump(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """Let a command that got Ctrl-C too tidy up for a moment, then end it."""
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
