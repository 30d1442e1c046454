"""Debian's package manager, where we are root and may use it."""

from __future__ import annotations

import os
import shutil
import subprocess

from .processes import clean_environment
from .say import Steps

__all__ = ["apt_install"]


def apt_install(packages: list[str], steps: Steps) -> bool:
    """Install Debian packages when this is Debian and we are root; say whether it worked."""
    apt = shutil.which("apt-get")
    if apt is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    steps.note(f"apt-get install {' '.join(packages)}")
    environment = clean_environment(DEBIAN_FRONTEND="noninteractive")
    for command in (
        [apt, "update", "-q"],
        [apt, "install", "-q", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
        if done.returncode != 0 and command[1] == "install":
            return False
    return True
