"""Verdicts as data, and how one comes about from a picture's faces and their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from .assignment import assign
from .engine import Face
from .references import References
from .similarity import ScoreRule, score_against, similarities

if TYPE_CHECKING:
    from .engine import Picture, Vectors

__all__ = [
    "JudgeSettings",
    "NoFace",
    "PictureVerdict",
    "SeenPicture",
    "Subject",
    "SubjectVerdict",
    "Unreadable",
    "WhichFace",
    "picture_sha256",
    "verdict_of",
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


@dataclass(frozen=True)
class SeenPicture:
    """What an engine saw in a picture.

    `vectors` are the embeddings of the first n faces, float32 [n, d]; the others were not asked
    for. A row that is all zeros or not finite is a face that the model has no embedding for.
    """

    index: int
    size: tuple[int, int]
    sha256: str
    faces: tuple[Face, ...] = ()
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    unreadable: str = ""


def picture_sha256(picture: Picture) -> str:
    """Return the SHA-256 of a picture's bytes, uint8 [height, width, 3] RGB, row by row."""
    return hashlib.sha256(np.ascontiguousarray(picture).data).hexdigest()


def verdict_of(
    seen: SeenPicture, subjects: Sequence[Subject], settings: JudgeSettings
) -> PictureVerdict:
    """Return the verdict on a picture; `keep_at_most` and no_face "error" concern all of them."""
    if seen.unreadable:
        return _faceless(seen, subjects, seen.unreadable, keep=False)
    if not seen.faces:
        keep = settings.no_face == "keep"
        reason = "no face was found" + ("; such pictures are kept, as set" if keep else "")
        return _faceless(seen, subjects, reason, keep=keep)
    usable = np.isfinite(seen.vectors).all(axis=1) & seen.vectors.any(axis=1)
    faces = tuple(int(index) for index in np.flatnonzero(usable))
    if not faces:
        reason = "the model has no embedding for the face, so it cannot be compared"
        return _faceless(seen, subjects, reason, keep=False)
    return _compared(seen, faces, seen.vectors[usable], subjects, settings)


def _compared(
    seen: SeenPicture,
    faces: tuple[int, ...],
    vectors: Vectors,
    subjects: Sequence[Subject],
    settings: JudgeSettings,
) -> PictureVerdict:
    table = np.stack([_scores(vectors, subject, settings) for subject in subjects], axis=1)
    places = assign(table, [subject.threshold for subject in subjects])
    too_few = f"only {_count(len(faces), 'face')} for {len(subjects)} characters"
    verdicts = tuple(
        SubjectVerdict(
            subject.references.character, False, None, subject.threshold, None, None, too_few
        )
        if place is None
        else _subject_verdict(
            subject, float(table[place, column]), faces[place], vectors[place : place + 1]
        )
        for column, (subject, place) in enumerate(zip(subjects, places, strict=True))
    )
    strangers: tuple[int, ...] = ()
    if settings.which == "all":
        passing = (table >= [subject.threshold for subject in subjects]).any(axis=1)
        places_known = {*places, *np.flatnonzero(passing).tolist()}
        known = {faces[place] for place in places_known if place is not None}
        strangers = tuple(index for index in range(len(seen.faces)) if index not in known)
    keep = all(verdict.match for verdict in verdicts) and not strangers
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return PictureVerdict(
        index=seen.index,
        keep=keep,
        reason=_reason(verdicts, subjects, strangers),
        score=min(scores, default=None),
        faces=seen.faces,
        subjects=verdicts,
        size=seen.size,
        picture_sha256=seen.sha256,
        strangers=strangers,
    )


def _scores(vectors: Vectors, subject: Subject, settings: JudgeSettings) -> Vectors:
    references = subject.references
    metric = references.model.metric
    return score_against(vectors, references.vectors, metric, settings.rule, settings.k)


def _subject_verdict(subject: Subject, score: float, face: int, vector: Vectors) -> SubjectVerdict:
    references = subject.references
    nearest = int(similarities(vector, references.vectors, references.model.metric)[0].argmax())
    names = references.files
    match = score >= subject.threshold
    text, limit = _told_apart(score, subject.threshold)
    return SubjectVerdict(
        character=references.character,
        match=match,
        score=score,
        threshold=subject.threshold,
        face=face,
        reference=names[nearest] if nearest < len(names) else f"reference {nearest + 1}",
        reason=f"score {text} {'reaches' if match else 'under'} the threshold {limit}",
    )


def _faceless(
    seen: SeenPicture, subjects: Sequence[Subject], reason: str, *, keep: bool
) -> PictureVerdict:
    return PictureVerdict(
        index=seen.index,
        keep=keep,
        reason=reason,
        score=None,
        faces=seen.faces,
        subjects=tuple(
            SubjectVerdict(
                subject.references.character, False, None, subject.threshold, None, None, reason
            )
            for subject in subjects
        ),
        size=seen.size,
        picture_sha256=seen.sha256,
        unreadable=bool(seen.unreadable),
    )


def _reason(
    verdicts: Sequence[SubjectVerdict], subjects: Sequence[Subject], strangers: Sequence[int]
) -> str:
    parts: list[str] = []
    failed = [verdict for verdict in verdicts if not verdict.match]
    for verdict, subject in zip(verdicts, subjects, strict=True):
        if verdict.score is None:
            if verdict.reason not in parts:
                parts.append(verdict.reason)
        elif not verdict.match or not failed:
            name = f"{subject.references.name}: " if len(subjects) > 1 else ""
            parts.append(name + verdict.reason)
    if strangers:
        whom = subjects[0].references.name if len(subjects) == 1 else "one of the characters"
        others = "1 face is" if len(strangers) == 1 else f"{len(strangers)} faces are"
        # What passed is not why the picture was rejected.
        parts = [*(parts if failed else []), f"{others} not {whom}"]
    return "; ".join(parts)


def _told_apart(score: float, threshold: float) -> tuple[str, str]:
    """Return both with two decimals, or as many more as it takes to tell them apart."""
    for digits in range(2, 9):
        text, limit = f"{score:.{digits}f}", f"{threshold:.{digits}f}"
        if text != limit or score == threshold:
            return text, limit
    return repr(score), repr(threshold)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
