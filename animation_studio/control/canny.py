"""Canny's edges as OpenCV's `Canny(image, low, high)` finds them, without OpenCV.

J. Canny, "A Computational Approach to Edge Detection", IEEE PAMI 8(6), 1986. The choices that
make the result equal to OpenCV's bit by bit (3x3 Sobel with repeated borders, L1 magnitude, the
strongest channel a pixel, whole-number thresholds, three directions told apart in fixed point,
which neighbour wins a tie) are those of its documentation and of `modules/imgproc/src/canny.cpp`;
a test compares them. The canny ControlNets were trained on maps with thresholds 100 and 200.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import ControlError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["canny"]

# tan(22.5 degrees) in 15 bit fixed point, rounded; tan(67.5) is that plus 2.
_SHIFT = 15
_TAN_22 = round((math.sqrt(2) - 1) * (1 << _SHIFT))


def canny(image: NDArray[np.uint8], low: float, high: float) -> NDArray[np.uint8]:
    """Return the edges of `image` (uint8 [H, W, 3] or [H, W]) as uint8 [H, W], 255 on edges.

    `low` and `high` are thresholds of the L1 gradient |dx| + |dy| of 0..255 values (at most 2040):
    edges begin above `high` and go on above `low`. Swapped thresholds are put in order. A picture
    without a gradient, also one of a single pixel, has no edges. Raises ControlError for another
    dtype or shape, no pixels, or a threshold that is not a finite number of 0 or more.
    """
    import numpy as np

    _check(image)
    low, high = sorted((_threshold("low", low), _threshold("high", high)))
    dx, dy = _gradients(image)
    magnitude = np.abs(dx) + np.abs(dy)
    thin = (magnitude > low) & _is_ridge(dx, dy, magnitude)
    edges = _connected(thin, thin & (magnitude > high))
    drawn: NDArray[np.uint8] = np.where(edges, np.uint8(255), np.uint8(0))
    return drawn


def _check(image: NDArray[np.uint8]) -> None:
    channels = image.shape[2:]
    if image.dtype.name != "uint8" or image.ndim not in (2, 3) or channels not in ((), (3,)):
        raise ControlError(
            f"Canny: the picture is {image.dtype.name} {list(image.shape)}; "
            "uint8 [height, width, 3] or [height, width] is needed."
        )
    if image.size == 0:
        raise ControlError(f"Canny: the picture has no pixels ({list(image.shape)}).")


def _threshold(name: str, value: float) -> int:
    # OpenCV compares whole gradients with the thresholds rounded down.
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ControlError(f"Canny: the {name} threshold is {value}; a number from 0 is needed.")
    return math.floor(value)


def _gradients(image: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the Sobel derivatives, int32 [H, W] each, of the strongest channel of each pixel."""
    import numpy as np
    from scipy import ndimage

    def sobel(planes: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
        # Not ndimage.sobel: it would smooth across the channels too.
        slope = ndimage.correlate1d(planes, (-1, 0, 1), axis=axis, mode="nearest")
        smooth: NDArray[np.int32] = ndimage.correlate1d(
            slope, (1, 2, 1), axis=1 - axis, mode="nearest"
        )
        return smooth

    planes = np.atleast_3d(image).astype(np.int32)
    dx, dy = sobel(planes, 1), sobel(planes, 0)
    if planes.shape[2] == 1:
        return dx[..., 0], dy[..., 0]
    # argmax takes the first of equals, as OpenCV does.
    strongest = np.argmax(np.abs(dx) + np.abs(dy), axis=2)[..., None]
    return (
        np.take_along_axis(dx, strongest, axis=2)[..., 0],
        np.take_along_axis(dy, strongest, axis=2)[..., 0],
    )


def _is_ridge(
    dx: NDArray[np.int32], dy: NDArray[np.int32], magnitude: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Tell where the magnitude is highest across the edge, bool [H, W].

    Beyond the picture the magnitude is 0. On a tie across a level or upright edge the first pixel
    (left, upper) of the two wins; on a slope neither does.
    """
    import numpy as np

    height, width = magnitude.shape
    padded = np.pad(magnitude, 1)

    def neighbour(down: int, right: int) -> NDArray[np.int32]:
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    # At most 1020 * 2^16 for the flat bound and 1020 * 2^15 for the height: int32 holds both.
    across, upwards = np.abs(dx), np.abs(dy) << _SHIFT
    flat = across * _TAN_22
    is_flat = upwards < flat
    is_steep = upwards > flat + (across << (_SHIFT + 1))
    ridge_flat = (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1))
    ridge_steep = (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0))
    ridge_falling = (magnitude > neighbour(-1, -1)) & (magnitude > neighbour(1, 1))
    ridge_rising = (magnitude > neighbour(-1, 1)) & (magnitude > neighbour(1, -1))
    # Gradients of equal sign point along the falling diagonal (y goes down).
    ridge_slope = np.where((dx ^ dy) < 0, ridge_rising, ridge_falling)
    return np.where(is_flat, ridge_flat, np.where(is_steep, ridge_steep, ridge_slope))


def _connected(candidates: NDArray[np.bool_], strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the 8-connected groups of candidates that hold a strong pixel, bool [H, W]."""
    import numpy as np
    from scipy import ndimage

    labels, count = ndimage.label(candidates, structure=np.ones((3, 3), dtype=np.int8))
    keep = np.zeros(count + 1, dtype=np.bool_)
    keep[labels[strong]] = True
    keep[0] = False
    connected: NDArray[np.bool_] = keep[labels]
    return connected
