"""Run a script that ends when its starter does; run by ComfyUI's own interpreter.

    python attached.py SCRIPT ARGUMENT...

The starter holds a pipe to stdin. When it closes (the starter wants an end, or was killed),
the script gets what Ctrl-C gives, and a few seconds later the process ends in any case. So no
server is left behind that would hold the port and the memory the next time.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

__all__ = ["main"]

GRACE_SECONDS = 5.0


def _end_with_the_starter() -> None:
    # os.read and not sys.stdin: the latter's lock would be held when the interpreter ends.
    while os.read(0, 1024):
        pass
    if os.name == "nt":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main() -> None:
    """Run the script that the command line names as the main program."""
    # A starter in the background may have made us ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    script = sys.argv[1]
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - compared with sys.path
    sys.argv = sys.argv[1:]
    sys.path[:] = [os.path.dirname(script), *(p for p in sys.path if os.path.abspath(p) != here)]  # noqa: PTH100, PTH120
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
