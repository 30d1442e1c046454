"""One holder of the GPU among all processes of the pack that share a state folder."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from pathlib import Path

from ..errors import GpuError

# Not the package filelock: before 3.24 it takes "this file system has no locks" for "somebody else
# has it", before 4 a fork gives its parent's lock back, and torch is content with any version.
if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_FILE", "GpuLock"]

LOCK_FILE = "gpu.lock"


class GpuLock:
    """A lock on the file gpu.lock of `folder`, safe to use from any thread.

    The operating system gives it back when the process ends, however it ends. Programs and forks
    started while it is held do not have it. The file stays when the lock is released.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._guard = threading.Lock()
        self._file: int | None = None
        _all.add(self)

    def __del__(self) -> None:
        self._close()

    @property
    def path(self) -> Path:
        """The file that is locked."""
        return self._path

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def try_acquire(self) -> bool:
        """Take the lock without waiting; True also where it is ours already.

        False means that another process (or another GpuLock of this one) has it. Raises GpuError
        when the folder cannot be made or written, or its file system has no locks.
        """
        with self._guard:
            if self._file is None:
                try:
                    self._file = self._locked()
                except OSError as error:
                    raise GpuError(
                        f"The GPU's lock {self._path} cannot be used: {error.strerror or error}. "
                        "Set gpu.state_folder in services.yaml to a folder on a local disk that "
                        "you may write to."
                    ) from error
            return self._file is not None

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held. Never raises."""
        with self._guard:
            if self._file is not None:
                # Closing alone would leave it with a child that is between fork and exec.
                with contextlib.suppress(OSError):
                    _unlock(self._file)
                self._close()

    def _locked(self) -> int | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(file)
        except OSError:
            os.close(file)
            raise
        if not locked:
            os.close(file)
            return None
        return file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _forget_after_fork(self) -> None:
        # Closing leaves the lock with the parent, whose file it is too; unlocking would not. The
        # guard may have been taken, at the fork, by a thread that is not here.
        self._guard = threading.Lock()
        self._close()


_all: weakref.WeakSet[GpuLock] = weakref.WeakSet()


def _forget_all_after_fork() -> None:
    for lock in list(_all):
        lock._forget_after_fork()


if sys.platform == "win32":

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # byte 0, which need not exist
        except PermissionError:
            return False
        return True

    def _unlock(file: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    os.register_at_fork(after_in_child=_forget_all_after_fork)

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
