"""Faces: who is in a picture, and is it the character?

An engine finds, aligns and embeds faces (`engine`, chosen in `engines`); `references` say what a
character looks like; scores against them (`similarity`, `assignment`) become verdicts (`judge`),
and verdicts a report (`report`) and pictures of it (`sheet`). `calibration` proposes a threshold.
"""

from .calibration import Calibration, calibrate
from .engine import Face, FaceEngine, Metric, ModelId
from .judge import (
    JudgeSettings,
    NoFace,
    PictureVerdict,
    Subject,
    Unreadable,
    WhichFace,
    best_of,
    judge,
)
from .references import (
    NewReference,
    References,
    load_references,
    save_references,
    stored_references,
)
from .report import ConsistencyReport, Tries, report_of
from .sheet import annotate, contact_sheet, histogram
from .similarity import ScoreRule

__all__ = [
    "Calibration",
    "ConsistencyReport",
    "Face",
    "FaceEngine",
    "JudgeSettings",
    "Metric",
    "ModelId",
    "NewReference",
    "NoFace",
    "PictureVerdict",
    "References",
    "ScoreRule",
    "Subject",
    "Tries",
    "Unreadable",
    "WhichFace",
    "annotate",
    "best_of",
    "calibrate",
    "contact_sheet",
    "histogram",
    "judge",
    "load_references",
    "report_of",
    "save_references",
    "stored_references",
]
