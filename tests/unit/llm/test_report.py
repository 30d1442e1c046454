"""The judgement report: what a record takes of it, and its published schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from animation_studio.errors import PlanError
from animation_studio.llm.judgement import Answered, Judgement, JudgementRules, judgement_of
from animation_studio.llm.plan import Plan
from animation_studio.llm.report import (
    FacesSeen,
    PlanSource,
    Round,
    json_schema,
    judgement_report,
    judgements_by_picture,
)

SCHEMA = Path(__file__).parents[3] / "web" / "schemas" / "judgement_report-1.schema.json"
WRITTEN = PlanSource(
    step="written", sentence="Luca runs", service="qwen", model="tiny", seed=2**64 - 1,
    temperature=0.3, character="luca",
)  # fmt: skip
CHANGED = WRITTEN.model_copy(update={"step": "changed", "sentence": "", "change": "nearer"})


def judged(picture: str, p_yes: float) -> Judgement:
    asked = {"slot": "action", "kind": "plan", "question": "Runs?", "suggestion": "Run."}
    answer = Answered.model_validate({**asked, "p_yes": p_yes, "measured": True})
    return judgement_of(picture, [answer], JudgementRules(), service="qwen", model="tiny")


def test_each_picture_has_its_answers_plan_and_sources() -> None:
    plan = Plan(characters=["luca"])
    both = [judged("a", 0.9), judged("b", 0.1)]
    text = judgement_report("Judge", plan, both, sources=[WRITTEN, CHANGED])
    found = judgements_by_picture(text.as_json())
    assert {key: one["accepted"] for key, one in found.items()} == {"a": True, "b": False}
    assert found["b"]["reason"] == judged("b", 0.1).reason
    for one in found.values():
        assert one["plan"] == plan.model_dump(mode="json")
        assert one["sources"] == [WRITTEN.model_dump(), CHANGED.model_dump()]
        assert one["rounds"] == []


def test_what_cannot_be_read_has_no_place() -> None:
    unread = judged("", 0.0).model_copy(update={"model": ""})
    report = judgement_report("Judge", Plan(), [unread, judged("b", 1.0)])
    assert list(judgements_by_picture(report.as_json())) == ["b"]
    assert report.model == "tiny", "that of the first picture that could be read"


def test_every_round_is_told() -> None:
    rounds = [
        Round(number=1, seed=5, plan=Plan(action="runs"), judgement=judged("a", 0.1)),
        Round(
            number=2, seed=6, plan=Plan(action="walks"), judgement=judged("b", 0.9),
            faces=FacesSeen(kept=False, reason="0.31 below 0.65"), changed=["action"],
            reasoning="slower", index=1, batch_size=2, controls=["openpose (running)"],
            source=CHANGED.model_copy(update={"step": "refined"}),
        ),
    ]  # fmt: skip
    assert [one.accepted for one in rounds] == [False, False]
    text = judgement_report("UntilAccepted", Plan(), [judged("b", 0.9)], rounds=rounds, best=2)
    [one] = judgements_by_picture(text.as_json()).values()
    assert one["rounds"] == [each.model_dump(mode="json") for each in rounds]
    assert one["best"] == 2


@pytest.mark.parametrize("text", ["{}", "no JSON", "[]", '{"format": "other"}', "\ud800"])
def test_a_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="no judgement report"):
        judgements_by_picture(text)


def test_no_text_is_no_report() -> None:
    assert judgements_by_picture("") == {}


def test_the_published_schema_is_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json_schema(), "run scripts/export_schemas.py"
    assert json.loads(json_schema())["properties"]["format"]["const"].endswith("/1")
