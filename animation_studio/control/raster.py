"""Filled polygons and discs on a pixel array, to the pixel as the pose annotators draw them.

OpenCV fills a polygon between its edges and draws the edges as Bresenham lines over it; Pillow
leaves those out where they are flat, which makes a limb up to a seventh thinner. Here a row's span
goes from the first to the last pixel of that union. Ties, where a line passes exactly between two
pixels, fall as OpenCV's `LineIterator` (left to right) and `FillConvexPoly` let them fall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Color", "Pixel", "fill_disc", "fill_polygon"]

Color = tuple[int, int, int]
Pixel = tuple[int, int]

# Rows worked on at a time: bounds the memory of a limb across an 8192 pixel map.
_ROWS = 1024
# Below what division can be off, above what float rounding can: a tie is still a tie.
_EPSILON = 1e-9


def fill_polygon(canvas: NDArray[np.uint8], points: Sequence[Pixel], color: Color) -> None:
    """Fill a convex polygon of whole-number points on `canvas` (uint8 [H, W, 3]), its edges too.

    What lies outside the canvas is cut.
    """
    import numpy as np

    height, width = canvas.shape[:2]
    corners = np.asarray(points, dtype=np.float64)
    if corners[:, 0].max() < 0 or corners[:, 0].min() >= width:
        return
    top = max(0, int(corners[:, 1].min()))
    bottom = min(height - 1, int(corners[:, 1].max()))
    for start in range(top, bottom + 1, _ROWS):
        rows = np.arange(start, min(start + _ROWS, bottom + 1))
        first, last = _spans(corners, rows)
        first = np.clip(first, 0, width).astype(np.int64)
        last = np.clip(last, -1, width - 1).astype(np.int64)
        for row, left, right in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
            canvas[row, left : right + 1] = color


def fill_disc(canvas: NDArray[np.uint8], center: Pixel, radius: int, color: Color) -> None:
    """Fill the pixels with dx^2 + dy^2 <= radius^2 about `center`, cut to the canvas."""
    height, width = canvas.shape[:2]
    x, y = center
    if not (-radius <= x < width + radius and -radius <= y < height + radius):
        return
    for row in range(max(0, y - radius), min(height, y + radius + 1)):
        half = math.isqrt(radius * radius - (row - y) ** 2)
        canvas[row, max(0, x - half) : max(0, x + half + 1)] = color


def _spans(
    corners: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the first and last pixel of the polygon in each row (inf and -inf where none)."""
    import numpy as np

    start, end = corners, np.roll(corners, -1, axis=0)
    # Each edge from left to right.
    turned = (start[:, 0] > end[:, 0])[:, None]
    start, end = np.where(turned, end, start), np.where(turned, start, end)
    dx, dy = (end - start).T
    level = dy == 0
    steep = np.abs(dy) >= np.abs(dx)

    # Where along the edge, 0 to 1, it is in the row: a steep edge at the row's middle, a flat one
    # from the row's upper to its lower border.
    half = np.where(steep & ~level, 0.0, 0.5)
    slope = np.where(level, 1.0, dy)
    below = rows[:, None] - start[:, 1]
    enters = np.minimum((below - half) / slope, (below + half) / slope)
    leaves = np.maximum((below - half) / slope, (below + half) / slope)
    enters = np.where(level, 0.0, enters)
    leaves = np.where(level, np.where(below == 0, 1.0, -1.0), leaves)

    at_start = enters <= 0
    left = start[:, 0] + dx * np.maximum(enters, 0.0)
    right = start[:, 0] + dx * np.minimum(leaves, 1.0)
    # A flat line changes its row after a tie; a steep one is rounded down as a left border and up
    # as a right one.
    flat_first = np.where(at_start, start[:, 0], np.floor(left + _EPSILON) + 1)
    first = np.where(steep & ~level, np.ceil(left - 0.5 - _EPSILON), flat_first)
    last = np.floor(right + np.where(steep & ~level, 0.5, 0.0) + _EPSILON)
    here = (np.maximum(enters, 0.0) <= np.minimum(leaves, 1.0)) & (first <= last)
    return (
        np.where(here, first, np.inf).min(axis=1),
        np.where(here, last, -np.inf).max(axis=1),
    )
