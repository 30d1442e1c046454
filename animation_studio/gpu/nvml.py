"""The meter by NVML: the module pynvml of the package nvidia-ml-py, or of the older pynvml.

Names and codes are those of nvml.h, see https://docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeVar

from .meter import DeviceMemory, ProcessMemory
from .process import process_name

__all__ = ["NvmlMeter"]

# NVML_VALUE_NOT_AVAILABLE as 64 bits: what WSL2 and WDDM say of a process.
_NOT_AVAILABLE = (1 << 64) - 1
# More than this that neither a listed process nor the driver holds belongs to somebody unseen.
_UNSEEN = 512 << 20

_INSTALL = (
    "The package nvidia-ml-py is not installed, so the GPU's memory cannot be read. Install it "
    "into ComfyUI's Python: pip install nvidia-ml-py"
)
_NOT_NVIDIAS = (
    "The module pynvml in {place} is not NVIDIA's, so the GPU's memory cannot be read. In "
    "ComfyUI's Python: pip uninstall pynvml, then pip install --force-reinstall nvidia-ml-py"
)
_UNREADABLE = "The GPU's memory cannot be read: {why}."
_NO_GPU = "the NVIDIA driver knows no GPU on this machine"
_UNTOLD = "the NVIDIA driver does not tell how much its GPU has or uses (N/A)"
# By nvmlReturn_t.
_UNINITIALIZED, _LOST, _RESET = 1, 15, 16
_REASONS = {
    4: "this user may not ask the NVIDIA driver. In a container, give it the GPU",
    9: "the NVIDIA driver is not loaded. Install it, or restart the machine (WSL2: wsl --shutdown)",
    12: "NVIDIA's library NVML (libnvidia-ml.so.1 or nvml.dll) is not on this machine. It comes "
    "with the NVIDIA driver; a container needs the driver capability utility",
    _LOST: "the GPU does not answer any more (GPU is lost). Restart the machine",
    _RESET: "the GPU must be reset. Restart the machine",
    18: "the NVIDIA driver was updated while its old version runs. Restart the machine",
}
# After these, NVML is begun anew: the driver went, was replaced or restarted, or somebody else in
# this process ended NVML once too often. A lost GPU says nothing about others.
_BEGIN_ANEW = {_UNINITIALIZED, 9, 17, 18, 999}
_T = TypeVar("_T")


class NvmlMeter:
    """A Meter, safe from any thread. It costs nothing until the first question begins NVML.

    After a failure NVML is begun anew, at most every `retry_seconds`. A GPU that is cut into MIG
    instances reads as a whole where the driver allows that; all instances follow, with the
    indexes after the last GPU's.
    """

    def __init__(self, retry_seconds: float = 5.0) -> None:
        self._retry_seconds = retry_seconds
        self._guard = threading.Lock()
        self._driver: _Driver | None = None
        self._next_try = 0.0
        self._problem = ""
        self._refusal = ""

    @property
    def problem(self) -> str:
        """Why nothing can be read, as a sentence with what to do; empty where it can."""
        self.devices()
        return self._problem

    def devices(self) -> list[DeviceMemory]:
        """Return every GPU that can be read; empty with a `problem`, never an exception."""
        count = self._ask(lambda driver: driver.count())
        indexes = range((count or 0) + (self._ask(lambda driver: driver.instance_count()) or 0))
        found = [device for device in map(self.read, indexes) if device is not None]
        driver = self._driver
        if found:
            self._problem = ""
        elif driver is not None:
            why = _NO_GPU if count == 0 else self._refusal or _UNTOLD
            # Begun anew later: after a reset, say, NVML goes on telling that the GPU is lost.
            self._end(driver, _UNREADABLE.format(why=why), again_at_once=False)
        return found

    def read(self, index: int) -> DeviceMemory | None:
        """Return one GPU's memory; None where it cannot be read or the driver says N/A."""
        return self._ask(lambda driver: driver.memory(index))

    def processes(self, index: int) -> list[ProcessMemory] | None:
        """Return who holds memory on a GPU, the largest first; None where that is unknown.

        Unknown, too, is a list without anybody while somebody's memory is used: under WSL2, and
        of processes outside of a container.
        """
        return self._ask(lambda driver: driver.processes(index))

    def _ask(self, question: Callable[[_Driver], _T]) -> _T | None:
        for _ in range(2):
            driver = self._begun()
            if driver is None:
                return None
            try:
                answer = question(driver)
            except driver.errors as error:
                code = getattr(error, "value", None)
                self._refusal = _reason(error)
                if code not in _BEGIN_ANEW:
                    return None
                self._end(driver, _UNREADABLE.format(why=self._refusal), code == _UNINITIALIZED)
            else:
                self._refusal = ""
                return answer
        return None

    def _begun(self) -> _Driver | None:
        with self._guard:
            if self._driver is None and time.monotonic() >= self._next_try:
                self._next_try = time.monotonic() + self._retry_seconds
                self._driver, self._problem = _begin()
            return self._driver

    def _end(self, driver: _Driver, problem: str, again_at_once: bool) -> None:
        with self._guard:
            if self._driver is driver:
                self._driver, self._problem = None, problem
                self._next_try = time.monotonic() + (0 if again_at_once else self._retry_seconds)
                driver.end()


def _begin() -> tuple[_Driver | None, str]:
    """Return NVML, begun; or None, and why not."""
    try:
        import pynvml
    except ImportError:
        return None, _INSTALL
    if not hasattr(pynvml, "nvmlInit") or not hasattr(pynvml, "NVMLError"):
        return None, _NOT_NVIDIAS.format(place=getattr(pynvml, "__file__", None) or "this Python")
    driver = _Driver(pynvml)
    try:
        pynvml.nvmlInit()
    except driver.errors as error:
        return None, _UNREADABLE.format(why=_reason(error))
    return driver, ""


def _reason(error: BaseException) -> str:
    code = getattr(error, "value", None)
    said = str(error) or type(error).__name__
    return _REASONS.get(code if isinstance(code, int) else 0, f"NVML says {said!r}".rstrip("."))


class _Driver:
    """NVML after nvmlInit. Its methods raise `errors`."""

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        # Of a pynvml older or newer than the driver also functions are missing; names of GPUs
        # have been seen that are no UTF-8.
        mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        self.errors: tuple[type[BaseException], ...] = (
            nvml.NVMLError,
            mismatch,
            AttributeError,
            OSError,
            UnicodeDecodeError,
        )

    def end(self) -> None:
        with contextlib.suppress(*self.errors):
            self._nvml.nvmlShutdown()

    def count(self) -> int:
        return int(self._nvml.nvmlDeviceGetCount())

    def instance_count(self) -> int:
        return len(list(self._instances()))

    def memory(self, index: int) -> DeviceMemory | None:
        handle = self._handle(index)
        if handle is None:
            return None
        # Version 1 of the struct: `used` includes what driver and firmware reserve, so that used
        # and free make up the total (nvmlMemory_t). Version 2 takes the reserved part out of
        # `used`; `free`, what can be allocated, is the same in both.
        info = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        total, used, free = map(_known, (info.total, info.used, info.free))
        if not total or (used is None and free is None):
            return None
        if free is None:
            free = max(0, total - (used or 0))
        return DeviceMemory(
            index=index,
            uuid=self._uuid(handle),
            name=self._text("nvmlDeviceGetName", handle) or f"GPU {index}",
            total=total,
            used=total - free if used is None else used,
            free=free,
        )

    def processes(self, index: int) -> list[ProcessMemory] | None:
        handle = self._handle(index)
        if handle is None:
            return None
        held: dict[int, int | None] = {}
        lists = 0
        for kind in ("Compute", "Graphics"):
            with contextlib.suppress(*self.errors):
                for entry in getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses")(handle):
                    # A process that computes and draws stands in both lists, with all it holds.
                    known = [held.get(entry.pid), _known(entry.usedGpuMemory)]
                    held[entry.pid] = max((n for n in known if n is not None), default=None)
                lists += 1
        # A pynvml whose struct is not the driver's (12.535.77) takes other fields for numbers.
        scrambled = any(not 0 < pid < 1 << 31 for pid in held)
        if scrambled or not lists or (not held and self._unseen(handle)):
            return None
        listed = [ProcessMemory(pid, process_name(pid), used) for pid, used in held.items()]
        return sorted(listed, key=lambda process: (-(process.used or -1), process.pid))

    def _unseen(self, handle: object) -> bool:
        """Return whether much more is used than the driver reserves for itself."""
        with contextlib.suppress(*self.errors):
            info = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            total, free = _known(info.total), _known(info.free)
            reserved: int | None = 0
            with contextlib.suppress(*self.errors, TypeError):  # version 2 is not in old pynvml
                version = self._nvml.nvmlMemory_v2
                second = self._nvml.nvmlDeviceGetMemoryInfo(handle, version=version)
                reserved = _known(second.reserved)
            if total is not None and free is not None:
                return total - free - (reserved or 0) > _UNSEEN
        return True

    def _handle(self, index: int) -> object | None:
        """Return the handle of a GPU or, by the indexes after these, of a MIG instance."""
        count = self.count()
        if 0 <= index < count:
            handle: object = self._nvml.nvmlDeviceGetHandleByIndex(index)
            return handle
        return dict(enumerate(self._instances(), count)).get(index)

    def _instances(self) -> Iterator[object]:
        for index in range(self.count()):
            # A GPU without MIG answers "not supported".
            with contextlib.suppress(*self.errors):
                gpu = self._nvml.nvmlDeviceGetHandleByIndex(index)
                if not self._nvml.nvmlDeviceGetMigMode(gpu)[0]:
                    continue
                for number in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
                    with contextlib.suppress(*self.errors):  # numbers without an instance
                        yield self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)

    def _uuid(self, handle: object) -> str:
        text = self._text("nvmlDeviceGetUUID", handle)
        return text if not text or text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"

    def _text(self, function: str, handle: object) -> str:
        with contextlib.suppress(*self.errors):
            value = getattr(self._nvml, function)(handle)
            # Old versions return bytes.
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        return ""


def _known(value: int | None) -> int | None:
    return None if value is None or value == _NOT_AVAILABLE else int(value)
