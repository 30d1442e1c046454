"""Server-sent events, as they come over the wire (WHATWG HTML, 9.2.6).

parser = SseParser()
for piece in body: events = parser.feed(piece)
events = parser.end()
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["EVENT_LIMIT", "SseError", "SseEvent", "SseParser"]

# Bytes of one line, and of one event: an answer that a server sends whole.
EVENT_LIMIT = 1 << 20
_LINE_END = re.compile(rb"[\r\n]")
_LF, _CR = 10, 13
_BOM = b"\xef\xbb\xbf"
_FIELDS = ("data", "event", "id", "retry")


class SseError(ValueError):
    """A line or an event that is longer than any that a server sends."""


@dataclass(frozen=True)
class SseEvent:
    """One event. `name` is "" where it has none."""

    data: str
    name: str = ""


class SseParser:
    """Turns bytes, however they are cut, into events.

    Lines may end in LF, CR LF or CR. `spoken` says whether anything came that these events are made
    of, so far: a body of another kind has none of it.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self.spoken = False
        self._limit = limit
        self._buffer = bytearray()
        self._seen = 0
        self._after_cr = False
        self._first = True
        self._data: list[str] = []
        self._size = 0
        self._name = ""

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Return the events that end in this piece. Raises SseError."""
        self._buffer += piece
        events = []
        while (line := self._line()) is not None:
            if line:
                self._field(line)
            elif (event := self._event()) is not None:
                events.append(event)
        return events

    def end(self) -> list[SseEvent]:
        """Return the event that the end of the body ends; servers forget the last empty line."""
        events = self.feed(b"\n")
        last = self._event()
        return events if last is None else [*events, last]

    def _line(self) -> bytes | None:
        if self._after_cr and self._buffer:
            if self._buffer[0] == _LF:
                del self._buffer[:1]
            self._after_cr = False
        end = _LINE_END.search(self._buffer, self._seen)
        length = len(self._buffer) if end is None else end.start()
        if length > self._limit:
            raise SseError(f"a line of more than {self._limit:,} bytes")
        if end is None:
            self._seen = length
            return None
        line = bytes(self._buffer[:length])
        self._after_cr = self._buffer[length] == _CR
        del self._buffer[: length + 1]
        self._seen = 0
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        return line

    def _field(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        self.spoken = self.spoken or name in _FIELDS
        if name == "data":
            self._size += len(line)
            if self._size > self._limit:
                raise SseError(f"an event of more than {self._limit:,} bytes")
            self._data.append(value)
        elif name == "event":
            self._name = value

    def _event(self) -> SseEvent | None:
        """Return what the lines so far are; lines without data are no event."""
        event = SseEvent("\n".join(self._data), self._name) if self._data else None
        self._data, self._size, self._name = [], 0, ""
        return event
