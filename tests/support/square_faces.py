"""A face engine for tests whose faces are squares that a test paints: exact, fast, without weights.

A face is a square whose blue is 200. Its red is its identity, an angle in degrees, and its
embedding the point on the unit circle at that angle: faces `a` and `b` have the cosine
cos(a - b). Green 1 stands for a model that gives NaN, 2 for one that gives zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from animation_studio.faces.engine import Face, Metric, ModelId

__all__ = ["NOTHING", "NOT_A_NUMBER", "SquareFaces", "painted", "point", "square_model"]

_BLUE = 200
_SIDE = 8
NOT_A_NUMBER, NOTHING = 1, 2


def square_model(engine: str = "insightface", metric: Metric = "cosine", digit: str = "a"):
    """The model id of the squares, which may pose as any engine."""
    return ModelId(engine, "squares", digit * 64, 2, metric)


def point(*angles: float) -> np.ndarray:
    """The embeddings of faces of these angles in degrees, float32 [n, 2]."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def painted(*faces: tuple[int, ...], size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """A picture of `size` (width, height) with faces (left, top, side, angle[, green])."""
    width, height = size
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    for left, top, side, angle, *green in faces:
        picture[top : top + side, left : left + side] = (angle, *(green or [0]), _BLUE)
    return picture


class SquareFaces:
    """Finds painted squares by itself and counts what it is asked to do."""

    provider = "squares CPU"
    default_threshold = 0.9

    def __init__(self, model: ModelId | None = None, warnings: Sequence[str] = ()) -> None:
        self.model = model or square_model()
        self.warnings = warnings
        self.detected = 0
        self.embedded: list[int] = []

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        self.detected += len(pictures)
        return [self._faces(picture) for picture in pictures]

    def align(self, picture: np.ndarray, face: Face) -> np.ndarray:
        left, top, right, bottom = (int(value) for value in face.box)
        center = picture[(top + bottom) // 2, (left + right) // 2]
        return np.broadcast_to(center, (_SIDE, _SIDE, 3)).copy()

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        self.embedded.append(len(crops))
        vectors = point(*(int(crop[0, 0, 0]) for crop in crops))
        for vector, crop in zip(vectors, crops, strict=True):
            if crop[0, 0, 1] in (NOT_A_NUMBER, NOTHING):
                vector[:] = np.nan if crop[0, 0, 1] == NOT_A_NUMBER else 0
        return vectors

    def _faces(self, picture: np.ndarray) -> list[Face]:
        labels, _ = ndimage.label(picture[..., 2] == _BLUE)
        faces = []
        for rows, columns in ndimage.find_objects(labels):
            box = (columns.start, rows.start, columns.stop, rows.stop)
            center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            faces.append(Face(tuple(float(value) for value in box), 1.0, (center,) * 5))
        return sorted(faces, key=lambda face: -face.area)
