"""Small rules for files: written whole or not at all, read only up to a size, named by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

from .errors import StudioError

__all__ = ["file_stamp", "known_sha256", "read_limited", "sha256_of", "write_atomically"]

_CHUNK = 1 << 20
# Asking for it means setting it, for the whole process: once, before there are threads.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to disk and renamed over
    `path`. Parent folders are made. On any failure (full disk, interruption) the temporary file is
    removed and `path` is as it was. Raises OSError as the file system does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give the mode a plain open() would have given. Windows
        # drives under WSL2 without metadata refuse any chmod, and need none.
        with contextlib.suppress(OSError):
            temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_limited(path: Path, limit: int, what: str) -> bytes:
    """Return the bytes of `path`, refusing more than `limit` bytes before reading them.

    `what` names the kind of file in the message ("configuration file"). Raises StudioError when
    the file is larger or is none (a folder, a pipe that would be waited for), and OSError as the
    file system does.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise StudioError(f"{path}: a {what} should be here, and this is not a file.")
    with path.open("rb") as file:
        # One more than allowed, since the file may have grown since.
        data = file.read(limit + 1) if info.st_size <= limit else b""
    size = max(info.st_size, len(data))
    if size > limit:
        raise StudioError(
            f"{path}: this {what} has {size:,} bytes; at most {limit:,} are read. "
            "Check that it is the file you meant."
        )
    return data


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """Return `sha256_of(path)`, read again only when the file's time or size is another."""
    info = path.stat()
    return _sha256_of_stamp(path, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=1024)
def _sha256_of_stamp(path: Path, mtime_ns: int, size: int) -> str:
    return sha256_of(path)


def file_stamp(path: Path) -> str:
    """Return what changes when the file at `path` comes, goes or is replaced."""
    try:
        info = path.stat()
    except OSError:
        return f"{path} -"
    return f"{path} {info.st_size} {info.st_mtime_ns}"
