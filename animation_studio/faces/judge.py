"""Verdicts: is this picture the character, or are these the characters?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .engine import Face, FaceEngine
from .references import References
from .similarity import ScoreRule

if TYPE_CHECKING:
    from .engine import Picture

__all__ = [
    "JudgeSettings",
    "NoFace",
    "PictureVerdict",
    "Subject",
    "SubjectVerdict",
    "Unreadable",
    "WhichFace",
    "best_of",
    "judge",
]

WhichFace: TypeAlias = Literal["largest", "best match", "all"]
NoFace: TypeAlias = Literal["reject", "keep", "error"]


@dataclass(frozen=True)
class Subject:
    """A character to look for; a face is the character from a score of `threshold` on."""

    references: References
    threshold: float


@dataclass(frozen=True)
class JudgeSettings:
    """How pictures are judged.

    `rule` and `k` make one score of several references (see `score_against`). `which` faces count:
    "largest" as many of the largest as there are subjects, "best match" any, "all" any, and every
    other face must be one of the subjects too (a stranger rejects the picture). `no_face` says
    what becomes of a picture without a face. `keep_at_most` keeps the n best, 0 keeps all.
    """

    rule: ScoreRule = "max"
    k: int = 3
    which: WhichFace = "best match"
    no_face: NoFace = "reject"
    keep_at_most: int = 0


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not become pixels, and why ("the picture holds NaN")."""

    reason: str


@dataclass(frozen=True)
class SubjectVerdict:
    """What a picture says of one subject.

    `face` is the index of the subject's face in the picture's `faces`, and `reference` the name of
    the reference nearest to it; both and `score` are None when there was no face left for it.
    """

    character: str
    match: bool
    score: float | None
    threshold: float
    face: int | None
    reference: str | None
    reason: str


@dataclass(frozen=True)
class PictureVerdict:
    """What became of one picture, and why.

    `index` counts from 0 in the order of the pictures; `score` is the smallest score of those
    subjects that have a face (None without any); `faces` are all faces found, largest first, and
    `strangers` the indices of those that rejected the picture (only where `which` is "all");
    `size` is (width, height). `picture_sha256` is of the uint8 RGB bytes, row by row, so that a
    losslessly saved picture finds its verdict; it is empty for a picture that was unreadable.
    """

    index: int
    keep: bool
    reason: str
    score: float | None
    faces: tuple[Face, ...]
    subjects: tuple[SubjectVerdict, ...]
    size: tuple[int, int]
    picture_sha256: str
    strangers: tuple[int, ...] = ()
    unreadable: bool = False


def judge(
    engine: FaceEngine,
    pictures: Sequence[Picture | Unreadable],
    subjects: Sequence[Subject],
    settings: JudgeSettings | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> list[PictureVerdict]:
    """Judge pictures (uint8 [h, w, 3] RGB, of any sizes) and return one verdict each, in order.

    `on_picture(done, total)` is called after each picture and may raise to stop. Raises FaceError
    when there are no subjects, one is listed twice, the references are of another model than the
    engine's, a picture without a face is an error by the settings, or the engine fails.
    """
    raise NotImplementedError


def best_of(verdicts: Sequence[PictureVerdict]) -> int | None:
    """Return the index of the best picture, kept or not; None when no picture has a score.

    Best is the highest score among the pictures that show the most subjects; of equals the first.
    """
    raise NotImplementedError
