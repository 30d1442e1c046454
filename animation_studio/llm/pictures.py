"""Pictures as files that a vision model is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["encoded"]


def encoded(picture: NDArray[np.uint8], longest: int = 1024) -> bytes:
    """Return a picture, [height, width, 3] RGB of 0 to 255, as a PNG file.

    One whose longer side has more than `longest` pixels is made smaller, in its proportions: vision
    models look at about a megapixel, and every one more costs tokens.
    """
    from PIL import Image

    image = Image.fromarray(picture)
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
