"""The consistency report: one JSON document a run that says what was judged, how, and why.

Its JSON Schema is published as web/schemas/consistency_report-1.schema.json, which
`python scripts/export_schemas.py` writes from the models here.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ..errors import FaceError
from .engine import Face, FaceEngine, Metric
from .judge import JudgeSettings, NoFace, PictureVerdict, Subject, WhichFace, best_of
from .similarity import ScoreRule

__all__ = ["ConsistencyReport", "Tries", "json_schema", "report_of", "verdicts_by_picture"]

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
    every = [*engine.warnings, *(line for one in subjects for line in one.references.warnings)]
    known = seeds if seeds is not None else [None] * len(verdicts)
    return ConsistencyReport(
        created=created or datetime.datetime.now(datetime.timezone.utc),
        node=node,
        engine=_engine(engine),
        settings=SettingsRecord(**asdict(settings)),
        subjects=[_subject(one) for one in subjects],
        pictures=[_picture(one, seed) for one, seed in zip(verdicts, known, strict=True)],
        totals=_totals(verdicts),
        tries=tries,
        warnings=list(dict.fromkeys([*every, *warnings])),
        versions=dict(versions or {}),
    )


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the report as JSON text, ending in a newline."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:animation-studio:consistency_report:1",
        **ConsistencyReport.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"


def _engine(engine: FaceEngine) -> EngineRecord:
    model = engine.model
    return EngineRecord(
        engine=model.engine,
        model=model.name,
        sha256=model.sha256,
        dimensions=model.dimensions,
        metric=model.metric,
        provider=engine.provider,
    )


def _subject(subject: Subject) -> SubjectRecord:
    references = subject.references
    return SubjectRecord(
        character=references.character,
        name=references.name,
        threshold=subject.threshold,
        references=list(references.files),
    )


def _picture(verdict: PictureVerdict, seed: int | None) -> PictureRecord:
    width, height = verdict.size
    return PictureRecord(
        index=verdict.index,
        keep=verdict.keep,
        reason=verdict.reason,
        score=verdict.score,
        seed=seed,
        unreadable=verdict.unreadable,
        width=width,
        height=height,
        picture_sha256=verdict.picture_sha256,
        faces=[_face(face) for face in verdict.faces],
        subjects=[SubjectVerdictRecord(**asdict(subject)) for subject in verdict.subjects],
        strangers=list(verdict.strangers),
    )


def _face(face: Face) -> FaceRecord:
    # A hundredth of a pixel is finer than any detector.
    left, top, right, bottom = (round(float(value), 2) for value in face.box)
    return FaceRecord(
        box=(left, top, right, bottom),
        detector_score=round(float(face.score), 4),
        points=[(round(float(x), 2), round(float(y), 2)) for x, y in face.points],
    )


def _totals(verdicts: Sequence[PictureVerdict]) -> Totals:
    kept = sum(verdict.keep for verdict in verdicts)
    unreadable = sum(verdict.unreadable for verdict in verdicts)
    return Totals(
        pictures=len(verdicts),
        kept=kept,
        rejected=len(verdicts) - kept,
        no_face=sum(not verdict.faces for verdict in verdicts) - unreadable,
        unreadable=unreadable,
        best=best_of(verdicts),
    )


def verdicts_by_picture(report: str) -> dict[str, dict[str, object]]:
    """Return the verdicts of a consistency report as plain data, by the picture's `picture_sha256`.

    An empty text gives none. Raises FaceError for a text that is no such report.
    """
    if not report:
        return {}
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
