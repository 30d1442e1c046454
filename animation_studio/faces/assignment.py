"""Which face is which character, when there are several of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["assign"]


def assign(scores: NDArray[np.floating], thresholds: Sequence[float]) -> list[int | None]:
    """Give each subject a face of its own: the index of its face, or None where faces run out.

    `scores` is [faces, subjects], finite; `thresholds` has one value a subject. Among all
    one-to-one assignments it is one with the most pairs at or over their threshold and, among
    those, one with the highest sum of scores. The count comes first because of pictures such as
    two characters that look alike: the highest sum alone may give one of them its perfect face
    and leave the other a face that fails, where the other way round both pass.

    Raises FaceError for scores that are not finite.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(scores, dtype=np.float64)
    faces, subjects = table.shape
    if not np.isfinite(table).all():
        raise FaceError("A score is not a finite number, so faces cannot be told apart.")
    found: list[int | None] = [None] * subjects
    if not faces or not subjects:
        return found
    # Scores move into 0..1, which keeps the order of sums, since all assignments have as many
    # pairs: then one pass more outweighs any sum.
    low, high = table.min(), table.max()
    gain = (table - low) / (high - low) if high > low else np.zeros_like(table)
    gain += (table >= np.asarray(thresholds, dtype=np.float64)) * (min(faces, subjects) + 1)
    for face, subject in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        found[int(subject)] = int(face)
    return found
