"""What every face engine does, whatever it is made of: find faces, align them, embed them.

A picture is uint8 [height, width, 3] in RGB order, everywhere in this room; an engine whose model
wants BGR turns the channels itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture: TypeAlias = NDArray[np.uint8]
    Vectors: TypeAlias = NDArray[np.float32]

__all__ = ["Face", "FaceEngine", "Metric", "ModelId"]

# How two embeddings of a model are compared: `similarity` turns either into a score, 1 = equal.
Metric: TypeAlias = Literal["cosine", "euclidean"]


@dataclass(frozen=True)
class ModelId:
    """Which weights made an embedding. Embeddings compare only where `sha256` is the same.

    `engine` is the kind ("insightface", "dlib", "clip_vision"), `name` says the model to a person
    ("buffalo_l/w600k_r50"), `sha256` is the hash of the weights as 64 hexadecimal digits,
    `dimensions` the length of a vector, `metric` how two vectors are compared.
    """

    engine: str
    name: str
    sha256: str
    dimensions: int
    metric: Metric = "cosine"

    def __str__(self) -> str:
        return f"{self.engine} {self.name} ({self.sha256[:8]})"


@dataclass(frozen=True)
class Face:
    """A face in a picture, in pixels from the picture's top left corner.

    `box` is (left, top, right, bottom) and may reach outside the picture; `score` is the detector's
    confidence as it gives it; `points` are five points as (x, y), in the engine's own order.
    """

    box: tuple[float, float, float, float]
    score: float
    points: tuple[tuple[float, float], ...]

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)


class FaceEngine(Protocol):
    """Detector, alignment and embedder that belong together. Safe to call from several threads.

    Every method raises FaceError when the model fails (out of memory, a damaged file).
    """

    @property
    def model(self) -> ModelId:
        """The embedder, as it is written beside every reference."""

    @property
    def provider(self) -> str:
        """What computes, as the runtime itself reports it ("CUDAExecutionProvider", "dlib CPU")."""

    @property
    def default_threshold(self) -> float:
        """The score from which two faces count as one person when nobody chose another."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the user should know of this engine, such as a fall back to the CPU."""

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture, largest first; an empty list where there is none."""

    def align(self, picture: Picture, face: Face) -> Picture:
        """Return the face as the embedder wants it, uint8 [side, side, 3] in RGB order."""

    def embed(self, crops: Sequence[Picture]) -> Vectors:
        """Return the embeddings of aligned faces, float32 [len(crops), dimensions].

        Vectors of a cosine model have length 1, those of a euclidean one are as the model gives
        them.
        """
