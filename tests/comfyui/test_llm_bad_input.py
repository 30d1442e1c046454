"""What no page sends but HTTP can, to the nodes that ask a language model: each is refused in words
for people, nothing is asked, and the next good prompt runs."""

from __future__ import annotations

import json

import pytest

from tests.support.face_graphs import node
from tests.support.llm_studio import REFINE, WRITER, judged, rounds, unique

NAN = float("nan")


@pytest.fixture
def refused(llm):
    """Refuse a prompt, and run a good one after it; return the message."""

    def refuse(prompt):
        message = llm.refuses(prompt)
        assert len(message) < 2000
        assert llm.script.plans_asked == llm.script.changes_asked == 0
        llm.show(node("AnimStudio_PlanFromText", text="characters: luca", dialect="prose"))
        return message

    return refuse


def linked(prompt, key, name, value):
    """A widget's value by link, where ComfyUI checks nothing."""
    prompt["value"] = node("Test_Value", json=json.dumps(value))
    prompt[key]["inputs"][name] = ["value", 0]
    return prompt


def writer(**inputs):
    values = {**WRITER, "sentence": unique("hostile"), **inputs}
    return {
        "writer": node("AnimStudio_PromptWriter", **values),
        "show": node("PreviewAny", source=["writer", 10]),
    }


WRITERS = {
    "a list of services": {"service": {"__value__": ["qwen", "qwen"]}},
    "a service that is a mapping": {"service": {"a": 1}},
    "a service that is a path": {"service": "../qwen"},
    "a list of dialects": {"dialect": {"__value__": ["prose"]}},
    "a dialect that is a mapping": {"dialect": {"prose": 1}},
    "no dialect": {"dialect": None},
    "a temperature of NaN": {"temperature": NAN},
    "a temperature of 99": {"temperature": 99.0},
    "a temperature in words": {"temperature": "hot"},
    "a seed below 0": {"seed": -1},
    "a seed in words": {"seed": "none"},
    "a list of characters": {"character": {"__value__": ["luca"]}},
    "a character that is a mapping": {"character": {"luca": 1}},
    "a plan that is a literal": {"plan": 5},
    "a plan that is a text": {"plan": "characters: luca"},
}


@pytest.mark.parametrize("case", WRITERS)
def test_a_writer_refuses(refused, case):
    [name] = WRITERS[case]
    assert name in refused(writer(**WRITERS[case]))


LINKED = {
    "sentence": [5, None, ["a"], {"a": 1}, True],
    "service": [5, None, ["qwen"], {"a": 1}],
    "seed": [-1, 1.5, "x", None, NAN],
    "temperature": [NAN, -0.1, 2.1, "hot", None, [0.3], float("inf")],
    "dialect": ["haiku", 5, None, ["prose"]],
    "character": ["lucca", 5, ["luca"], {"luca": 1}],
    "plan": [5, "characters: luca", {"characters": ["luca"]}, []],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in LINKED.items() for value in values]
)
def test_a_writer_refuses_by_link(refused, name, value):
    assert name in refused(linked(writer(), "writer", name, value))


ROUNDS = {
    "sentence": [5, None, {"a": 1}],
    "writer": [5, None],
    "judge": [5, {"a": 1}],
    "seed": [-1, 1.5, "x", None],
    "temperature": [NAN, 9.0, "hot", None],
    "dialect": ["haiku", None, 5],
    "quality": ["nope", 5, {"x": 1}],
    "rounds": [0, 99, 1.5, "many", None],
    "pictures": [0, 99, 1.5, None],
    "threshold": [NAN, 1.5, "high", None],
    "slot_threshold": [NAN, -0.1],
    "check_faces": ["whatever", 5, None],
    "character": ["lucca", 5, {"luca": 1}],
    "plan": [5, "characters: luca", {"characters": ["luca"]}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ROUNDS.items() for value in values]
)
def test_until_accepted_refuses_by_link(refused, name, value):
    assert name in refused(linked(rounds(unique("hostile")), "until", name, value))


@pytest.mark.parametrize(
    "inputs",
    [
        {"dialect": "haiku"},
        {"dialect": {"__value__": ["prose"]}},
        {"quality": {"x": 1}},
        {"quality": "nope"},
        {"check_faces": "whatever"},
        {"writer": {"a": 1}},
        {"temperature": NAN},
        {"rounds": 99},
        {"pictures": 0},
        {"model": 5},
        {"clip": None},
        {"vae": {"a": 1}},
        {"plan": 5},
    ],
    ids=repr,
)
def test_until_accepted_refuses(refused, inputs):
    [name] = inputs
    assert name in refused(rounds(unique("hostile"), **inputs))


@pytest.mark.parametrize("role", ["writer", "judge"])
def test_a_service_that_is_not_there_is_told_before_any_round(refused, role):
    message = refused(rounds(unique("hostile"), **{role: "qwen2"}))
    assert "service 'qwen2' is not in the configuration. Did you mean 'qwen'?" in message


def test_a_list_is_no_sentence_for_until_accepted(refused):
    prompt = rounds(["texts", 0])
    prompt["texts"] = node("Test_Values", json='["one", "two"]')
    message = refused(prompt)
    assert "sentence" in message
    assert "list" in message


JUDGES = {
    "threshold": [NAN, 1.5, "high", None],
    "slot_threshold": [NAN, -1],
    "service": [5, "qwen2", {"a": 1}],
    "plan": [5, "characters: luca", None],
    "when_none": ["keep", 5],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in JUDGES.items() for value in values]
)
def test_a_judge_refuses_by_link(refused, llm, name, value):
    assert name in refused(linked(judged(), "judge", name, value))
    assert llm.script.questions == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judgement", 5),
        ("judgement", "x"),
        ("judgement", [1]),
        ("judgement", {"a": 1}),
        ("plan", {"a": 1}),
        ("temperature", NAN),
        ("temperature", 99.0),
        ("seed", -1),
        ("seed", None),
        ("dialect", "haiku"),
        ("service", "qwen2"),
        ("report", "no report"),
        ("report", 5),
    ],
)
def test_refine_refuses_by_link(refused, llm, name, value):
    llm.script.p_yes = lambda question: 0.1
    prompt = judged()
    prompt["refine"] = node("AnimStudio_Refine", plan=["plan", 0], judgement=["judge", 3], **REFINE)
    prompt["show"] = node("PreviewAny", source=["refine", 10])
    assert name in refused(linked(prompt, "refine", name, value))


@pytest.mark.parametrize("text", ["characters: luca: x", "- 1", "x" * 200_000, "\x00", "&a [*a]"])
def test_a_plan_by_hand_that_is_none_is_refused(llm, text):
    prompt = {
        "plan": node("AnimStudio_PlanFromText", text=text, dialect="prose"),
        "show": node("PreviewAny", source=["plan", 10]),
    }
    assert llm.refuses(prompt)


@pytest.mark.parametrize("dialect", ["haiku", None, {"x": 1}, {"__value__": ["prose"]}])
def test_a_plan_by_hand_needs_a_dialect(refused, dialect):
    prompt = {
        "plan": node("AnimStudio_PlanFromText", text="characters: luca", dialect=dialect),
        "show": node("PreviewAny", source=["plan", 10]),
    }
    assert "dialect" in refused(prompt)


def test_a_course_from_a_stranger_is_refused(refused):
    kinds = ("character", "background", "style", "pose", "expression")
    prompt = rounds(unique("stranger"))
    prompt["until"] = node(
        "AnimStudio_JudgeRound",
        images=["picture", 0], course='{"wish": {}}', model=["ckpt", 0], clip=["ckpt", 1],
        vae=["ckpt", 2], look=["loader", 4],
    )  # fmt: skip
    prompt["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    prompt["loader"] = node(
        "AnimStudio_CharacterLoraLoader", model=["ckpt", 0], clip=["ckpt", 1], scene_text="",
        negative_text="",
        **dict.fromkeys(kinds, "none"), **{f"{kind}_weight": -1.0 for kind in kinds},
    )  # fmt: skip
    assert "Until Accepted did not write this" in refused(prompt)
