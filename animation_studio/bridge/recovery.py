"""At ComfyUI's start: what an earlier one left paused."""

from __future__ import annotations

import logging
import threading

from ..errors import StudioError
from . import studio

__all__ = ["begin"]

_logger = logging.getLogger("animation_studio")
# Seconds: reading the configuration, for the place of the journal, is no part of the start.
_SOON = 2.0


def begin() -> None:
    """Resume it in the background, soon after the start, which does not wait for it."""
    timer = threading.Timer(_SOON, _recover)
    timer.name, timer.daemon = "animation-studio-recovery", True
    timer.start()


def _recover() -> None:
    # Here, so that no start waits for the journal's models, and most starts not for the arbiter.
    from ..gpu.journal import Journal

    try:
        left = Journal(studio.state_folder()).read().paused
    except StudioError as error:
        _logger.warning("Animation Studio: %s", error)
        return
    if left:
        from . import gpu

        gpu.recover()
