"""A scripted GPU behind a stand-in for libnvidia-ml.so.1, which the product's own meter reads.

`build` compiles the library. It takes effect in this process after `load`, and in a program that is
started with `ScriptedGpu.environment`. The figures can change at any time, while others read.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml" / "standin_nvml.c"
LIBRARY = "libnvidia-ml.so.1"
VARIABLE = "STANDIN_NVML_FILE"
GIB = 1 << 30

# Codes of nvml.h.
UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 1, 3, 4, 9
TIMEOUT, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST = 10, 12, 13, 15
LIB_RM_VERSION_MISMATCH, UNKNOWN = 18, 999


def build(folder: Path) -> Path:
    """Compile the library into `folder` and return its path."""
    assert shutil.which("gcc"), (
        "no gcc: scripts/test installs one, or apt-get install gcc libc6-dev"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LIBRARY
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["gcc", *options, "-o", path, SOURCE], check=True)
    return path


def load(library: Path) -> None:
    """Make pynvml find this library in this process: one of its name is loaded already."""
    ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_GLOBAL)


def _word(value: int | None) -> str:
    return "na" if value is None else str(value)


class ScriptedGpu:
    """The file that the library reads: one GPU, figures in bytes, None for what is not told.

    `free` is the rest of `total` where it is not given.
    """

    def __init__(self, file: Path, *, total: int | None = 16 * GIB, used: int | None = 0) -> None:
        self.file = file
        self.index = 0
        self.uuid = "GPU-5d0b5a7e-0000-4000-8000-000000000000"
        self.name = "NVIDIA GeForce RTX 5080"
        self.total, self.used, self.reserved = total, used, 0
        self._free: int | str | None = ""
        self._processes: list[str] = []
        self._faults: dict[str, str] = {}
        self._lines: list[str] = []
        self.write()

    @property
    def free(self) -> int | None:
        """Bytes that are free."""
        if isinstance(self._free, str):
            known = self.total is not None and self.used is not None
            return max(0, self.total - self.used) if known else None
        return self._free

    def set(self, **figures: object) -> None:
        """Change some of total, used, free, reserved, uuid, name and index."""
        for key, value in figures.items():
            assert hasattr(self, key), key
            setattr(self, "_free" if key == "free" else key, value)
        self.write()

    def add(self, size: int) -> None:
        """Let `size` bytes more be used; less where it is negative."""
        self.set(used=self.used + size)

    def set_processes(self, processes: Iterable[Sequence[object]]) -> None:
        """Set who holds memory: (pid, used) or (pid, used, "graphics"), `used` None for N/A."""
        self._processes = []
        for pid, used, *kind in processes:
            word = kind[0] if kind else "compute"
            self._processes.append(f"process {self.index} {word} {pid} {_word(used)}")
        self.write()

    def fail(self, code: int, function: str = "") -> None:
        """Let every call, or those whose name begins so, answer this code; 0 ends it."""
        line = f"fail {function} {code}" if function else f"error {code}"
        self._faults[function] = line if code else ""
        self.write()

    def delay(self, seconds: float) -> None:
        """Let every call take this long."""
        self._faults["delay"] = f"delay {int(seconds * 1000)}"
        self.write()

    def add_lines(self, *lines: str) -> None:
        """Add lines as standin_nvml.c describes them: further devices, MIG instances."""
        self._lines += lines
        self.write()

    def remove(self) -> None:
        """Take the driver away; any change brings it back."""
        self.file.unlink(missing_ok=True)

    def write(self) -> None:
        """Write the file; a reader sees the old or the new one, whole."""
        figures = [self.total, self.used, self.free, self.reserved]
        device = " ".join(["device", str(self.index), self.uuid, *map(_word, figures), self.name])
        lines = [device, *self._processes, *filter(None, self._faults.values()), *self._lines]
        part = self.file.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(self.file)

    def environment(self, library: Path) -> dict[str, str]:
        """Return what a program's environment needs to see this GPU."""
        folders = [str(library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {VARIABLE: str(self.file), "LD_LIBRARY_PATH": ":".join(filter(None, folders))}
