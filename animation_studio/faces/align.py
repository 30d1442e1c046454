"""Bringing a face into the pose its embedder was trained on: five points decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engine import Face, Picture

    Points = Sequence[tuple[float, float]] | NDArray[np.floating]
    Matrix = NDArray[np.float64]

__all__ = [
    "ARCFACE_POINTS",
    "arcface_points",
    "box_square",
    "check_points",
    "similarity",
    "warp",
    "warp_smooth",
]

# Left eye, right eye, nose tip, left and right corner of the mouth (left as seen by the viewer) in
# a crop of 112x112: `arcface_dst` in insightface/utils/face_align.py.
ARCFACE_POINTS: tuple[tuple[float, float], ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
# Five points closer together than this, in pixels, are no face.
_SMALLEST_SPREAD = 0.1


def arcface_points(side: int) -> tuple[tuple[float, float], ...]:
    """Return ARCFACE_POINTS for a crop of `side` pixels, as insightface lays them out.

    Sides that are multiples of 112 scale the template. Multiples of 128 have 16 columns more of
    128, eight on either side, as in insightface's `estimate_norm`. Raises FaceError for others.
    """
    if side > 0 and side % 112 == 0:
        ratio, shift = side / 112, 0.0
    elif side > 0 and side % 128 == 0:
        ratio, shift = side / 128, 8.0 * side / 128
    else:
        raise FaceError(
            f"The recogniser wants faces of {side}x{side} pixels; ArcFace's alignment is defined "
            "for multiples of 112 and of 128. Use another model pack."
        )
    return tuple((x * ratio + shift, y * ratio) for x, y in ARCFACE_POINTS)


def check_points(points: Points) -> NDArray[np.complex128]:
    """Return points (x, y) as complex numbers x + iy.

    Raises FaceError when one is not finite, or when all are in one place.
    """
    found = _complex(points)
    if np.abs(found - found.mean()).max() < _SMALLEST_SPREAD:
        raise FaceError(
            f"The five points of a face are not apart from each other ({_listed(found)}), so it "
            "cannot be aligned. The detector found no real face there."
        )
    return found


def similarity(points: Points, target: Points) -> Matrix:
    """Return the turn, uniform scale and shift that bring `points` nearest to `target`.

    The result is float64 [2, 3] and maps a point (x, y, 1); nearest is the least sum of squared
    distances. That is Umeyama's problem (IEEE PAMI 13(4), 1991); in the plane, where a turn with a
    scale is the product with a complex number, its solution is the one of linear regression.

    Raises FaceError for points that are not finite or all in one place.
    """
    source = check_points(points)
    wanted = _complex(target)
    source_mean, wanted_mean = source.mean(), wanted.mean()
    centred = source - source_mean
    spread = float(np.square(np.abs(centred)).sum())
    factor = (np.conj(centred) * (wanted - wanted_mean)).sum() / spread
    if abs(factor) == 0:
        raise FaceError(
            f"The five points of a face are not arranged like one ({_listed(source)}), so it "
            "cannot be aligned. The detector found no real face there."
        )
    shift = wanted_mean - factor * source_mean
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def warp(picture: Picture, matrix: Matrix, side: int) -> Picture:
    """Return the crop [side, side, 3] whose point `matrix @ (x, y, 1)` shows the picture's (x, y).

    Bilinear between pixel centres, which have whole coordinates; what lies outside of the picture
    is black. The values are those of `cv2.warpAffine(picture, matrix, (side, side))`, as
    insightface's `norm_crop` calls it, but for cv2's steps of 1/32 pixel: enlarged pixels are
    interpolated, shrunk ones are not averaged. Raises FaceError when `matrix` has no inverse.
    """
    from PIL import Image

    inverse = _inverse(matrix)
    patch, left, top = _patch(picture, inverse, side)
    inverse[:, 2] -= (left, top)
    # Pillow puts centres at halves on both sides: it maps (x + 0.5, y + 0.5) and takes off 0.5.
    inverse[:, 2] += 0.5 - inverse[:, :2].sum(axis=1) / 2
    moved = Image.fromarray(patch).transform(
        (side, side), Image.Transform.AFFINE, tuple(inverse.ravel()), Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def warp_smooth(picture: Picture, matrix: Matrix, side: int) -> Picture:
    """Return what `warp` does, with shrunk pixels averaged, for models that were trained so.

    The face is turned at its own size and then resized (bicubic, antialiased).
    """
    from PIL import Image

    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    natural = side if scale >= 1 or scale <= 0 else round(side / scale)
    if natural == side:
        return warp(picture, matrix, side)
    # Corners of pixels, not their centres, keep their place when a crop is resized.
    grown = np.array(matrix, dtype=np.float64) * (natural / side)
    grown[:, 2] += (natural / side - 1) / 2
    turned = Image.fromarray(warp(picture, grown, natural))
    return np.asarray(turned.resize((side, side), Image.Resampling.BICUBIC))


def box_square(face: Face, margin: float, side: int) -> Matrix:
    """Return the matrix that makes a square around the face's box upright and `side` wide.

    The square is `margin` times the longer side of the box, with the box's centre in its own.
    Raises FaceError for a box that is empty or not finite.
    """
    left, top, right, bottom = face.box
    length = max(right - left, bottom - top) * margin
    if not np.isfinite(face.box).all() or length <= 0 or face.area <= 0:
        raise FaceError(f"The box of a face is empty or not finite: {face.box}.")
    scale = side / length
    # -0.5: the first pixel's centre is 0 and its left edge -0.5.
    x = (left + right - length) / 2 * scale + 0.5 - scale / 2
    y = (top + bottom - length) / 2 * scale + 0.5 - scale / 2
    return np.array([[scale, 0.0, -x], [0.0, scale, -y]])


def _complex(points: Points) -> NDArray[np.complex128]:
    pairs = np.asarray(points, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
        raise FaceError(
            f"The points of a face are not five finite pairs of numbers ({pairs.tolist()}), so it "
            "cannot be aligned. The model that found it may be damaged."
        )
    joined: NDArray[np.complex128] = pairs[:, 0] + 1j * pairs[:, 1]
    return joined


def _listed(points: NDArray[np.complex128]) -> str:
    return ", ".join(f"{point.real:g}, {point.imag:g}" for point in points)


def _inverse(matrix: Matrix) -> Matrix:
    square = np.asarray(matrix, dtype=np.float64)
    determinant = float(np.linalg.det(square[:, :2]))
    if not np.isfinite(square).all() or determinant == 0:
        raise FaceError("A face cannot be aligned: its points lie in one place or on one line.")
    turn = np.linalg.inv(square[:, :2])
    found: Matrix = np.hstack([turn, -turn @ square[:, 2:]])
    return found


def _patch(picture: Picture, inverse: Matrix, side: int) -> tuple[Picture, int, int]:
    """Cut the part of the picture that the crop shows, with black where it reaches outside.

    Two pixels more on each side: Pillow neither blends with what is outside of a picture nor
    should it copy a whole picture for a small face. Returns the part and its left and top.
    """
    ends = np.array([[x, y, 1.0] for x in (0, side - 1) for y in (0, side - 1)]) @ inverse.T
    height, width = picture.shape[:2]
    bounds = (-2.0, width + 2.0), (-2.0, height + 2.0)
    (left, right), (top, bottom) = (
        (
            int(np.floor(np.clip(values.min() - 2, *bound))),
            int(np.ceil(np.clip(values.max() + 3, *bound))),
        )
        for values, bound in zip(ends.T, bounds, strict=True)
    )
    patch = np.zeros((max(1, bottom - top), max(1, right - left), 3), dtype=np.uint8)
    rows = slice(max(0, top), max(0, min(height, bottom)))
    columns = slice(max(0, left), max(0, min(width, right)))
    inside = picture[rows, columns]
    down, across = rows.start - top, columns.start - left
    patch[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return patch, left, top
