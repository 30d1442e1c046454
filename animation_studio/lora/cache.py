"""Parsed LoRAs kept in memory, up to a bound in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ..errors import LoraError
from .adapter import Adapter
from .files import files_of, read_adapter

__all__ = ["AdapterCache", "CacheStats", "Stamp", "shared_cache", "stamp_of"]

Stamp = tuple[tuple[str, int, int], ...]

# Ten typical SDXL LoRAs of rank 32 to 128 (50 to 200 MB each) within a sixteenth of 32 GB.
_SHARED_BYTES = 2 << 30


@dataclass(frozen=True)
class CacheStats:
    """What a cache did since it was made (or cleared), and what it holds now."""

    hits: int
    misses: int
    evictions: int
    adapters: int
    nbytes: int
    max_bytes: int


class AdapterCache:
    """The least recently used adapters are dropped so that the kept ones fit in `max_bytes`.

    An adapter counts as the same while path, modification time and size of all its files stay. One
    that is larger than the bound by itself is read and not kept. Dropping forgets only the cache's
    own reference: a patched model keeps what it uses. Safe to use from several threads; one file is
    read at a time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Path, tuple[Stamp, Adapter]] = OrderedDict()
        self._nbytes = 0
        self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()

    def get(self, path: Path | str) -> Adapter:
        """Return the adapter at `path`, read again only when its files changed.

        Raises LoraError as `read_adapter` does.
        """
        path = Path(path)
        with self._lock:
            stamp = stamp_of(path)
            kept = self._kept.get(path)
            if kept is not None and kept[0] == stamp:
                self._kept.move_to_end(path)
                self._hits += 1
                return kept[1]
            self._forget(path)
            self._misses += 1
            adapter = read_adapter(path)
            self._keep(path, stamp, adapter)
            return adapter

    def clear(self) -> None:
        """Drop everything and start counting anew."""
        with self._lock:
            self._kept.clear()
            self._nbytes = self._hits = self._misses = self._evictions = 0

    def stats(self) -> CacheStats:
        """Return the counts since the start (or the last clear) and what is held now."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                adapters=len(self._kept),
                nbytes=self._nbytes,
                max_bytes=self._max_bytes,
            )

    def _keep(self, path: Path, stamp: Stamp, adapter: Adapter) -> None:
        if adapter.nbytes > self._max_bytes:
            return
        self._kept[path] = (stamp, adapter)
        self._nbytes += adapter.nbytes
        while self._nbytes > self._max_bytes:
            self._forget(next(iter(self._kept)))
            self._evictions += 1

    def _forget(self, path: Path) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._nbytes -= kept[1].nbytes


def stamp_of(path: Path) -> Stamp:
    """Return what changes when a file of the adapter at `path` is replaced; LoraError if gone."""
    try:
        stats = [(file, file.stat()) for file in files_of(path)]
    except OSError as error:
        raise LoraError(f"{path}: the LoRA cannot be looked up ({error.strerror}).") from error
    return tuple((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in stats)


_shared = AdapterCache(_SHARED_BYTES)


def shared_cache() -> AdapterCache:
    """Return the cache that all nodes of this process share (2 GiB)."""
    return _shared
