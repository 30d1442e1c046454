"""Say whether this interpreter meets a requirements file; run by ComfyUI's own interpreter.

    python requirements_met.py REQUIREMENTS NAME...

The first line is `met`, or `missing` with what is; then `NAME==VERSION` for each given package
that is installed, for pip to hold on to.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def _requirement_type() -> Any:  # noqa: ANN401 - one of two packages' same class
    try:
        requirements = importlib.import_module("packaging.requirements")
    except ModuleNotFoundError:
        requirements = importlib.import_module("pip._vendor.packaging.requirements")
    return requirements.Requirement


def main() -> None:
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    wanted = [line.split("#")[0].strip() for line in lines]
    requirement_type = _requirement_type()
    missing = []
    for text in filter(None, wanted):
        requirement = requirement_type(text)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(text)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(text)
    print("missing " + " ".join(missing) if missing else "met")
    for name in sys.argv[2:]:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
