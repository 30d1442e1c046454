"""Pictures about pictures: faces with their verdicts, contact sheets, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .calibration import Calibration
from .judge import PictureVerdict, Unreadable

if TYPE_CHECKING:
    from .engine import Picture

__all__ = ["annotate", "contact_sheet", "histogram"]


def annotate(picture: Picture, verdict: PictureVerdict) -> Picture:
    """Return the picture with its faces boxed and scored and the verdict in a line below.

    A subject's face is green when it matches and red when not, strangers are red, other faces
    grey. Pictures whose shorter side is under 256 pixels are enlarged by a whole factor, so that
    the text can be read; all others keep their size.
    """
    raise NotImplementedError


def contact_sheet(
    pictures: Sequence[Picture | Unreadable],
    verdicts: Sequence[PictureVerdict],
    *,
    columns: int | None = None,
    side: int = 256,
) -> Picture:
    """Return all pictures as a grid of thumbnails in order, each with number, verdict and score.

    `side` is a thumbnail's longer side in pixels; `columns` is chosen for a wide sheet when None.
    """
    raise NotImplementedError


def histogram(calibration: Calibration) -> Picture:
    """Return the distributions of genuine and impostor scores with the proposed threshold."""
    raise NotImplementedError
