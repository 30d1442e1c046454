"""Whether the packages of an environment are whole, by the RECORD that pip keeps of each.

The RECORD format is that of PyPA's "Recording installed projects": path, hash, size per file.
"""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

__all__ = ["damaged_packages", "forget_packages", "package_names"]


def package_names(site_packages: Path) -> list[str]:
    """Return the names of the .dist-info folders: package and version of all that is installed."""
    return sorted(info.name for info in site_packages.glob("*.dist-info"))


def damaged_packages(site_packages: Path) -> dict[str, str]:
    """Return {folder name of the .dist-info: what is wrong} for packages that are not whole.

    Existence and size of each file are looked at (0.2 s for 30,000 files), compiled files aside.
    """
    damaged = {}
    for info in sorted(site_packages.glob("*.dist-info")):
        fault = _fault_of(site_packages, info)
        if fault:
            damaged[info.name] = fault
    return damaged


def _fault_of(site_packages: Path, info: Path) -> str | None:
    try:
        with (info / "RECORD").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return "RECORD is missing or unreadable"
    if not (info / "METADATA").is_file():
        return "METADATA is missing"
    for row in rows:
        if len(row) != 3:
            return "RECORD is damaged"
        name, _, size = row
        if name.endswith(".pyc"):
            continue
        try:
            found = os.stat(os.path.join(site_packages, name)).st_size  # noqa: PTH116, PTH118 - 30,000 of them
        except OSError:
            return f"{name} is missing"
        if size and found != int(size):
            return f"{name} has {found} bytes in place of {size}"
    return None


def forget_packages(site_packages: Path, infos: list[str]) -> None:
    """Make pip believe that these are not installed, so that it installs them anew."""
    for info in infos:
        shutil.rmtree(site_packages / info, ignore_errors=True)
