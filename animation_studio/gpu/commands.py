"""Runs the `stop` and `start` commands of services.yaml: lists of arguments, never a shell.

`run_command` waits for a command's end. `launch` starts one that may stay as the server itself: it
outlives ComfyUI, writes to a log file, and leaves no zombie.

Both use subprocess and not asyncio's processes: those need a special event loop on Windows, and a
transport of theirs kills its process when it is collected, which a server must survive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import ServiceError

__all__ = ["Launched", "launch", "run_command"]

TAIL_BYTES = 4096
# How long a process group may take to end when asked, in seconds, before it is killed.
GRACE_SECONDS = 1.0
_POLL_SECONDS = (0.01, 0.1)
# After a command's end its last words may still be in the pipe; a child that it left behind may
# hold the pipe open for ever.
_LAST_WORDS_SECONDS = 0.5


async def run_command(arguments: Sequence[str], timeout: float, what: str) -> None:
    """Run a command and return when it ended with 0; `what` begins every message.

    Of what it prints the last 4 KiB are kept, however much it is. Its whole process group is ended
    after `timeout` seconds and on cancellation. Raises ServiceError when it cannot be started,
    fails or takes too long.
    """
    process = _start(arguments, what, stdout=subprocess.PIPE)
    tail = _Tail(process)
    try:
        ended = await _wait(process, timeout)
    finally:
        if process.returncode is None:
            await _end(process)
    await tail.settle()
    if not ended:
        raise ServiceError(
            f"{what}: the command {_shown(arguments)} had not ended after {timeout:.3g} s and was "
            f"killed. {tail.report()}Try it in a terminal; it must end by itself."
        )
    if process.returncode != 0:
        raise ServiceError(
            f"{what}: the command {_shown(arguments)} failed with {_status(process.returncode)}. "
            f"{tail.report()}Try it in a terminal and correct it in services.yaml."
        )


class Launched:
    """A started command, which may have ended since (systemctl) or be the server itself."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, shown: str) -> None:
        self._process = process
        self.log = log
        self.shown = shown
        # Waiting for it, in a thread of its own, is what keeps it from becoming a zombie.
        _reap(process)

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The status that it ended with; None while it runs. Negative: ended by that signal."""
        return self._process.returncode

    def tail(self) -> str:
        """Return a sentence with the end of what it printed, and where the whole stands."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = _text(file.read(TAIL_BYTES))
        except OSError:
            text = ""
        said = f"It printed at the end: {text}" if text else "It printed nothing."
        return f"{said} (log: {self.log})"

    async def wait(self, timeout: float) -> bool:
        """Return whether it ended within `timeout` seconds."""
        return await _wait(self._process, timeout)

    async def end(self) -> None:
        """End its process group: asked first, killed after a second."""
        await _end(self._process)


def launch(arguments: Sequence[str], log: Path, what: str) -> Launched:
    """Start a command whose output goes to `log`; what was there stays as NAME.1.log.

    It is not ended with ComfyUI nor by Ctrl-C in ComfyUI's terminal. Raises ServiceError when it
    cannot be started or the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        # Windows renames no file that a former server still writes to; then it is continued.
        with contextlib.suppress(OSError):
            log.replace(log.with_name(f"{log.stem}.1{log.suffix}"))
        file = log.open("ab")
    except OSError as error:
        raise ServiceError(f"{what}: its log cannot be written: {error}") from error
    with file:
        process = _start(arguments, what, stdout=file)
    return Launched(process, log, _shown(arguments))


class _Tail:
    """Reads what a command prints in a thread, so that it never waits, and keeps the end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._kept = bytearray()
        self._thread = threading.Thread(
            target=self._read, args=(process.stdout,), name="service command output", daemon=True
        )
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while piece := os.read(pipe.fileno(), 1 << 16):
                self._kept += piece
                del self._kept[:-TAIL_BYTES]

    async def settle(self) -> None:
        end = time.monotonic() + _LAST_WORDS_SECONDS
        while self._thread.is_alive() and time.monotonic() < end:
            await asyncio.sleep(_POLL_SECONDS[0])

    def report(self) -> str:
        text = _text(bytes(self._kept))
        return f"It printed at the end: {text} " if text else "It printed nothing. "


def _start(arguments: Sequence[str], what: str, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
    if sys.platform == "win32":
        # A console of its own that is not shown: closing ComfyUI's does not end it.
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        options["creationflags"] = flags
    else:
        options["start_new_session"] = True
    try:
        return subprocess.Popen(  # noqa: S603 - from the user's own configuration, without a shell
            list(arguments),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env=_environment(),
            **options,
        )
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"{what}: the command {arguments[0]!r} cannot be run ({error}). Write a program's full "
            "path as the first of the list in services.yaml; no shell looks at it."
        ) from error


def _environment() -> dict[str, str]:
    """Return this process's environment without what ComfyUI put there for itself.

    ComfyUI sets PyTorch's allocator to cudaMallocAsync (its cuda_malloc.py); a vLLM that inherits
    it has no memory pools, which its sleep mode needs.
    """
    environment = dict(os.environ)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        parts = environment.pop(name, "").split(",")
        kept = ",".join(part for part in parts if part and part != "backend:cudaMallocAsync")
        if kept:
            environment[name] = kept
    return environment


async def _wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    end = time.monotonic() + timeout
    pause, longest = _POLL_SECONDS
    while process.poll() is None:
        left = end - time.monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
    return True


async def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process group. Cancelled while it waits, it kills at once."""
    try:
        _signal(process, force=False)
        await _wait(process, GRACE_SECONDS)
    finally:
        # Also when the first of the group is gone: others of it may have stayed.
        _signal(process, force=True)
        _reap(process)


def _signal(process: subprocess.Popen[bytes], *, force: bool) -> None:
    if sys.platform == "win32":
        arguments = ["taskkill", "/T", "/PID", str(process.pid), *(["/F"] if force else [])]
        flags = subprocess.CREATE_NO_WINDOW
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(arguments, capture_output=True, timeout=5.0, creationflags=flags)  # noqa: S603
        if force:
            process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)


def _reap(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        threading.Thread(target=process.wait, name="service process", daemon=True).start()


def _shown(arguments: Sequence[str]) -> str:
    """Return a command's first word; the others may hold a key (--api-key ...)."""
    return f"{arguments[0]!r}" + (" ..." if len(arguments) > 1 else "")


def _status(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def _text(output: bytes) -> str:
    text = output.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    # Colours and other orders to a terminal.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
    return text.strip()
