"""A stop command for services.yaml: end the process group that a file names, and wait for its end.

    python stop_by_pidfile.py PIDFILE

The file's first line is the group; a second names a folder for temporary files that goes with it.
SIGTERM first, SIGKILL after ten seconds. Ends with status 0 when nothing of it runs any more, also
when there is no such file: what is stopped already is no error. Linux only, as vLLM is.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

__all__ = ["alive", "end_group", "main"]

GRACE_SECONDS = 10.0


def main() -> int:
    """Run the command."""
    pidfile = Path(sys.argv[1])
    try:
        group, *folders = pidfile.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    end_group(int(group))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    pidfile.unlink(missing_ok=True)
    return 0


def end_group(group: int, *, at_once: bool = False) -> None:
    """End all processes of a group, `at_once` by force; return when none runs any more."""
    for sign in (signal.SIGTERM, signal.SIGKILL)[at_once:]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)
            os.killpg(group, sign)
        deadline = time.monotonic() + GRACE_SECONDS
        while alive(group) and time.monotonic() < deadline:
            time.sleep(0.05)


def alive(group: int) -> list[int]:
    """Return the processes of a group that still run; one that only waits to be reaped does not."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        state, its_group = words[0], int(words[2])
        if its_group == group and state not in "ZX":
            found.append(int(entry.name))
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
