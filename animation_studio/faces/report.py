"""The consistency report: one JSON document a run that says what was judged, how, and why.

    python -m animation_studio.faces.report > web/schemas/consistency_report-1.schema.json

writes its JSON Schema.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, FiniteFloat

from .engine import FaceEngine, Metric
from .judge import JudgeSettings, NoFace, PictureVerdict, Subject, WhichFace
from .similarity import ScoreRule

__all__ = ["ConsistencyReport", "Tries", "json_schema", "report_of"]

NodeName: TypeAlias = Literal["ConsistencyFilter", "UntilConsistent"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineRecord(_Part):
    """Which model compared, and what computed it."""

    engine: str
    model: str
    sha256: str
    dimensions: int
    metric: Metric
    provider: str


class SettingsRecord(_Part):
    """How pictures were judged; see `JudgeSettings`."""

    rule: ScoreRule
    k: int
    which: WhichFace
    no_face: NoFace
    keep_at_most: int


class SubjectRecord(_Part):
    """A character that was looked for; `references` are file names without folders."""

    character: str
    name: str
    threshold: FiniteFloat
    references: list[str]


class FaceRecord(_Part):
    """A face in pixels: `box` is left, top, right, bottom; `points` are x, y."""

    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    detector_score: FiniteFloat
    points: list[tuple[FiniteFloat, FiniteFloat]]


class SubjectVerdictRecord(_Part):
    """What a picture says of a subject; `face` is an index into the picture's faces."""

    character: str
    match: bool
    score: FiniteFloat | None
    threshold: FiniteFloat
    face: int | None
    reference: str | None
    reason: str


class PictureRecord(_Part):
    """What became of one picture; `seed` where the node knows it."""

    index: int
    keep: bool
    reason: str
    score: FiniteFloat | None
    seed: int | None
    unreadable: bool
    width: int
    height: int
    picture_sha256: str
    faces: list[FaceRecord]
    subjects: list[SubjectVerdictRecord]
    strangers: list[int]


class Totals(_Part):
    """Counts of pictures; `best` is the index of the best picture, kept or not."""

    pictures: int
    kept: int
    rejected: int
    no_face: int
    unreadable: int
    best: int | None


class Tries(_Part):
    """How UntilConsistent went: `wanted` pictures to pass, at most `limit` tries.

    `seeds` are all seeds in the order they were judged; `judged_before` those among them whose
    verdict was known from an earlier run, so that they were not sampled again.
    """

    wanted: int
    limit: int
    made: int
    seeds: list[int]
    judged_before: list[int] = []


class ConsistencyReport(_Part):
    """What was judged in one run, how, and why it came out as it did."""

    format: Literal["animation_studio/consistency_report/1"] = (
        "animation_studio/consistency_report/1"
    )
    created: datetime.datetime
    node: NodeName
    engine: EngineRecord
    settings: SettingsRecord
    subjects: list[SubjectRecord]
    pictures: list[PictureRecord]
    totals: Totals
    tries: Tries | None = None
    warnings: list[str] = []
    versions: dict[str, str] = {}

    def as_json(self) -> str:
        """Return the report as indented JSON text, ending in a newline; never NaN in it."""
        return self.model_dump_json(indent=2) + "\n"


def report_of(
    node: NodeName,
    engine: FaceEngine,
    subjects: Sequence[Subject],
    settings: JudgeSettings,
    verdicts: Sequence[PictureVerdict],
    *,
    seeds: Sequence[int | None] | None = None,
    tries: Tries | None = None,
    warnings: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    created: datetime.datetime | None = None,
) -> ConsistencyReport:
    """Make the report of a run; `seeds` has one value a picture, `created` is now in UTC if None.

    Warnings of the engine and of the references come first, then `warnings`; each once.
    """
    raise NotImplementedError


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the report as JSON text, ending in a newline."""
    raise NotImplementedError
