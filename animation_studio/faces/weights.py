"""Files of weights: whether one is still the same, and the hash that names it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from ..errors import FaceError
from ..files import sha256_of

__all__ = ["WeightsStamp", "hash_of_weights", "stamp_of_weights"]

# Path, modification time in nanoseconds, size in bytes.
WeightsStamp: TypeAlias = tuple[str, int, int]


def stamp_of_weights(path: Path) -> WeightsStamp:
    """Return what changes when the file is replaced. Raises FaceError when it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        raise FaceError(
            f"{path}: these weights cannot be read ({error.strerror}). Install them again."
        ) from error
    return str(path), status.st_mtime_ns, status.st_size


def hash_of_weights(path: Path) -> str:
    """Return the SHA-256 of a file, read again only when its stamp changed.

    Raises FaceError when it cannot be read.
    """
    return _hash(stamp_of_weights(path))


@lru_cache(maxsize=32)
def _hash(stamp: WeightsStamp) -> str:
    try:
        return sha256_of(Path(stamp[0]))
    except OSError as error:
        raise FaceError(
            f"{stamp[0]}: these weights cannot be read ({error.strerror}). Install them again."
        ) from error
