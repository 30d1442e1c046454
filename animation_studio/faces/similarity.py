"""Scores of embeddings against the references of a character: 1 is equal, higher is more alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ..errors import FaceError
from .engine import Metric

if TYPE_CHECKING:
    from .engine import Vectors

__all__ = ["ScoreRule", "normalised", "score_against", "similarities"]

# What several references make of one score; "mean of best k" is steadier than "max", "centroid"
# compares with the average face.
ScoreRule: TypeAlias = Literal["max", "mean of best k", "centroid"]


def normalised(vectors: Vectors) -> Vectors:
    """Return [n, d] vectors scaled to length 1, float32.

    Raises FaceError for a vector without a direction (all zeros, or not finite).
    """
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise FaceError("An embedding is all zeros or not finite, so it cannot be compared.")
    unit: Vectors = (wide / lengths).astype(np.float32)
    return unit


def similarities(vectors: Vectors, references: Vectors, metric: Metric) -> Vectors:
    """Return the score of every vector with every reference, float32 [n, m].

    "cosine" is the dot product of the normalised vectors (-1 to 1), "euclidean" is 1 - distance
    (1 and below, without a lower bound). Raises FaceError when the lengths of the vectors differ
    or, for cosine, when one has no direction.
    """
    _check_shapes(vectors, references)
    scores: Vectors
    if metric == "cosine":
        scores = np.clip(normalised(vectors) @ normalised(references).T, -1.0, 1.0)
    else:
        apart = np.asarray(vectors, dtype=np.float64)[:, None] - np.asarray(references)[None]
        scores = (1.0 - np.linalg.norm(apart, axis=2)).astype(np.float32)
    return scores


def score_against(
    vectors: Vectors, references: Vectors, metric: Metric, rule: ScoreRule, k: int = 3
) -> Vectors:
    """Return the score of each of n vectors against all m references, float32 [n].

    "max" is the nearest reference, "mean of best k" the mean of the k nearest (k is clipped to
    1..m), "centroid" the average reference: for cosine the mean of the normalised references,
    normalised again; for euclidean the plain mean. Raises FaceError as `similarities` does, when
    there are no references, and when references cancel out to a centroid without direction.
    """
    _check_shapes(vectors, references)
    if rule == "centroid":
        return similarities(vectors, _centroid(references, metric), metric)[:, 0]
    scores = similarities(vectors, references, metric)
    best = 1 if rule == "max" else min(max(k, 1), len(references))
    nearest = np.sort(scores, axis=1)[:, -best:]
    mean: Vectors = nearest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean


def _centroid(references: Vectors, metric: Metric) -> Vectors:
    faces = normalised(references) if metric == "cosine" else references
    center: Vectors = faces.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    return center


def _check_shapes(vectors: Vectors, references: Vectors) -> None:
    if vectors.ndim != 2 or references.ndim != 2 or vectors.shape[1] != references.shape[1]:
        raise FaceError(
            f"Embeddings of shape {list(vectors.shape)} and references of shape "
            f"{list(references.shape)} do not compare: both should be [how many, same length]."
        )
    if not len(references):
        raise FaceError("There are no references to compare with.")
