"""Faces known by a CLIP vision model: for drawn and stylised ones, which photo-trained ones miss.

CLIP sees a whole picture of the face with its hair, not a face that is made to overlie all others.
Its vectors say what the crop shows (drawing style, hair, colours, light) as much as who is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import FaceError
from .align import box_square, warp_smooth
from .engine import Face, FaceEngine, ModelId

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .engine import Picture, Vectors

    Encoder: TypeAlias = Callable[[Sequence[Picture]], NDArray[np.float32]]

__all__ = ["ClipEngine"]

# What CLIP's vision models were trained at; those for 336 resize it themselves.
_SIDE = 224
# Boxes of detectors end at hair line and chin. Hair is what tells drawn characters apart, and 0.3
# of the box on every side has most of it without much of what is behind.
_MARGIN = 1.6
# CLIP's vectors of any two pictures of faces lie near each other, and how near depends on the
# model: no figure holds for all, and no source gives one. This one lets little pass that is not
# nearly the same picture.
_THRESHOLD = 0.9


class ClipEngine:
    """The faces that `detector` finds, embedded by `encode`. As safe from threads as those two.

    `encode` takes crops (uint8 RGB, 224x224) and returns one vector each, float32 [n, d]; `model`
    says what it is made of, with the engine "clip_vision" and the metric "cosine".
    """

    def __init__(self, detector: FaceEngine, encode: Encoder, model: ModelId) -> None:
        self._detector = detector
        self._encode = encode
        self._model = model

    @property
    def model(self) -> ModelId:
        """The CLIP vision model."""
        return self._model

    @property
    def provider(self) -> str:
        """What finds the faces; ComfyUI decides where the CLIP vision model runs."""
        return f"ComfyUI, faces found by {self._detector.provider}"

    @property
    def default_threshold(self) -> float:
        """A cosine of 0.9, which is a guess: calibrate it."""
        return _THRESHOLD

    @property
    def warnings(self) -> Sequence[str]:
        """What the detector has to say."""
        return self._detector.warnings

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture, largest first, as the detector finds them."""
        return self._detector.detect(pictures)

    def align(self, picture: Picture, face: Face) -> Picture:
        """Return the square around the face, 1.6 times the box, as uint8 [224, 224, 3].

        It is not turned upright: CLIP was trained on pictures as they are.
        """
        return warp_smooth(picture, box_square(face, _MARGIN, _SIDE), _SIDE)

    def embed(self, crops: Sequence[Picture]) -> Vectors:
        """Return the embeddings of crops, float32 [n, d], of length 1."""
        length = self._model.dimensions
        if not crops:
            return np.empty((0, length), dtype=np.float32)
        vectors = np.asarray(self._encode(crops), dtype=np.float32)
        if vectors.shape != (len(crops), length):
            raise FaceError(
                f"{self._model} gave vectors of shape {list(vectors.shape)} for {len(crops)} "
                f"faces; [{len(crops)}, {length}] was expected. Use another CLIP vision model."
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # What has no direction stays as it is, for `similarity` to say so.
        found: Vectors = np.divide(vectors, lengths, out=vectors.copy(), where=lengths > 0)
        return found
