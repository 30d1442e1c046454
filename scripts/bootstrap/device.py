"""What ComfyUI will compute on, and the flags that go with it."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .processes import printed_by
from .say import Problem

__all__ = ["Device", "find_device"]

# Without the two fp32 flags every forward pass on a CPU casts fp16 weights again, 20 times slower.
CPU_ARGUMENTS = ("--cpu", "--fp32-text-enc", "--fp32-unet")
GPU_SIGNS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD128")


@dataclass(frozen=True)
class Device:
    """A device by torch's name for it, ComfyUI's flags for it, and what is odd about it."""

    name: str
    arguments: tuple[str, ...]
    fault: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether there is no GPU to use."""
        return bool(self.arguments)


def find_device(python: Path) -> Device:
    """Return the device; torch is asked (3 s) only where anything points to a GPU."""
    if not _might_have_gpu():
        return Device("CPU", CPU_ARGUMENTS)
    said = printed_by([python, Path(__file__).with_name("probe_device.py")], timeout=300)
    if said is None:
        raise Problem(f"{python}: torch cannot be imported there, so ComfyUI cannot run with it.")
    found = json.loads(said.strip().splitlines()[-1])
    arguments = CPU_ARGUMENTS if found["device"] == "cpu" else ()
    return Device(found["name"], arguments, found["fault"])


def _might_have_gpu() -> bool:
    if sys.platform == "win32":
        return True
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return shutil.which("nvidia-smi") is not None or any(Path(sign).exists() for sign in GPU_SIGNS)
