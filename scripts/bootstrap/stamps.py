"""Stamps: a small JSON file in a prepared folder that says what it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "differences",
    "digest_of_file",
    "digest_of_text",
    "read_stamp",
    "remove_stamp",
    "write_stamp",
]

NAME = ".animation-studio.json"


def read_stamp(folder: Path) -> dict[str, Any]:
    """Return the stamp of a folder; an empty one when there is none or it is damaged."""
    try:
        stamp = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Write a folder's stamp, whole or not at all."""
    text = json.dumps(stamp, indent=1, sort_keys=True) + "\n"
    handle, name = tempfile.mkstemp(dir=folder, prefix=NAME, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(folder / NAME)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def remove_stamp(folder: Path) -> None:
    """Remove a folder's stamp before the folder is changed."""
    (folder / NAME).unlink(missing_ok=True)


def differences(stamp: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the inputs that are not what the stamp says they were."""
    return sorted(name for name, value in inputs.items() if stamp.get(name) != value)


def digest_of_text(text: str) -> str:
    """Return the SHA-256 of a text, whatever its line ends."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
