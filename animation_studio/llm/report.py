"""The judgement report: one JSON document that says what was asked of pictures, and what came out.

Of Judge it holds the pictures; of Until Accepted every round besides: the plan, what was made of
it, and what was changed after it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import PlanError
from ..registry import NONE
from .judgement import Judgement, JudgementRules
from .plan import Plan

__all__ = [
    "JudgementReport",
    "PlanSource",
    "Round",
    "json_schema",
    "judgement_report",
    "judgements_by_picture",
]

JudgingNode: TypeAlias = Literal["Judge", "UntilAccepted"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanSource(_Part):
    """One step of a plan's making by a language model.

    written: of `sentence`. changed: as `change` says, of the plan that the steps before made.
    refined: after a judgement; `change` is the model's reason.
    """

    step: Literal["written", "changed", "refined"]
    service: str
    model: str
    seed: int
    temperature: float
    sentence: str = ""
    change: str = ""
    character: str = NONE
    dialect: str = "prose"


class FacesSeen(_Part):
    """What a consistency report says of a picture; `verdict` is all of it, with the engine."""

    kept: bool
    reason: str
    verdict: dict[str, object] = {}


class Round(_Part):
    """One round of Until Accepted, counted from 1: what was tried and how it was judged.

    `judgement` is that of the round's best picture, which has the place `index` (from 0) in the
    batch that the sampler's `seed` made. `controls` are those that steered it, as "type (pose)".
    `changed` are the fields of the plan that this round has otherwise than the one before,
    `reasoning` why, in the model's words, and `source` which model that was.
    """

    number: int
    seed: int
    index: int = 0
    batch_size: int = 1
    plan: Plan
    judgement: Judgement
    faces: FacesSeen | None = None
    controls: list[str] = []
    changed: list[str] = []
    reasoning: str = ""
    source: PlanSource | None = None

    @property
    def accepted(self) -> bool:
        """Whether the picture shows the plan, and the character where faces were compared."""
        return self.judgement.accepted and (self.faces is None or self.faces.kept)


class JudgementReport(_Part):
    """What was judged in one run. `best` is the number of the round whose picture was kept.

    `sources` are the steps of the plan's making: empty for a plan by hand. Of several rounds they
    are the first plan's; each round has its own.
    """

    format: Literal["animation_studio/judgement_report/1"] = "animation_studio/judgement_report/1"
    created: datetime.datetime
    node: JudgingNode
    service: str
    model: str
    rules: JudgementRules
    plan: Plan
    sources: list[PlanSource] = []
    judgements: list[Judgement]
    rounds: list[Round] = []
    best: int | None = None
    warnings: list[str] = []
    versions: dict[str, str] = {}

    def as_json(self) -> str:
        """Return the report as indented JSON text, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def judgement_report(
    node: JudgingNode,
    plan: Plan,
    judgements: Sequence[Judgement],
    *,
    sources: Sequence[PlanSource] = (),
    rounds: Sequence[Round] = (),
    best: int | None = None,
    warnings: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> JudgementReport:
    """Return the report of a run, made now (UTC), of one picture or more."""
    first = next((one for one in judgements if one.model), judgements[0])
    return JudgementReport(
        created=datetime.datetime.now(datetime.timezone.utc),
        node=node,
        service=first.service,
        model=first.model,
        rules=first.rules,
        plan=plan,
        sources=list(sources),
        judgements=list(judgements),
        rounds=list(rounds),
        best=best,
        warnings=list(warnings),
        versions=dict(versions or {}),
    )


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of the report as JSON text, ending in a newline."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:animation-studio:judgement_report:1",
        **JudgementReport.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"


def judgements_by_picture(report: str) -> dict[str, dict[str, object]]:
    """Return what a report says of each picture, as plain data, by the picture's SHA-256.

    Each has the plan it was made of with its sources, and the rounds where there were several. An
    empty text gives none. Raises PlanError for a text that is no such report.
    """
    if not report:
        return {}
    try:
        parsed = JudgementReport.model_validate_json(report)
    except ValidationError as error:
        raise PlanError(
            f"judgement: this text is no judgement report ({error.error_count()} faults). Connect "
            "the report output of Judge or Until Accepted."
        ) from error
    about = {
        "plan": parsed.plan.model_dump(mode="json"),
        "sources": [one.model_dump(mode="json") for one in parsed.sources],
        "rounds": [one.model_dump(mode="json") for one in parsed.rounds],
        "best": parsed.best,
    }
    return {
        one.picture: {**one.model_dump(mode="json", exclude={"picture"}), **about}
        for one in parsed.judgements
        if one.picture
    }
