"""The next plan: whatever a model answers, only what may change does."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.errors import FaceError
from animation_studio.faces.report import PictureRecord
from animation_studio.llm.plan import Plan, plan_schema
from animation_studio.llm.refine import Refined, allowed_changes, change_schema, changed_plan
from tests.support.judged_plan import FRAMING, KNOWN, PLAN, SLOTS, judged, report
from tests.support.standin_documents import random_document

NEVER = {"intent", "characters", "others", "emotion", "style", "lines", "reasoning"}


# What may change


@pytest.mark.parametrize(
    ("slot", "fields"),
    [
        ("character luca", FRAMING | {"parts.action"}),
        ("other 1", FRAMING | {"parts.action"}),
        ("count", FRAMING | {"parts.avoid"}),
        ("action", {"action", "controls", "parts.action"}),
        ("expression", {"expression", "parts.action"}),
        ("location", {"location", "background", "parts.setting"}),
        ("time", {"time", "light", "parts.light"}),
        ("light", {"time", "light", "parts.light"}),
        ("camera", FRAMING),
        ("composition", FRAMING),
        ("style", {"parts.light", "parts.avoid"}),
        ("hands", FRAMING | {"parts.avoid"}),
        ("cut off", FRAMING | {"parts.avoid"}),
    ],
)
def test_a_failing_slot_opens_its_fields(slot: str, fields: set[str]):
    assert allowed_changes(judged(slot)) == fields


@settings(deadline=None)
@given(st.sets(st.sampled_from(SLOTS)))
def test_what_nobody_may_change_is_never_open(failing: set[str]):
    allowed = allowed_changes(judged(*failing))
    assert not allowed & NEVER
    assert bool(allowed) == bool(failing)
    assert ("background" in allowed) == ("location" in failing)


def test_a_rejected_face_opens_the_framing():
    accepted = judged()
    assert allowed_changes(accepted) == frozenset()
    assert allowed_changes(accepted, report(keep=True, heights=[60])) == frozenset()
    assert allowed_changes(accepted, report(keep=False, heights=[60])) == FRAMING
    assert allowed_changes(accepted, report(keep=False)) == FRAMING
    stranger = report(keep=False, heights=[60, 70], strangers=[1])
    assert allowed_changes(accepted, stranger) == FRAMING | {"parts.avoid"}


def test_a_report_speaks_of_the_picture_that_was_judged():
    accepted = judged()
    other = PictureRecord.model_validate(
        {**json.loads(report(keep=False, sha="other"))["pictures"][0], "index": 1}
    )
    assert not allowed_changes(accepted, report(keep=True, heights=[300], others=[other]))
    strange = report(keep=False, sha="third", others=[other])
    assert not allowed_changes(accepted, strange), "two pictures, and neither is this one"
    enlarged = report(keep=False, sha="third")
    assert allowed_changes(accepted, enlarged) == FRAMING, "the only picture, changed since"


@pytest.mark.parametrize(
    "text", ["no JSON", "{}", '{"format": "other/1", "pictures": []}', "[1]", '{"pictures": 3}']
)
def test_a_text_that_is_no_report(text: str):
    with pytest.raises(FaceError, match="Connect the report output"):
        allowed_changes(judged(), text)


# What an answer can do


def apply(data: object, allowed: set[str] | frozenset[str], plan: Plan = PLAN) -> Refined:
    done = changed_plan(plan, data, allowed, KNOWN)
    assert isinstance(done, Refined), done
    return done


def paths(plan: Plan) -> dict[str, object]:
    """Every field of a plan, those of its parts by their paths."""
    data = plan.model_dump()
    parts = data.pop("parts")
    return {**data, **{f"parts.{name}": value for name, value in parts.items()}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("none"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = sorted(paths(PLAN))


@settings(deadline=None)
@given(st.sets(st.sampled_from(SLOTS), min_size=1), st.integers(0, 2**32), st.data())
def test_no_answer_changes_what_may_not_change(failing: set[str], seed: int, data: st.DataObject):
    allowed = allowed_changes(judged(*failing))
    answer = random_document(change_schema(allowed, KNOWN), random.Random(seed))
    forbidden = {
        "characters": ["giulia"],
        "others": [],
        "style": "none",
        "intent": "something else",
        "lines": [],
        "emotion": "sad",
    }
    answer = {**forbidden, **answer}
    answer.update(data.draw(st.dictionaries(st.sampled_from([*FIELDS, "parts", "x"]), JSON)))
    done = changed_plan(PLAN, answer, allowed, KNOWN)
    if not isinstance(done, Refined):
        assert done, "an answer that is refused is told why"
        return
    before, after = paths(PLAN), paths(done.plan)
    differing = {path for path in before if before[path] != after[path]}
    assert differing == set(done.changed) <= allowed
    again = Plan.model_validate(done.plan.model_dump(), context=KNOWN)
    assert again == done.plan, "the changed plan is a plan"
    for path in allowed - {"controls", "background"}:
        assert after[path] not in ("", "none", []), "no slot falls silent"


@settings(deadline=None)
@given(st.sets(st.sampled_from(SLOTS), min_size=1), st.integers(0, 2**32))
def test_every_answer_that_obeys_the_schema_is_a_change(failing: set[str], seed: int):
    allowed = allowed_changes(judged(*failing))
    schema = change_schema(allowed, KNOWN)
    assert next(iter(schema["properties"])) == "reasoning"
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    answer = random_document(schema, random.Random(seed))
    done = apply(answer, allowed)
    assert done.reasoning == answer["reasoning"]
    assert not done.accepted


def test_the_fields_are_as_the_plan_has_them():
    allowed = allowed_changes(judged(*SLOTS))
    schema, plan = change_schema(allowed, KNOWN), plan_schema(KNOWN)
    parts = schema["properties"].pop("parts")["properties"]
    assert parts == plan["properties"]["parts"]["properties"]
    assert {name: plan["properties"][name] for name in schema["properties"]} == schema["properties"]
    assert set(schema["properties"]) - {"reasoning"} == {
        path for path in allowed if not path.startswith("parts.")
    }


def test_what_is_emptied_stays():
    allowed = allowed_changes(judged("action", "location", "expression", "light"))
    done = apply(
        {
            "reasoning": "less is easier",
            "action": "",
            "expression": "none",
            "location": " ",
            "background": "none",
            "time": "",
            "light": "",
            "controls": [],
            "parts": {"action": [], "setting": [""], "light": None},
        },
        allowed,
    )
    assert done.changed == ["background", "controls"], "both may end: the location still says it"
    assert done.reasoning == "less is easier"


def test_a_place_that_only_a_background_says_keeps_it():
    plan = PLAN.model_copy(update={"location": ""})
    answer = {"reasoning": "", "background": "none", "parts": {"setting": ["sand"]}}
    done = apply({**answer, "location": ""}, {"location", "background", "parts.setting"}, plan)
    assert done.changed == ["parts.setting"]
    done = apply({**answer, "location": "a pier"}, {"location", "background"}, plan)
    assert done.changed == ["location", "background"]


def test_an_answer_that_changes_nothing_is_no_error():
    allowed = {"camera", "parts.camera"}
    done = apply(
        {"reasoning": "it is fine", "camera": "wide shot", "parts": {"camera": ["wide shot"]}},
        allowed,
    )
    assert done.changed == []
    assert done.plan == PLAN


@pytest.mark.parametrize(
    ("data", "place", "said"),
    [
        ({"expression": "laughing", "reasoning": "", "parts": {"action": []}}, "expression", "no"),
        ({"expression": "happy", "parts": {"action": []}}, "reasoning", "required"),
        ({"expression": "happy", "reasoning": ""}, "parts", "required"),
        ({"expression": "happy", "reasoning": "", "parts": {}}, "parts.action", "required"),
        ([], "", "valid"),
        (None, "", "valid"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said_with_its_place(data: object, place: str, said: str):
    problems = changed_plan(PLAN, data, {"expression", "parts.action"}, KNOWN)
    assert isinstance(problems, list)
    assert [one[0] for one in problems] == [place]
    assert said in problems[0][1]
