"""At ComfyUI's start: what an earlier one left paused."""

from __future__ import annotations

import json
import threading

from ..errors import StudioError
from ..files import read_limited
from . import studio

__all__ = ["begin"]

_JOURNAL, _LIMIT = "gpu_journal.json", 1 << 20
# Seconds: reading the configuration, for the place of the journal, is no part of the start.
_SOON = 2.0


def begin() -> None:
    """Resume it in the background, soon after the start, which does not wait for it."""
    timer = threading.Timer(_SOON, _recover)
    timer.name, timer.daemon = "animation-studio-recovery", True
    timer.start()


def _something_paused() -> bool:
    # Not through gpu.journal, which is not loaded for the many starts that have nothing to do.
    try:
        text = read_limited(studio.state_folder() / _JOURNAL, _LIMIT, "journal")
        return bool(json.loads(text).get("paused"))
    except FileNotFoundError:
        return False
    except (OSError, StudioError, ValueError, AttributeError):
        return True  # the journal itself says what is wrong


def _recover() -> None:
    if _something_paused():
        from . import gpu

        gpu.recover()
