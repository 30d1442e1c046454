"""Reading back what a run saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["metadata", "pixels", "saved"]


def saved(comfyui: Any, result: Any, kind: str = "images") -> list[Path]:
    """Return the paths of a run's files of one kind ("images", "records")."""
    return [
        Path(comfyui.output_dir, file["subfolder"], file["filename"])
        for output in result.outputs.values()
        for file in output.get(kind, [])
        if file["type"] == "output"
    ]


def pixels(path: Path) -> np.ndarray:
    """Return a picture as int16 [height, width, 3], ready to subtract."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int16)


def metadata(path: Path) -> dict[str, Any]:
    """Return a PNG's text chunks, parsed from JSON."""
    with Image.open(path) as picture:
        return {key: json.loads(value) for key, value in picture.text.items()}
