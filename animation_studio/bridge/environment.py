"""What the running ComfyUI is: its version, its attention, the machine's software."""

from __future__ import annotations

import logging
import platform

import comfy.model_management
import torch
from comfyui_version import __version__ as comfyui_version

from .. import __version__

__all__ = ["versions", "warn_about_attention"]

_logger = logging.getLogger("animation_studio")


def versions() -> dict[str, str]:
    """Return the versions that decide what a picture looks like, for its record."""
    return {
        "animation_studio": __version__,
        "comfyui": comfyui_version,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def warn_about_attention() -> None:
    """Warn where xformers computes the attention: the pack stands on PyTorch's own."""
    if comfy.model_management.xformers_enabled():
        _logger.warning(
            "Animation Studio: xformers is active. This pack is made for PyTorch attention, and "
            "pictures will differ; set XFORMERS_DISABLED=1 and start ComfyUI with "
            "--disable-xformers --use-pytorch-cross-attention."
        )
