"""What a consistency report says of one picture, found by the picture itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..errors import FaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["picture_hash", "verdicts_by_picture"]


def picture_hash(picture: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of a picture's bytes, uint8 [height, width, 3] RGB, as reports name it."""
    return hashlib.sha256(picture.tobytes()).hexdigest()


def verdicts_by_picture(report: str) -> dict[str, dict[str, object]]:
    """Return the verdicts of a consistency report as plain data, by `picture_hash`.

    An empty text gives none. Raises FaceError for a text that is no such report.
    """
    if not report:
        return {}
    from ..faces.report import ConsistencyReport

    try:
        parsed = ConsistencyReport.model_validate_json(report)
    except ValidationError as error:
        raise FaceError(
            f"report: this text is no consistency report ({error.error_count()} faults). Connect "
            "the report output of Consistency Filter or Until Consistent."
        ) from error
    engine = parsed.engine.model_dump(mode="json")
    return {
        one.picture_sha256: {**one.model_dump(mode="json", exclude={"index"}), "engine": engine}
        for one in parsed.pictures
        if one.picture_sha256
    }
