"""What a consistency report says of one picture, as far as a plan can do something about it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import FaceError

__all__ = ["FaceFindings", "face_findings"]

_FORMAT = "animation_studio/consistency_report/"


class FaceFindings(BaseModel):
    """Whether the face check kept a picture, and why.

    `face_share` is the height of the largest face over that of the picture, 0 without a face;
    `strangers` counts the faces that are of nobody who was looked for.
    """

    model_config = ConfigDict(frozen=True)

    kept: bool
    reason: str
    face_share: float
    strangers: int


class _Face(BaseModel):
    box: tuple[float, float, float, float]


class _Picture(BaseModel):
    keep: bool
    reason: str
    height: int
    picture_sha256: str
    faces: list[_Face]
    strangers: list[int] = []


class _Report(BaseModel):
    format: str
    pictures: list[_Picture]


def face_findings(report: str, picture: str) -> FaceFindings | None:
    """Return what a report (JSON text) says of a picture, by the SHA-256 of its pixels.

    A report of one picture is of this one, also where its pixels were changed since (made larger,
    say). None for an empty text, and where the report is of other pictures. Raises FaceError for a
    text that is no consistency report.
    """
    if not report.strip():
        return None
    try:
        parsed = _Report.model_validate_json(report)
    except ValidationError as error:
        raise _no_report(f"{error.error_count()} faults") from error
    if not parsed.format.startswith(_FORMAT):
        raise _no_report(f"its format is {parsed.format[:80]!r}")
    same = [one for one in parsed.pictures if one.picture_sha256 == picture]
    found = same or (parsed.pictures if len(parsed.pictures) == 1 else [])
    return _findings(found[0]) if found else None


def _findings(seen: _Picture) -> FaceFindings:
    heights = [face.box[3] - face.box[1] for face in seen.faces]
    return FaceFindings(
        kept=seen.keep,
        reason=seen.reason,
        face_share=max(heights, default=0.0) / max(1, seen.height),
        strangers=len(seen.strangers),
    )


def _no_report(why: str) -> FaceError:
    return FaceError(
        f"report: this text is no consistency report ({why}). Connect the report output of "
        "Consistency Filter or Until Consistent."
    )
