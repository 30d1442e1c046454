"""One holder of the GPU among all processes of the pack that share a state folder."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GpuError

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["LOCK_FILE", "GpuLock"]

LOCK_FILE = "gpu.lock"
_ADVICE = "Set gpu.state_folder in services.yaml to a folder on a local disk that you may write to."


class GpuLock:
    """A lock on the file gpu.lock of `folder`, safe to use from any thread.

    The operating system gives it back when the process ends, however it ends. Programs started
    while it is held do not inherit it. The file stays when the lock is released.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._guard = threading.Lock()
        self._lock: BaseFileLock | None = None
        self._pid = 0

    @property
    def path(self) -> Path:
        """The file that is locked."""
        return self._path

    @property
    def held(self) -> bool:
        """Whether this object holds the lock; never true in a fork of the process that took it."""
        return self._lock is not None and self._pid == os.getpid()

    def try_acquire(self) -> bool:
        """Take the lock without waiting; True also where it is ours already.

        False means that another process (or another GpuLock of this one) has it. Raises GpuError
        when the folder cannot be made or written, or its file system has no locks.
        """
        with self._guard:
            if self.held:
                return True
            self._lock = self._locked()
            self._pid = os.getpid()
            return self._lock is not None

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held. Never raises."""
        with self._guard:
            lock, self._lock = self._lock, None
            if lock is not None and self._pid == os.getpid():
                # Closing the file frees the lock even where unlocking it failed.
                with contextlib.suppress(OSError):
                    lock.release(force=True)

    def _locked(self) -> BaseFileLock | None:
        # Imported here: filelock brings asyncio and costs more than the rest of this room.
        from filelock import FileLock, SoftFileLock, Timeout

        # Not by thread: leases begin on the arbiter's thread and may end on another.
        lock = FileLock(self._path, thread_local=False)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except NotImplementedError as error:  # what filelock before 3.24 makes of ENOSYS
            raise self._unusable(str(error)) from error
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if isinstance(lock, SoftFileLock):
            # What later versions do on ENOSYS: a file that stays when its process is killed.
            lock.release(force=True)
            raise self._unusable("this file system has no locks")
        return lock

    def _unusable(self, why: str) -> GpuError:
        return GpuError(f"The GPU's lock {self._path} cannot be used: {why}. {_ADVICE}")
