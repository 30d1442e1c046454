"""Say whether this interpreter meets a requirements file; run by ComfyUI's own interpreter.

    python requirements_met.py REQUIREMENTS NAME...

First `met`, or a line `missing REQUIREMENT` for each that is; then `NAME==VERSION` for each given
package that is installed, for pip to hold on to. A requirement of another system or Python than
this one is not missing.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]

# The same files under another name: a dlib that somebody compiled is not written over.
SAME_FILES = {"dlib-bin": "dlib"}


def _requirement_type() -> Any:  # noqa: ANN401 - one of two packages' same class
    try:
        requirements = importlib.import_module("packaging.requirements")
    except ModuleNotFoundError:
        requirements = importlib.import_module("pip._vendor.packaging.requirements")
    return requirements.Requirement


def _is_missing(requirement: Any) -> bool:  # noqa: ANN401 - as above
    if requirement.marker is not None and not requirement.marker.evaluate():
        return False
    if _version_of(SAME_FILES.get(requirement.name)):
        return False
    version = _version_of(requirement.name)
    return version is None or not requirement.specifier.contains(version, prereleases=True)


def _version_of(name: str | None) -> str | None:
    try:
        return metadata.version(name) if name else None
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    wanted = [line.split("#")[0].strip() for line in lines]
    requirement_type = _requirement_type()
    missing = [text for text in filter(None, wanted) if _is_missing(requirement_type(text))]
    print("\n".join(f"missing {text.split(';')[0].strip()}" for text in missing) or "met")
    for name in sys.argv[2:]:
        version = _version_of(name)
        if version is not None:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
