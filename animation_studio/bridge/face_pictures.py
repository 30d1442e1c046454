"""IMAGE tensors as single pictures for the faces room, and back in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import FaceError, StudioError
from .images import to_bytes

if TYPE_CHECKING:
    from ..faces.engine import Picture

__all__ = ["batches_of", "pictures_of", "single_images"]


def single_images(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return each picture of a list of batches as [1, height, width, channels], in order.

    Raises FaceError for tensors of another form, and where there is no picture at all.
    """
    for image in images:
        if image.ndim != 4:
            raise FaceError(
                f"images: a tensor of shape {list(image.shape)} came, and ComfyUI's pictures are "
                "[batch, height, width, channels]. Connect an IMAGE output."
            )
    if not sum(image.shape[0] for image in images):
        raise FaceError("images: not one picture came. Check the nodes before this one.")
    return [image[index : index + 1] for image in images for index in range(image.shape[0])]


def pictures_of(images: Sequence[torch.Tensor]) -> list[Picture | str]:
    """Return each picture as uint8 [height, width, 3], or the reason why it is none."""
    return [_picture(image) for image in single_images(images)]


def batches_of(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Join neighbours of one shape into batches; the order of the pictures stays."""
    runs: list[list[torch.Tensor]] = []
    for image in images:
        if runs and runs[-1][0].shape == image.shape and runs[-1][0].dtype == image.dtype:
            runs[-1].append(image)
        else:
            runs.append([image])
    return [torch.cat(run) for run in runs]


def _picture(image: torch.Tensor) -> Picture | str:
    try:
        return to_bytes(image)[0]
    except StudioError as error:
        return str(error)
