"""Judging pictures for the nodes: requests to subjects, verdicts to tensors, lines and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast, get_args

import comfy.model_management
import comfy.utils
import numpy as np

from ..errors import FaceError
from ..registry import NONE
from . import studio
from .environment import versions
from .face_engines import AUTO, AUTO_THRESHOLD, CLIP_VISION, engine_for
from .face_pictures import batches_of, pictures_of, single_images
from .face_references import references_of
from .images import to_image

if TYPE_CHECKING:
    import torch

    from ..faces.engine import FaceEngine, Picture
    from ..faces.references import References
    from ..faces.similarity import ScoreRule
    from ..faces.verdict import (
        JudgeSettings,
        NoFace,
        PictureVerdict,
        Subject,
        Unreadable,
        WhichFace,
    )
    from ..registry import Look
    from .comfy_types import ClipVision

__all__ = [
    "Filtered",
    "Given",
    "JudgeRequest",
    "Panel",
    "best_score",
    "filter_pictures",
    "judge_with_progress",
    "panel_for",
    "readable",
]

_GUESS = (
    "the threshold of {} is a guess: clip_vision's scores depend on its model. Use Calibrate "
    "Threshold with references of your characters."
)


@dataclass(frozen=True)
class JudgeRequest:
    """What the widgets of a judging node say; plain values, so that JSON can carry it."""

    characters: list[str]
    engine: str = AUTO
    threshold: float = AUTO_THRESHOLD
    score: str = "max"
    best_k: int = 3
    which_face: str = "best match"
    no_face: str = "reject"
    keep_at_most: int = 0

    @property
    def settings(self) -> JudgeSettings:
        """The library's form of the settings. Raises FaceError for a word that is none of it."""
        from ..faces.similarity import ScoreRule
        from ..faces.verdict import JudgeSettings, NoFace, WhichFace

        for name, value, choices in (
            ("score", self.score, get_args(ScoreRule)),
            ("which_face", self.which_face, get_args(WhichFace)),
            ("no_face", self.no_face, get_args(NoFace)),
        ):
            if value not in choices:
                raise FaceError(f"{name} is {value!r}; it should be one of {', '.join(choices)}")
        return JudgeSettings(
            rule=cast("ScoreRule", self.score),
            k=self.best_k,
            which=cast("WhichFace", self.which_face),
            no_face=cast("NoFace", self.no_face),
            keep_at_most=self.keep_at_most,
        )


@dataclass(frozen=True)
class Given:
    """What links add to a request: a look, references made in this graph, a CLIP vision model."""

    look: Look | None = None
    references: Sequence[References] = ()
    clip_vision: ClipVision | None = None


@dataclass(frozen=True)
class Panel:
    """Who judges and against whom: an engine, and the characters that pictures must show."""

    engine: FaceEngine
    subjects: list[Subject]
    settings: JudgeSettings
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Filtered:
    """Pictures judged: tensors in the order they came, scores, report, and what the node shows.

    `kept`, `rejected` and `annotated` are lists of batches of one size; pictures that cannot be
    read are in neither of the first two. `scores` has one number a picture, -1 where there is no
    face to score.
    """

    kept: list[torch.Tensor]
    rejected: list[torch.Tensor]
    best: torch.Tensor | None
    scores: list[float]
    report: str
    annotated: list[torch.Tensor]
    sheet: torch.Tensor
    lines: list[str]
    warnings: list[str]


def panel_for(request: JudgeRequest, given: Given) -> Panel:
    """Open the engine and gather the references that a request asks for.

    Characters are those of the widgets, else those of the linked references, else the look's.
    Raises FaceError where nobody is named, where references do not fit the engine, and as
    `engine_for` and `references_of` do.
    """
    from ..faces.judge import check_subjects
    from ..faces.verdict import Subject

    engine = engine_for(request.engine, given.clip_vision)
    linked = {one.character: one for one in given.references}
    names = [name for name in request.characters if name != NONE] or list(linked)
    if not names and given.look is not None and given.look.character is not None:
        names = [given.look.character]
    if not names:
        raise FaceError(
            "no character is chosen: choose one, or connect a look or references that name one."
        )
    subjects = []
    for name in dict.fromkeys(names):
        references = linked.get(name) or references_of(name, engine)
        subjects.append(Subject(references, _threshold(name, request.threshold, engine)))
    check_subjects(engine, subjects)
    warnings = [*engine.warnings, *(text for one in subjects for text in one.references.warnings)]
    guessed = [one for one in subjects if one.threshold == engine.default_threshold]
    if engine.model.engine == CLIP_VISION and guessed:
        warnings.append(_GUESS.format(engine.default_threshold))
    return Panel(engine, subjects, request.settings, warnings)


def _threshold(character: str, asked: float, engine: FaceEngine) -> float:
    if asked != AUTO_THRESHOLD:
        return asked
    registry = studio.registry()
    if character in registry.names("character"):
        own = registry.character(character).preset.threshold_for(engine.model.engine)
        if own is not None:
            return own
    return engine.default_threshold


def readable(pictures: Sequence[Picture | str]) -> list[Picture | Unreadable]:
    """Return pictures as the judge takes them: a text is why one could not be read."""
    from ..faces.verdict import Unreadable

    return [Unreadable(one) if isinstance(one, str) else one for one in pictures]


def judge_with_progress(
    panel: Panel, pictures: Sequence[Picture | Unreadable]
) -> list[PictureVerdict]:
    """Judge pictures with ComfyUI's progress bar; stops when the run is interrupted."""
    from ..faces.judge import judge

    bar = comfy.utils.ProgressBar(len(pictures))

    def on_picture(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return judge(panel.engine, pictures, panel.subjects, panel.settings, on_picture)


def filter_pictures(
    images: Sequence[torch.Tensor], request: JudgeRequest, given: Given, *, pass_best: bool
) -> Filtered:
    """Judge every picture of a list of batches.

    `images` are float [batch, height, width, channels]. With `pass_best` the best picture takes the
    place of `kept` where none passes. Raises as `panel_for`, and FaceError where no_face is "error"
    and a picture shows no face.
    """
    from ..faces.judge import best_of
    from ..faces.report import report_of
    from ..faces.sheet import annotate, contact_sheet

    panel = panel_for(request, given)
    singles = single_images(images)
    pictures = readable(pictures_of(images))
    verdicts = judge_with_progress(panel, pictures)
    best = best_of(verdicts)
    kept = [one for one, verdict in zip(singles, verdicts, strict=True) if verdict.keep]
    # Nothing after the filter could do anything with a picture that cannot be read.
    rejected = [
        one
        for one, verdict in zip(singles, verdicts, strict=True)
        if not verdict.keep and not verdict.unreadable
    ]
    lines, warnings = _lines(panel, verdicts), list(panel.warnings)
    if unreadable := [verdict.index + 1 for verdict in verdicts if verdict.unreadable]:
        numbers = ", ".join(map(str, unreadable))
        warnings.append(f"left out of kept and rejected, since they cannot be read: {numbers}")
    if not kept:
        warnings.append(_nothing_passed(verdicts, pass_best=pass_best and best is not None))
        if pass_best and best is not None:
            kept = [singles[best]]
    drawn = [
        to_image([annotate(_pixels(picture, verdict), verdict)])
        for picture, verdict in zip(pictures, verdicts, strict=True)
    ]
    report = report_of(
        node="ConsistencyFilter",
        engine=panel.engine,
        subjects=panel.subjects,
        settings=panel.settings,
        verdicts=verdicts,
        warnings=warnings,
        versions=versions(),
    )
    return Filtered(
        kept=batches_of(kept),
        rejected=batches_of(rejected),
        best=singles[best] if best is not None else None,
        scores=[verdict.score if verdict.score is not None else -1.0 for verdict in verdicts],
        report=report.as_json(),
        annotated=batches_of(drawn),
        sheet=to_image([contact_sheet(pictures, verdicts)]),
        lines=lines,
        warnings=warnings,
    )


def _pixels(picture: Picture | Unreadable, verdict: PictureVerdict) -> Picture:
    """The picture, or a black one in the place of one that could not be read."""
    if isinstance(picture, np.ndarray):
        return picture
    width, height = verdict.size if min(verdict.size) > 0 else (256, 256)
    return np.zeros((height, width, 3), np.uint8)


def _lines(panel: Panel, verdicts: Sequence[PictureVerdict]) -> list[str]:
    """What a node shows of verdicts: who judged, the totals, and a line a picture."""
    kept = sum(verdict.keep for verdict in verdicts)
    who = ", ".join(
        f"{one.references.name} from {one.threshold:.2f}, {len(one.references.vectors)} references"
        for one in panel.subjects
    )
    head = [
        f"{kept} of {len(verdicts)} kept: {who}",
        f"{panel.engine.model}, {panel.engine.provider}",
    ]
    return [*head, *(f"{one.index + 1}: {one.reason}" for one in verdicts)]


def best_score(verdicts: Sequence[PictureVerdict]) -> str:
    """Return the best score in words, for a message that too few passed."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return f"the best score is {max(scores):.2f}" if scores else "no picture has a face to score"


def _nothing_passed(verdicts: Sequence[PictureVerdict], *, pass_best: bool) -> str:
    then = "the best picture is passed on" if pass_best else "what comes after `kept` is not run"
    return f"none of {len(verdicts)} pictures passed, {best_score(verdicts)}: {then}"
