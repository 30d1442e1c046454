"""The judgement report: one JSON document that says what was asked of pictures, and what came out.

Of Judge it holds the pictures; of Until Accepted every round besides: the plan, what was made of
it, and what was changed after it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import PlanError
from .judgement import Judgement, JudgementRules
from .plan import Plan

__all__ = ["JudgementReport", "Round", "judgement_report", "judgements_by_picture"]

JudgingNode: TypeAlias = Literal["Judge", "UntilAccepted"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FacesSeen(_Part):
    """What a consistency report says of the pictures of a round."""

    kept: bool
    reason: str


class Round(_Part):
    """One round of Until Accepted, counted from 1: what was tried and how it was judged.

    `judgement` is that of the round's best picture. `changed` are the fields of the plan that this
    round has otherwise than the one before, and `reasoning` why, in the model's words.
    """

    number: int
    seed: int
    plan: Plan
    judgement: Judgement
    faces: FacesSeen | None = None
    changed: list[str] = []
    reasoning: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the picture shows the plan, and the character where faces were compared."""
        return self.judgement.accepted and (self.faces is None or self.faces.kept)


class JudgementReport(_Part):
    """What was judged in one run. `best` is the number of the round whose picture was kept."""

    format: Literal["animation_studio/judgement_report/1"] = "animation_studio/judgement_report/1"
    created: datetime.datetime
    node: JudgingNode
    service: str
    model: str
    rules: JudgementRules
    plan: Plan
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
    rounds: Sequence[Round] = (),
    best: int | None = None,
    warnings: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> JudgementReport:
    """Return the report of a run, made now (UTC), of one picture or more."""
    first = judgements[0]
    return JudgementReport(
        created=datetime.datetime.now(datetime.timezone.utc),
        node=node,
        service=first.service,
        model=first.model,
        rules=first.rules,
        plan=plan,
        judgements=list(judgements),
        rounds=list(rounds),
        best=best,
        warnings=list(warnings),
        versions=dict(versions or {}),
    )


def judgements_by_picture(report: str) -> dict[str, dict[str, object]]:
    """Return what a report says of each picture, as plain data, by the picture's SHA-256.

    Each has the plan it was made of, and the rounds where there were several. An empty text gives
    none. Raises PlanError for a text that is no such report.
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
        "rounds": [one.model_dump(mode="json") for one in parsed.rounds],
    }
    return {
        one.picture: {**one.model_dump(mode="json", exclude={"picture"}), **about}
        for one in parsed.judgements
        if one.picture
    }
