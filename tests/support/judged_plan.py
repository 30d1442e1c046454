"""A plan with everything in it, judgements of its picture, and consistency reports."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from animation_studio.faces.report import (
    ConsistencyReport,
    EngineRecord,
    FaceRecord,
    PictureRecord,
    SettingsRecord,
    Totals,
)
from animation_studio.llm.judgement import Answered, Judgement, JudgementRules, judgement_of
from animation_studio.llm.plan import Plan, PlanControl, PlanLine, PlanParts
from animation_studio.llm.questions import questions_for
from animation_studio.llm.vocabulary import vocabulary_of
from animation_studio.registry import load_registry

__all__ = ["FRAMING", "KNOWN", "PLAN", "REGISTRY", "SLOTS", "judged", "report"]

REGISTRY = load_registry([Path(__file__).resolve().parents[2] / "configs"])
KNOWN = vocabulary_of(REGISTRY, ["running", "standing"])
FRAMING = {"camera", "composition", "parts.camera"}
PLAN = Plan(
    intent="Luca runs on the beach, excited",
    characters=["luca"],
    others=["a fisherman"],
    action="Luca runs along the beach",
    emotion="excited",
    expression="excited",
    location="the beach",
    background="portorosso",
    style="pixar_3d",
    time="sunset",
    light="golden light",
    camera="wide shot",
    composition="Luca on the left",
    controls=[PlanControl(reason="he runs", type="openpose", pose="running")],
    lines=[PlanLine(character="luca", emotion="excited", text="Silenzio, Bruno!")],
    reasoning="all follows",
    parts=PlanParts(
        action=["running fast"],
        setting=["sandy beach"],
        light=["golden hour"],
        camera=["wide shot"],
        avoid=["crowd"],
    ),
)
SLOTS = [one.slot for one in questions_for(PLAN, REGISTRY)]


def judged(*failing: str, plan: Plan = PLAN) -> Judgement:
    """A judgement in which these slots fail; without any it is accepted."""
    answers = [
        Answered(
            **one.model_dump(),
            p_yes=0.9 if (one.kind == "plan") != (one.slot in failing) else 0.1,
            measured=True,
        )
        for one in questions_for(plan, REGISTRY)
    ]
    rules = JudgementRules(mean=0.0)
    judgement = judgement_of("sha", answers, rules, service="eyes", model="qwen")
    assert set(judgement.failing) == set(failing)
    return judgement


def report(*, keep: bool, heights: Sequence[float] = (), sha: str = "sha", **more: Any) -> str:
    """A consistency report of one picture, 1000 pixels high, with faces of these heights."""
    picture = PictureRecord(
        index=0,
        keep=keep,
        reason="score 0.51 under the threshold 0.65",
        score=None,
        seed=None,
        unreadable=False,
        width=1000,
        height=1000,
        picture_sha256=sha,
        faces=[FaceRecord(box=(0, 0, 9, high), detector_score=1, points=[]) for high in heights],
        subjects=[],
        strangers=more.get("strangers", []),
    )
    pictures = [picture, *more.get("others", [])]
    return ConsistencyReport(
        created=datetime.datetime.now(datetime.timezone.utc),
        node="ConsistencyFilter",
        engine=EngineRecord(
            engine="insightface", model="m", sha256="", dimensions=4, metric="cosine", provider="c"
        ),
        settings=SettingsRecord(rule="max", k=1, which="all", no_face="keep", keep_at_most=0),
        subjects=[],
        pictures=pictures,
        totals=Totals(pictures=1, kept=0, rejected=1, no_face=0, unreadable=0, best=None),
    ).as_json()
