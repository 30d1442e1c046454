"""Which face is which character, when there are several of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["assign"]


def assign(scores: NDArray[np.floating], thresholds: Sequence[float]) -> list[int | None]:
    """Give each subject a face of its own: the index of its face, or None where faces run out.

    `scores` is [faces, subjects], finite; `thresholds` has one value a subject. Among all
    one-to-one assignments it is one with the most pairs at or over their threshold and, among
    those, one with the highest sum of scores. The count comes first because of pictures such as
    two characters that look alike: the highest sum alone may give one of them its perfect face
    and leave the other a face that fails, where the other way round both pass.
    """
    raise NotImplementedError
