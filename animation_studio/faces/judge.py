"""Verdicts: is this picture the character, or are these the characters?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from .engine import Face, FaceEngine
from .verdict import (
    JudgeSettings,
    NoFace,
    PictureVerdict,
    SeenPicture,
    Subject,
    SubjectVerdict,
    Unreadable,
    WhichFace,
    picture_sha256,
    verdict_of,
)

if TYPE_CHECKING:
    from .engine import Picture, Vectors

__all__ = [
    "JudgeSettings",
    "NoFace",
    "PictureVerdict",
    "Subject",
    "SubjectVerdict",
    "Unreadable",
    "WhichFace",
    "best_of",
    "check_subjects",
    "judge",
]

# Pictures that are looked at together: enough to fill a GPU, few enough for its memory.
_MOST_PICTURES = 8
_MOST_CROPS = 32
# An interruption is noticed between chunks; a chunk grows only while it takes less than this.
_PATIENCE_S = 0.25


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
    settings = settings or JudgeSettings()
    check_subjects(engine, subjects)
    verdicts: list[PictureVerdict] = []
    for seen in _look_at_all(engine, pictures, len(subjects), settings):
        verdicts.append(verdict_of(seen, subjects, settings))
        if on_picture is not None:
            on_picture(len(verdicts), len(pictures))
    if settings.no_face == "error":
        _refuse_faceless(verdicts)
    return _keep_best(verdicts, settings.keep_at_most)


def best_of(verdicts: Sequence[PictureVerdict]) -> int | None:
    """Return the index of the best picture, kept or not; None when no picture has a score.

    Kept pictures come before others, those that show more subjects before those that show fewer;
    among equals the one whose faces are farthest over their thresholds is best, then the first.
    """
    ranked = [
        (
            verdict.keep,
            sum(subject.face is not None for subject in verdict.subjects),
            min(
                subject.score - subject.threshold
                for subject in verdict.subjects
                if subject.score is not None
            ),
            -place,
        )
        for place, verdict in enumerate(verdicts)
        if verdict.score is not None
    ]
    return -max(ranked)[-1] if ranked else None


def _look_at_all(
    engine: FaceEngine,
    pictures: Sequence[Picture | Unreadable],
    subjects: int,
    settings: JudgeSettings,
) -> Iterator[SeenPicture]:
    start, size = 0, 1
    # Hashing and detection both let go of Python's lock, so one costs no time beside the other.
    with ThreadPoolExecutor(max_workers=1) as beside:
        while start < len(pictures):
            began = time.monotonic()
            chunk = pictures[start : start + size]
            hashes = beside.map(_sha256, chunk)
            limit = subjects if settings.which == "largest" else None
            found = _look_at(engine, chunk, limit)
            for place, (picture, sha256, (faces, vectors)) in enumerate(
                zip(chunk, hashes, found, strict=True)
            ):
                shape = (0, 0) if isinstance(picture, Unreadable) else picture.shape[:2]
                yield SeenPicture(
                    index=start + place,
                    size=(shape[1], shape[0]),
                    sha256=sha256,
                    faces=faces,
                    vectors=vectors,
                    unreadable=_unreadable(picture),
                )
            start += len(chunk)
            quick = time.monotonic() - began < _PATIENCE_S
            size = min(size * 2, _MOST_PICTURES) if quick else max(size // 2, 1)


def _look_at(
    engine: FaceEngine, pictures: Sequence[Picture | Unreadable], limit: int | None
) -> list[tuple[tuple[Face, ...], Vectors]]:
    """Return each picture's faces and the embeddings of the first `limit` of them (all if None)."""
    readable = {
        place: picture
        for place, picture in enumerate(pictures)
        if not isinstance(picture, Unreadable) and picture.size
    }
    detected = engine.detect(list(readable.values())) if readable else []
    faces = dict(zip(readable, detected, strict=True))
    crops = [
        _aligned(engine, picture, face)
        for place, picture in readable.items()
        for face in faces[place][:limit]
    ]
    counts = [len(faces.get(place, [])[:limit]) for place in range(len(pictures))]
    vectors = np.split(_embed(engine, crops), np.cumsum(counts)[:-1])
    return [(tuple(faces.get(place, ())), part) for place, part in enumerate(vectors)]


def _aligned(engine: FaceEngine, picture: Picture, face: Face) -> Picture | None:
    """The aligned face, None for one whose points are none: others need not suffer for it."""
    try:
        return engine.align(picture, face)
    except FaceError:
        return None


def _embed(engine: FaceEngine, crops: Sequence[Picture | None]) -> Vectors:
    """Embed crops, float32 [n, d]; a crop that is none gets zeros, which match nothing."""
    length = engine.model.dimensions
    places = [place for place, crop in enumerate(crops) if crop is not None]
    whole = [crop for crop in crops if crop is not None]
    found = np.zeros((len(crops), length), dtype=np.float32)
    for start in range(0, len(whole), _MOST_CROPS):
        some = whole[start : start + _MOST_CROPS]
        vectors = engine.embed(some)
        if vectors.shape != (len(some), length):
            raise FaceError(
                f"{engine.model} gave embeddings of shape {list(vectors.shape)} for {len(some)} "
                f"faces; [{len(some)}, {length}] was expected."
            )
        found[places[start : start + len(some)]] = vectors
    return found


def _unreadable(picture: Picture | Unreadable) -> str:
    if isinstance(picture, Unreadable):
        return picture.reason
    return "" if picture.size else "the picture has no pixels"


def _sha256(picture: Picture | Unreadable) -> str:
    if isinstance(picture, Unreadable):
        return ""
    return picture_sha256(picture)


def check_subjects(engine: FaceEngine, subjects: Sequence[Subject]) -> None:
    """Raise FaceError for subjects that `judge` refuses with this engine."""
    if not subjects:
        raise FaceError("No character is given to compare the pictures with.")
    characters: set[str] = set()
    for subject in subjects:
        references = subject.references
        if references.character in characters:
            raise FaceError(f"Character {references.character!r} is listed twice; once is enough.")
        characters.add(references.character)
        if not math.isfinite(subject.threshold):
            raise FaceError(
                f"The threshold of {references.character!r} is {subject.threshold}; it should be a "
                "number such as 0.6."
            )
        if references.model.sha256 != engine.model.sha256:
            raise FaceError(
                f"The references of {references.character!r} were made by {references.model} and "
                f"do not compare with faces of {engine.model}. Make references with this engine, "
                "or choose the other one."
            )


def _refuse_faceless(verdicts: Sequence[PictureVerdict]) -> None:
    faceless = [
        str(verdict.index + 1)
        for verdict in verdicts
        if not verdict.faces and not verdict.unreadable
    ]
    if faceless:
        raise FaceError(
            f"No face was found in picture {', '.join(faceless)} of {len(verdicts)}. Set no_face "
            'to "reject" or "keep" where such pictures are to be expected.'
        )


def _keep_best(verdicts: list[PictureVerdict], most: int) -> list[PictureVerdict]:
    kept = [verdict for verdict in verdicts if verdict.keep]
    if most <= 0 or len(kept) <= most:
        return verdicts
    # Sorting is stable; of equals the earlier picture stays.
    ranked = sorted(kept, key=lambda one: math.inf if one.score is None else -one.score)
    surplus = {verdict.index for verdict in ranked[most:]}
    return [
        replace(
            verdict, keep=False, reason=f"{verdict.reason}, but the {most} best are kept already"
        )
        if verdict.index in surplus
        else verdict
        for verdict in verdicts
    ]
