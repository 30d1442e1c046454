"""What is paused and who holds the GPU, in a file: what a crash leaves for the next start."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..errors import GpuError, StudioError
from ..files import read_limited, write_atomically
from .process import started_at

__all__ = ["JOURNAL_FILE", "Holder", "Journal", "JournalState", "Pause", "alive"]

JOURNAL_FILE = "gpu_journal.json"
_FORMAT = "animation_studio/gpu_journal/"
_VERSION = 1
_LIMIT = 1 << 20
_DAMAGED_KEPT = 3
# Windows refuses to replace, or to open, a file that another process has open just now.
_TRIES, _BETWEEN = 5, 0.02
_logger = logging.getLogger("animation_studio")
_T = TypeVar("_T")


class _Model(BaseModel):
    # What a later version adds is left out when an older one writes.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Holder(_Model):
    """Who has the GPU: a prompt's id or an action, and what for.

    `started` is `process.started_at(pid)`: it tells the process from a later one of its number.
    """

    pid: int
    started: float
    holder: str
    purpose: str
    since: AwareDatetime

    @classmethod
    def of_this_process(cls, holder: str, purpose: str) -> Holder:
        """Return this process as holder, from now on."""
        pid = os.getpid()
        now = datetime.now(timezone.utc)
        started = started_at(pid) or 0.0
        return cls(pid=pid, started=started, holder=holder, purpose=purpose, since=now)


class Pause(_Model):
    """A service that was put to sleep or stopped and must come back.

    `pid` and `started` are the process's that paused it, as a Holder's. `level` is 0 for a stop.
    `freed` is what it gave, in bytes; 0 where that is not known. `note` says why the last resume
    failed; empty where none did.
    """

    service: str
    how: Literal["sleep", "stop"]
    level: int = Field(ge=0, le=2)
    phase: Literal["pausing", "paused", "resuming"]
    until: Literal["prompt_end", "next_guard"]
    freed: int
    since: AwareDatetime
    pid: int
    started: float = 0.0
    holder: str
    note: str = ""


class JournalState(_Model):
    """What the journal says; `paused` in the order of pausing, each service once."""

    format: Literal["animation_studio/gpu_journal/1"] = "animation_studio/gpu_journal/1"
    holder: Holder | None = None
    paused: list[Pause] = []


def alive(holder: Holder | Pause) -> bool:
    """Return whether the process that wrote it still runs; True where that cannot be found out.

    Processes of another container or machine are not seen and count as ended: who really has the
    GPU is the lock's to say.
    """
    now = started_at(holder.pid)
    if now is None:
        return False
    return 0.0 in (now, holder.started) or abs(now - holder.started) < 0.05


class Journal:
    """The file gpu_journal.json in `folder`. Whoever writes holds the GpuLock of that folder.

    Reading needs no lock and changes nothing. A damaged file reads as empty, with a `problem`; the
    next write moves it to gpu_journal.damaged-1.json (at most three are kept, the oldest goes). A
    file of a later version of the pack reads as empty too, and is neither moved nor written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self._guard = threading.Lock()
        self._wrong = ""
        self._moved = ""

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._path

    @property
    def problem(self) -> str:
        """What was wrong when the file was last read, or with the file that was moved aside."""
        return self._wrong or self._moved

    def read(self) -> JournalState:
        """Return what the file says: empty where there is none, or where there is a `problem`.

        Raises GpuError when the file cannot be read; never for what is in it.
        """
        return self._read().state

    def set_holder(self, holder: Holder | None) -> None:
        """Say who has the GPU; None for nobody. Raises GpuError as `put` does."""
        with self._guard:
            self._write(self._for_writing().model_copy(update={"holder": holder}))

    def put(self, pause: Pause) -> None:
        """Add a pause, or replace the one of the same service.

        Raises GpuError when the file cannot be written, or is of a later version.
        """
        with self._guard:
            state = self._for_writing()
            paused = {known.service: known for known in state.paused} | {pause.service: pause}
            self._write(state.model_copy(update={"paused": list(paused.values())}))

    def remove(self, service: str) -> None:
        """Take out the pause of a service, where there is one. Raises GpuError as `put` does."""
        with self._guard:
            state = self._for_writing()
            left = [pause for pause in state.paused if pause.service != service]
            self._write(state.model_copy(update={"paused": left}))

    def _read(self) -> _Reading:
        try:
            data = _patiently(lambda: read_limited(self._path, _LIMIT, "journal of the GPU"))
        except FileNotFoundError:
            reading = _Reading(JournalState())
        except OSError as error:
            raise self._unusable("read", error) from error
        except StudioError as error:
            reading = _Reading(JournalState(), "damaged", str(error))
        else:
            reading = _parsed(data, self._path)
        if reading.problem and reading.problem != self._wrong:
            _logger.warning("%s", reading.problem)
        self._wrong = reading.problem
        return reading

    def _for_writing(self) -> JournalState:
        reading = self._read()
        if reading.wrong == "newer":
            raise GpuError(reading.problem)
        if reading.wrong == "damaged":
            self._move_aside(reading.problem)
        return reading.state

    def _move_aside(self, problem: str) -> None:
        names = [f"{self._path.stem}.damaged-{n}.json" for n in range(1, _DAMAGED_KEPT + 1)]
        places = [self._path.with_name(name) for name in names]
        free = [place for place in places if not os.path.lexists(place)]
        try:
            place = free[0] if free else min(places, key=lambda place: place.lstat().st_mtime)
            self._path.replace(place)
        except OSError as error:
            raise self._unusable("moved aside", error) from error
        self._moved = f"{problem} It is now {place.name}."
        self._wrong = ""
        _logger.warning("%s was moved to %s", self._path, place.name)

    def _write(self, state: JournalState) -> None:
        data = state.model_dump_json(indent=1).encode() + b"\n"
        try:
            _patiently(lambda: write_atomically(self._path, data))
        except OSError as error:
            raise self._unusable("written", error) from error

    def _unusable(self, done: str, error: OSError) -> GpuError:
        return GpuError(
            f"The GPU's journal {self._path} cannot be {done}: {error.strerror or error}. Set "
            "gpu.state_folder in services.yaml to a folder on a local disk that you may write to."
        )


@dataclass(frozen=True)
class _Reading:
    state: JournalState
    wrong: Literal["", "damaged", "newer"] = ""
    problem: str = ""


def _parsed(data: bytes, path: Path) -> _Reading:
    try:
        content = json.loads(data)
        version = content.get("format") if isinstance(content, dict) else None
        if _is_newer(version):
            return _Reading(
                JournalState(),
                "newer",
                f"{path}: a later version of Animation Studio wrote it ({version}). Update this "
                "one; or, when nothing is paused any more, delete the file.",
            )
        return _Reading(JournalState.model_validate_json(data))
    except (ValueError, RecursionError) as error:  # ValidationError is one, and JSON's
        why = " ".join(str(error).split())[:200]
        return _Reading(
            JournalState(),
            "damaged",
            f"{path}: the journal is damaged, so it does not say which services are paused: wake "
            f"by hand what still sleeps ({why}).",
        )


def _is_newer(version: object) -> bool:
    number = version.removeprefix(_FORMAT) if isinstance(version, str) else ""
    return number.isdecimal() and len(number) < 9 and int(number) > _VERSION


def _patiently(act: Callable[[], _T]) -> _T:
    for _ in range(_TRIES - 1 if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):
            return act()
        time.sleep(_BETWEEN)
    return act()
