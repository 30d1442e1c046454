"""What is asked about the processes of this machine: whether one still runs, and its name."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["process_name", "started_at"]

_PROC = Path("/proc")
# Programs that say nothing about what they run; the script or module after them does.
_INTERPRETER = re.compile(r"(python|pypy|node|ruby|perl|bash|sh)w?[\d.]*(\.exe)?", re.IGNORECASE)
_LONGEST_NAME = 80


def started_at(pid: int) -> float | None:
    """Return what tells a process from a later one with the same number; None where it has ended.

    On Linux it is the start in clock ticks since the machine's (it never shifts, as times of day
    do), elsewhere psutil's creation time in seconds. 0.0 where neither can be had.
    """
    if pid <= 0:
        return None
    if (_PROC / "self" / "stat").exists():
        return _from_proc(pid)
    try:
        import psutil
    except ImportError:
        # Never os.kill(pid, 0) to find out: on Windows that ends the process.
        return 0.0
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return 0.0


def _from_proc(pid: int) -> float | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return 0.0
    # proc(5): the name in brackets may hold anything; after it come the state and, as field 22
    # of all, the start. Z and X have ended and wait to be collected.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return None
    return float(fields[19])


def process_name(pid: int) -> str:
    """Return a short name such as "python main.py"; empty where it cannot be had.

    Only the program and, of interpreters, the script or module: command lines hold keys.
    """
    arguments = _command(pid)
    if not arguments or not arguments[0]:
        return ""
    # Some programs write their whole line into the first argument, options and all.
    program = _base(arguments[0].partition(" -")[0])
    if _INTERPRETER.fullmatch(program):
        program = " ".join([program, *_script(arguments[1:])])
    return "".join(c if c.isprintable() else "?" for c in program)[:_LONGEST_NAME]


def _script(arguments: list[str]) -> list[str]:
    """Return the script's name without its folders, or ["-m", module]; empty where unclear."""
    for index, argument in enumerate(arguments):
        if argument == "-m":
            return ["-m", *arguments[index + 1 : index + 2]]
        if not argument.startswith("-"):
            return [_base(argument)]
        if argument not in _FLAGS:
            return []  # -c and its program, -X and its value: what follows is no script
    return []


# Options of Python without a value, after which the script may come.
_FLAGS = {"-u", "-s", "-S", "-E", "-I", "-O", "-OO", "-B", "-b", "-q", "-v", "-d", "-P"}


def _base(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _command(pid: int) -> list[str]:
    if (_PROC / "self" / "cmdline").exists():
        try:
            data = (_PROC / str(pid) / "cmdline").read_bytes()
            if data:
                return data.decode("utf-8", "replace").rstrip("\0").split("\0")
            return [(_PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()]
        except (OSError, UnicodeDecodeError):
            return []
    try:
        import psutil
    except ImportError:
        return []
    try:
        process = psutil.Process(pid)
        return process.cmdline() or [process.name()]
    except (psutil.Error, OSError):
        return []
