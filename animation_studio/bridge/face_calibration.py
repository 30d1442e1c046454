"""A threshold from the references that are there, with the histogram and the lines of its node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import studio
from .consistency import Given, JudgeRequest
from .face_engines import engine_for
from .face_references import reference_files, references_of
from .images import to_image

if TYPE_CHECKING:
    import torch

    from ..faces.calibration import Calibration
    from ..faces.engine import FaceEngine
    from ..faces.references import References

__all__ = ["Calibrated", "calibrate_threshold"]


@dataclass(frozen=True)
class Calibrated:
    """A proposed threshold, the histogram as float [1, height, width, 3], and what is shown."""

    threshold: float
    histogram: torch.Tensor
    report: str
    lines: list[str]
    warnings: list[str]


def calibrate_threshold(
    characters: Sequence[str],
    *,
    engine: str,
    false_accept_rate: float,
    score: str,
    best_k: int,
    given: Given,
) -> Calibrated:
    """Propose a threshold from the references of `characters`, or of everybody that has any.

    Linked references stand in for a character's own. Raises FaceError as `calibrate`, `engine_for`
    and `references_of` do.
    """
    from ..faces.calibration import calibrate
    from ..faces.chart import histogram

    opened = engine_for(engine, given.clip_vision)
    settings = JudgeRequest([], score=score, best_k=best_k).settings
    gathered = _gather(characters, opened, given.references)
    done = calibrate(gathered, false_accept_rate, settings.rule, settings.k)
    warnings = [text for one in gathered for text in one.warnings]
    return Calibrated(
        threshold=done.threshold,
        histogram=to_image([histogram(done)]),
        report=_report(done),
        lines=_lines(done),
        warnings=[*opened.warnings, *warnings, *done.warnings],
    )


def _gather(
    characters: Sequence[str], engine: FaceEngine, linked: Sequence[References]
) -> list[References]:
    own = {one.character: one for one in linked}
    names = list(characters)
    if not names:
        registry = studio.registry()
        saved = [name for name in registry.names("character") if reference_files(name)]
        names = [*own, *saved]
    return [own.get(name) or references_of(name, engine) for name in dict.fromkeys(names)]


def _lines(done: Calibration) -> list[str]:
    rejected = "" if done.measured_frr is None else f", rejects {done.measured_frr:.1%} genuine"
    return [
        f"threshold {done.threshold:.2f} with {done.model.engine} {done.model.name}",
        f"lets through {done.measured_far:.1%} of {len(done.impostor)} impostor scores{rejected}",
        *(
            f"{one.name}: {one.references} references"
            + ("" if one.lowest_genuine is None else f", own from {one.lowest_genuine:.2f}")
            + ("" if one.highest_impostor is None else f", others up to {one.highest_impostor:.2f}")
            for one in done.per_character
        ),
        *done.as_yaml().splitlines(),
    ]


def _report(done: Calibration) -> str:
    return (
        json.dumps(
            {
                "format": "animation_studio/calibration/1",
                "engine": done.model.engine,
                "model": done.model.name,
                "sha256": done.model.sha256,
                "rule": done.rule,
                "k": done.k,
                "threshold": done.threshold,
                "false_accept_rate": done.false_accept_rate,
                "measured_false_accept_rate": done.measured_far,
                "measured_false_reject_rate": done.measured_frr,
                "equal_error_threshold": done.equal_error_threshold,
                "overlap": done.overlap,
                "genuine": [round(float(score), 4) for score in done.genuine],
                "impostor": [round(float(score), 4) for score in done.impostor],
                "characters": [vars(one) for one in done.per_character],
                "warnings": list(done.warnings),
            },
            indent=2,
        )
        + "\n"
    )
