"""ComfyUI's IMAGE (float RGB in 0..1) to bytes and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ControlError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["to_bytes", "to_image"]


def to_bytes(image: torch.Tensor) -> list[NDArray[np.uint8]]:
    """Return each picture of a batch as uint8 [height, width, 3], values rounded.

    `image` is float [batch, height, width, channels] with 1 to 4 channels; alpha is dropped, grey
    repeated. Raises ControlError for another shape and for values that are not numbers.
    """
    if image.ndim != 4 or image.shape[0] == 0 or not 1 <= image.shape[-1] <= 4:
        raise ControlError(
            f"the picture has the shape {tuple(image.shape)}; ComfyUI pictures are "
            "[batch, height, width, channels]. Connect an IMAGE output."
        )
    if not bool(torch.isfinite(image).all()):
        raise ControlError(
            "the picture holds values that are not numbers (NaN). They come from the node that "
            "made it: a VAE in half precision often does; try --fp32-vae."
        )
    colours = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(-1, -1, -1, 3)
    pixels = (colours.detach().cpu().float().clamp(0.0, 1.0) * 255.0).round()
    return list(pixels.to(torch.uint8).numpy())


def to_image(pictures: list[NDArray[np.uint8]]) -> torch.Tensor:
    """Return pictures of one size, uint8 [height, width, 3], as float [batch, height, width, 3]."""
    return torch.from_numpy(np.stack(pictures)).float() / 255.0
