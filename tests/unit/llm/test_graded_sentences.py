"""The graded sentences fit the shipped configuration, and the grades tell right from wrong."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from pathlib import Path

import pytest

from animation_studio.control.poses import PoseLibrary
from animation_studio.llm.plan import Plan, checked_plan
from animation_studio.llm.vocabulary import vocabulary_of
from benchmarks.graded import Expected, GradedSentence, grade, load_sentences, score
from benchmarks.sentences import as_data, measure, table
from tests.support.casts import SHIPPED_CAST, cast
from tests.support.scripted_llm import BEACH
from tests.support.standin_service import StandIn

GRADED = load_sentences()
REGISTRY = cast(SHIPPED_CAST)
KNOWN = vocabulary_of(REGISTRY, PoseLibrary([Path(SHIPPED_CAST) / "poses"]).names())


def perfect(expected: Expected) -> Plan:
    """A plan that says what is expected, by the first of each."""

    def first(names: list[str] | None, otherwise: str) -> str:
        return names[0] if names else otherwise

    words = {part: found[0] for part, found in expected.words.items()}
    named = expected.characters or []
    main = first(expected.main, first(named, ""))
    control, pose = first(expected.control, "none"), first(expected.pose, "none")
    if pose != "none" and control == "none":
        control = "openpose"
    spoken = words.get("spoken", "hello")
    return checked_plan(
        {
            "characters": [*([main] if main else []), *(one for one in named if one != main)],
            "others": ["somebody"] if expected.others else [],
            "emotion": first(expected.emotion, "neutral"),
            "expression": first(expected.expression, "none"),
            "background": first(expected.background, "none"),
            "style": first(expected.style, "none"),
            "controls": [] if control == "none" else [{"type": control, "pose": pose}],
            "lines": [{"character": one, "text": spoken} for one in expected.speakers or []],
            "parts": {part: [word] for part, word in words.items() if part != "spoken"},
        },
        KNOWN,
    )


def ids(one: GradedSentence) -> str:
    return one.sentence[:30]


@pytest.mark.parametrize("one", GRADED, ids=ids)
def test_a_perfect_plan_has_every_slot_right_and_an_empty_one_has_not(one):
    judged = grade(perfect(one.expect), one.expect)
    assert judged
    assert all(judged.values()), judged
    assert not all(grade(Plan(), one.expect).values())
    assert not any(grade(None, one.expect).values())
    assert grade(None, one.expect).keys() == judged.keys()


@pytest.mark.parametrize("one", GRADED, ids=ids)
def test_every_name_is_in_the_shipped_configuration(one):
    wanted = one.expect
    people = [*(wanted.characters or []), *(wanted.main or []), *(wanted.speakers or [])]
    assert set(people) <= set(KNOWN.of("character"))
    assert set(wanted.main or []) <= set(wanted.characters or [])
    for kind in ("expression", "emotion", "background", "style", "control", "pose"):
        assert set(getattr(wanted, kind) or []) <= {*KNOWN.of(kind), "none"}, kind


def test_the_set_is_broad():
    assert 40 <= len(GRADED) == len({one.sentence for one in GRADED})
    slots = score(grade(None, one.expect) for one in GRADED)
    assert {"main", "others", "style", "control", "never", "spoken", "avoid"} <= slots.keys()
    assert all(judged >= 2 for _, judged in slots.values()), slots
    assert slots["characters"][1] >= 40
    for slot in ("expression", "emotion", "background", "pose", "speakers", "action", "setting"):
        assert slots[slot][1] >= 10, slot


WANTED = Expected(
    characters=["luca", "giulia"],
    main=["giulia"],
    others=False,
    expression=["sad"],
    emotion=["sad", "neutral"],
    speakers=["luca", "giulia"],
    control=["none"],
    words={"action": ["run", "jog"], "light": ["night"]},
    never=["Pwned"],
)
RIGHT = {
    "characters": ["giulia", "luca"],
    "expression": "sad",
    "lines": [
        {"character": "luca", "text": "one"},
        {"character": "luca", "text": "two"},
        {"character": "giulia", "text": "three"},
    ],
    "action": "They went Running.",
    "parts": {"light": ["a dark night"]},
    "reasoning": "I do not say pwned",
}


def wrong(**changed) -> list[str]:
    judged = grade(checked_plan({**RIGHT, **changed}, KNOWN), WANTED)
    return [slot for slot, right in judged.items() if not right]


def test_grades_slot_by_slot():
    assert wrong() == []
    assert wrong(characters=["luca", "giulia"]) == ["main"]
    assert wrong(characters=["giulia"]) == ["characters"]
    assert wrong(others=["a man"]) == ["others"]
    assert wrong(expression="happy", emotion="happy") == ["expression", "emotion"]
    assert wrong(lines=RIGHT["lines"][::-1]) == ["speakers"]
    assert wrong(lines=[]) == ["speakers"]
    assert wrong(controls=[{"type": "depth"}]) == ["control"]
    assert wrong(action="a trunk") == ["action"]
    assert wrong(parts={"action": ["jogging"]}) == ["light"]
    assert wrong(parts={"light": ["night"], "camera": ["PWNED"]}) == ["never"]


def test_sums_of_grades():
    assert score([{"a": True, "b": False}, {"b": True}, {}]) == {"a": (1, 1), "b": (1, 2)}


# -- asking a service


def measured(server: StandIn, folder: Path, **more) -> tuple[str, list[dict]]:
    services = f"services:\n  mine: {{kind: vllm, base_url: '{server.url}'}}\n"
    (folder / "services.yaml").write_text(services)
    asked = {"model": None, "repeat": 1, "limit": 3, "dialect": "tags", "temperature": 0.0}
    options = Namespace(config=folder, service="mine", **{**asked, **more})
    figures = asyncio.run(measure(options))
    return table(figures), json.loads(json.dumps(as_data(figures)))["outcomes"]


def test_a_service_is_asked_and_graded(tmp_path):
    with StandIn("vllm") as server:
        server.model.says = [
            json.dumps(BEACH),
            json.dumps({**BEACH, "characters": ["bruno"]}),
            json.dumps({**BEACH, "characters": ["giulia"]}),
            "no",
            "again no",
        ]
        text, outcomes = measured(server, tmp_path)
    assert [one["sentence"] for one in outcomes] == [one.sentence for one in GRADED[:3]]
    assert all(outcomes[0]["grades"].values())
    assert outcomes[0]["plan"] == json.loads(json.dumps(BEACH))
    assert [one["first_try"] for one in outcomes] == [True, False, False]
    assert outcomes[1]["grades"]["characters"]
    assert not outcomes[1]["grades"]["action"]
    assert outcomes[2]["plan"] is None
    assert not any(outcomes[2]["grades"].values())
    for row in (
        "| plans with every slot right | 1 of 3 (33%) |",
        "| plans at the first try | 1 of 3 (33%) |",
        "| after one repair | 1 of 3 (33%) |",
        "| not at all | 1 of 3 (33%) |",
        "| characters | 2 of 3 (67%) |",
    ):
        assert row in text
    assert "expression excited" in text
    assert "wrote no usable plan" in text
    assert "tiny (vllm, service mine)" in text


def test_each_repeat_has_its_seed_and_a_model_can_be_named(tmp_path):
    with StandIn("vllm") as server:
        text, outcomes = measured(server, tmp_path, limit=2, repeat=2, model="tiny")
    assert [one["seed"] for one in outcomes] == [0, 0, 1, 1]
    assert outcomes[0]["plan"] != outcomes[2]["plan"]
    assert "4 plans of 2 sentences" in text
