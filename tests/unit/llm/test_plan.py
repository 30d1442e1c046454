"""A plan can only name what the configuration has, and its schema says the same to a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.control import PoseLibrary
from animation_studio.errors import PlanError
from animation_studio.llm.plan import NAMES, Plan, checked_plan, plan_problems, plan_schema
from animation_studio.llm.vocabulary import Vocabulary, vocabulary_of
from animation_studio.registry import load_registry

CONFIGS = Path(__file__).parents[3] / "configs"
KNOWN = vocabulary_of(load_registry([CONFIGS]), PoseLibrary([CONFIGS / "poses"]).names())
NOBODY = Vocabulary({"emotion": ("neutral",)})


def nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Every part of a schema."""
    inner = [*schema.get("properties", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(node for one in inner for node in nodes(one))]


def test_a_plan_by_name() -> None:
    plan = checked_plan(
        {
            "characters": ["Luca Paguro", "ALBERTO", "luca"],
            "expression": "Excited",
            "style": "pixar-3d",
            "lines": {"character": "luca", "text": " We can\n do this! "},
            "parts": {"action": "running"},
            "controls": {"type": "openpose", "pose": "running"},
        },
        KNOWN,
    )
    assert plan.characters == ["luca", "alberto"]
    assert (plan.expression, plan.style, plan.background) == ("excited", "pixar_3d", "none")
    assert plan.lines[0].text == "We can do this!"
    assert plan.parts.action == ["running"]
    assert (plan.character, plan.control, plan.pose) == ("luca", "openpose", "running")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"characters": ["lucca"]}, "characters.0: there is no character 'lucca'. Did you mean"),
        ({"background": "portoroso"}, "Did you mean 'portorosso'"),
        ({"expression": 3}, "expression: Input should be a valid string"),
        ({"characters": ["luca"] * 5}, "characters: List should have at most 4 items"),
        ({"lines": [{"text": "hi"}]}, "lines.0.character: Field required"),
        ({"lines": [{"character": "luca", "emotion": "joy", "text": "hi"}]}, "no emotion 'joy'"),
        ({"controls": [{"type": "scribble"}]}, "no control 'scribble'"),
        ({"camra": "wide"}, "camra: there is no such key"),
        ({"action": "x" * 301}, "action: String should have at most 300 characters"),
        ({"parts": {"action": ["a"] * 7}}, "parts.action: List should have at most 6 items"),
        ([], "should be a mapping with the keys intent, characters"),
        (None, "should be a mapping"),
        ("luca", "should be a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: object, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        checked_plan(data, KNOWN, "answer")
    assert str(caught.value).startswith("answer: ")
    assert said in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    problems = plan_problems({"characters": ["x"], "style": "y", "foo": 1}, KNOWN)
    assert not isinstance(problems, Plan)
    assert [place for place, _ in problems] == ["characters.0", "style", "foo"]


@pytest.mark.parametrize(
    ("controls", "control", "pose"),
    [
        ([], "none", "none"),
        ([("openpose", "running")], "openpose", "running"),
        ([("canny", "none"), ("openpose", "running")], "canny", "none"),
        ([("canny", "running"), ("openpose", "running")], "canny", "none"),
        ([("openpose", "running"), ("canny", "none")], "openpose", "running"),
        ([("openpose", "none")], "none", "none"),
        ([("openpose", "none"), ("depth", "none")], "depth", "none"),
        ([("openpose", "none"), ("openpose", "sitting")], "openpose", "sitting"),
    ],
)
def test_control_and_pose_are_of_one_control_that_can_be_used(
    controls: list[tuple[str, str]], control: str, pose: str
) -> None:
    data = [{"type": kind, "pose": key} for kind, key in controls]
    plan = checked_plan({"controls": data}, KNOWN)
    assert [one.type for one in plan.controls] == [kind for kind, _ in controls]
    assert (plan.control, plan.pose) == (control, pose)


def test_a_pose_of_another_control_is_put_right_for_a_model_and_told_to_a_person() -> None:
    data = {"controls": [{"reason": "edges", "type": "canny", "pose": "running"}]}
    assert checked_plan(data, KNOWN).controls[0].pose == "none"
    with pytest.raises(PlanError, match=r"controls\.0\.pose: a pose is for openpose"):
        checked_plan(data, replace(KNOWN, by_hand=True))
    unknown = {"controls": [{"type": "canny", "pose": "flying"}]}
    with pytest.raises(PlanError, match="no pose 'flying'"):
        checked_plan(unknown, KNOWN)


def test_what_nobody_sees_is_left_out() -> None:
    """Directions show a text otherwise than it is; joiners are spelling between letters only."""
    shown = "a\u202eb\u2066 \u200bc\u00ad\U000e0041d\ufeff"
    line = {"character": "luca", "text": shown}
    plan = checked_plan({"action": shown, "others": [shown, "\u200b"], "lines": line}, KNOWN)
    assert (plan.action, plan.others, plan.lines[0].text) == ("ab cd", ["ab cd"], "ab cd")
    kept = "می\u200cدود 👩\u200d🎤"
    assert checked_plan({"action": f"\u200d {kept}\u200c"}, KNOWN).action == kept


@given(st.text(max_size=60))
def test_texts_are_one_clean_line(text: str) -> None:
    plan = checked_plan({"action": text, "parts": {"setting": [text]}}, KNOWN)
    for said in (plan.action, *plan.parts.setting):
        said.encode()  # no lone surrogates
        assert said == " ".join(said.split())
        unprintable = [c for c in said if not (c.isprintable() or c in "\u200c\u200d")]
        assert not unprintable
    assert checked_plan(plan.model_dump(), KNOWN) == plan


def test_a_lone_surrogate_of_a_broken_model_is_left_out() -> None:
    plan = checked_plan(json.loads('{"action": "runs \\ud800fast\\u0000"}'), KNOWN)
    assert plan.action == "runs fast"


def test_the_schema_is_closed_and_bounded() -> None:
    schema = plan_schema(KNOWN)
    json.dumps(schema)
    assert list(schema["properties"]) == list(Plan.model_fields)
    # What is understood comes before slots, reasoning before the words of the prompt.
    order = list(schema["properties"])
    assert order.index("intent") < order.index("action") < order.index("reasoning")
    assert order[-1] == "parts"
    for node in nodes(schema):
        assert NAMES not in node
        assert "$ref" not in node
        if node["type"] == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
        elif node["type"] == "array":
            assert "maxItems" in node
        else:
            assert "enum" in node or "maxLength" in node


def test_the_schema_names_what_the_registry_has() -> None:
    properties = plan_schema(KNOWN)["properties"]
    assert properties["characters"]["items"]["enum"] == ["luca", "alberto", "giulia"]
    assert properties["background"]["enum"] == ["portorosso", "none"]
    assert properties["controls"]["items"]["properties"]["type"]["enum"] == [
        "openpose", "depth", "canny",
    ]  # fmt: skip
    assert "running" in properties["controls"]["items"]["properties"]["pose"]["enum"]


def test_without_a_cast_nobody_can_be_named() -> None:
    schema = plan_schema(NOBODY)
    properties = schema["properties"]
    assert properties["characters"]["maxItems"] == 0
    assert properties["lines"]["maxItems"] == 0
    assert properties["controls"]["maxItems"] == 0
    assert properties["background"]["enum"] == ["none"]
    assert all(node.get("enum") != [] for node in nodes(schema))
    assert checked_plan({"action": "waves break"}, NOBODY).character == "none"


@given(st.text(max_size=30).filter(lambda text: text not in KNOWN.of("character")))
def test_a_name_that_is_none_is_refused(text: str) -> None:
    folded = " ".join(text.replace("_", " ").replace("-", " ").casefold().split())
    titles = {"luca paguro", "alberto scorfano", "giulia marcovaldo", *KNOWN.of("character")}
    if folded in titles:
        assert KNOWN.resolve("character", text) in KNOWN.of("character")
    else:
        with pytest.raises(ValueError, match="there is no character"):
            KNOWN.resolve("character", text)
