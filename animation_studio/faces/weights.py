"""Files of weights: whether one is still the same, and the hash that names it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ..errors import FaceError
from ..files import known_sha256

__all__ = ["WeightsStamp", "hash_of_weights", "stamp_of_weights"]

# Path, modification time in nanoseconds, size in bytes.
WeightsStamp: TypeAlias = tuple[str, int, int]


def stamp_of_weights(path: Path) -> WeightsStamp:
    """Return what changes when the file is replaced. Raises FaceError when it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return str(path), status.st_mtime_ns, status.st_size


def hash_of_weights(path: Path) -> str:
    """Return the SHA-256 of a file, read again only when its stamp changed.

    Raises FaceError when it cannot be read.
    """
    try:
        return known_sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FaceError:
    return FaceError(
        f"{path}: these weights cannot be read ({error.strerror}). Install them again."
    )
