"""ComfyUI-Animation-Studio: scenes with consistent 3D-animated characters, as ComfyUI nodes."""

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import AnimationStudio

NEEDED = (0, 3, 75)


def _comfyui_version() -> str:
    try:
        from comfyui_version import __version__
    except ImportError:
        return "0"
    return str(__version__)


def _is_old(version: str) -> bool:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < NEEDED


if _is_old(_comfyui_version()):
    # An old ComfyUI takes an empty mapping for a pack without nodes, and prints no traceback.
    NODE_CLASS_MAPPINGS: dict[str, type] = {}
    logging.getLogger("animation_studio").error(
        "Animation Studio needs ComfyUI 0.3.75 or newer; this is %s. Update ComfyUI to use it.",
        _comfyui_version(),
    )
else:
    WEB_DIRECTORY = "./web"

    async def comfy_entrypoint() -> "AnimationStudio":
        """Return the extension; ComfyUI calls this once while it starts."""
        from .nodes.extension import AnimationStudio

        return AnimationStudio()
