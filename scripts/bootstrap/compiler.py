"""A C compiler for the tests' stand-in of NVIDIA's library, which is for Linux."""

from __future__ import annotations

import platform
import shutil

from .say import Problem, Steps
from .system import apt_install

__all__ = ["ensure_compiler"]


def ensure_compiler(steps: Steps) -> None:
    """Install gcc where there is none (Debian, as root). Raises Problem without one."""
    if platform.system() != "Linux":
        return
    if shutil.which("gcc") or (apt_install(["gcc", "libc6-dev"], steps) and shutil.which("gcc")):
        return
    raise Problem(
        "The tests compile a stand-in for NVIDIA's library, and gcc is missing. Install it "
        "(Debian, Ubuntu: `sudo apt install gcc libc6-dev`)."
    )
