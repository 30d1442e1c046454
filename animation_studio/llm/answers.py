"""What was asked before: answers on disk, so that the same question asks nothing again.

An entry is one JSON document, named by the SHA-256 of everything that decides the answer. A file
that is damaged, or not what it says it is, counts as never written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StudioError
from ..files import read_limited, write_atomically

__all__ = ["Answers", "digest_of"]

# About 4 MB; the oldest go first.
LIMIT = 1000
_MAX_BYTES = 1 << 20
_FORMAT = "animation_studio/answer/1"


def digest_of(*parts: object) -> str:
    """Return 64 hexadecimal digits for parts that JSON can hold, in their order."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Answers:
    """A folder of answers, DIGEST.json; at most `limit`, the ones written longest ago go first.

    Safe for several threads and processes: every file appears whole or not at all.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit

    def get(self, digest: str) -> dict[str, Any] | None:
        """Return what was answered, None where it is not known."""
        try:
            data = json.loads(read_limited(self._file(digest), _MAX_BYTES, "answer"))
        except (OSError, StudioError, ValueError, RecursionError):
            return None
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            return None
        answer = data.get("answer")
        return answer if isinstance(answer, dict) and data.get("digest") == digest else None

    def put(self, digest: str, answer: Mapping[str, Any]) -> str:
        """Keep an answer; return why it could not be kept, "" when it was."""
        document = {"format": _FORMAT, "digest": digest, "answer": answer}
        try:
            write_atomically(self._file(digest), json.dumps(document).encode())
            self._forget_oldest()
        except OSError as error:
            return f"{self._folder} cannot be written ({error.strerror or error})"
        return ""

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"

    def _forget_oldest(self) -> None:
        files = list(self._folder.glob("*.json"))
        if len(files) <= self._limit:
            return
        stamped = []
        for file in files:
            with contextlib.suppress(OSError):  # another process forgot it first
                stamped.append((file.stat().st_mtime_ns, file))
        for _, file in sorted(stamped)[: len(stamped) - self._limit]:
            with contextlib.suppress(OSError):
                file.unlink()
