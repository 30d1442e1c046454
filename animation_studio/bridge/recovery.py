"""At ComfyUI's start: what an earlier one left paused."""

from __future__ import annotations

import json
import threading

from ..errors import StudioError
from ..files import read_limited
from . import studio

__all__ = ["begin"]

_JOURNAL, _LIMIT = "gpu_journal.json", 1 << 20


def begin() -> None:
    """Resume it in the background, where there is something: else this costs one look at a file."""
    if not _something_paused():
        return
    threading.Thread(target=_recover, name="animation-studio-recovery", daemon=True).start()


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
    from . import gpu

    gpu.recover()
