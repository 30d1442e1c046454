"""Answers that have to be JSON: found in what models write around it, and repaired once."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.errors import ServiceError
from animation_studio.llm.checked import Checked, Problems, ask_checked, json_object
from animation_studio.llm.messages import Chat, ChatRequest, Message
from tests.support.standin_service import StandIn
from tests.unit.llm.conftest import Serve

OBJECTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    ),
)
# Prose as models write it: no braces, since an object of its own would be another answer.
PROSE = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=40)


@settings(deadline=None)
@given(OBJECTS, PROSE, PROSE, st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", " {} "]))
def test_the_object_is_found_in_whatever_stands_around_it(
    data: dict[str, object], before: str, after: str, form: str
):
    text = json.dumps(data, ensure_ascii=False)
    assert json_object(before + form.replace("{}", text) + after) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('Here {name} is: {"a": 1}', {"a": 1}),
        ('<think>{"long": "draft of it"}</think>{"a": 1}', {"a": 1}),
        ('thoughts whose beginning the server kept</think>\n{"a": 1}', {"a": 1}),
        ('{"a": "</think>"}', {"a": "</think>"}),
        ('{"a": 1} or rather {"a": 2, "b": 3}', {"a": 2, "b": 3}),
        ('{"a": {"b": {}}}', {"a": {"b": {}}}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
    ],
)
def test_of_several_the_answer(text: str, data: object):
    assert json_object(text) == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the answer is empty"),
        (" \n" * 500_000, "the answer is empty"),
        ("I would rather not.", "the answer holds no JSON object"),
        ("[1, 2]", "the answer holds no JSON object"),
        ('{"a": {"b": 1}, "c": ', "the JSON breaks at character 22"),
        ('{"a": "half of', "the JSON breaks at character 7"),
        ('{"a": "half of {}', "the JSON breaks at character 7"),
        ("{" * 1_000_000, "the JSON breaks at character 2"),
        ('{"{' * 300_000, "the JSON breaks"),
        ('{"a":' * 200_000, "without end"),
        ('{"a": ' + "9" * 5000 + "}", "without end"),
    ],
)
def test_what_is_no_object_is_told(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        json_object(text)


@settings(deadline=None)
@given(OBJECTS.filter(lambda data: len(data) > 0), st.data())
def test_half_an_object_is_none(data: dict[str, object], draw: st.DataObject):
    text = json.dumps(data)
    cut = draw.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ValueError, match="JSON breaks"):
        json_object(text[:cut])


# Asked of a server


SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "maxLength": 20}},
    "required": ["colour"],
    "additionalProperties": False,
}
REQUEST = ChatRequest(
    messages=(Message("system", "You name colours."), Message("user", "A colour?")),
    max_tokens=10_000,
    temperature=0.5,
    seed=7,
    schema=SCHEMA,
)


def colour(data: object) -> str | Problems:
    """A check: one of three colours."""
    said = data.get("colour") if isinstance(data, dict) else None
    if said in ("red", "green", "blue"):
        return str(said)
    return [("colour", f"there is no colour {said!r}. Known: red, green, blue.")]


def ask(chat: Chat, counts: list[int] | None = None) -> Checked[str]:
    tokens = counts.append if counts is not None else None
    return asyncio.run(ask_checked(chat, REQUEST, colour, "colour", tokens))


def asked(server: StandIn) -> list[dict[str, Any]]:
    """The bodies of the requests that were no probes."""
    return [
        one.body
        for one in server.log
        if one.body and one.body.get("messages", [{}])[0]["role"] == "system"
    ]


def test_a_good_answer_is_asked_for_once(serve: Serve):
    server, chat = serve(says=['{"colour": "red"}'])
    done = ask(chat)
    assert (done.value, done.repaired, done.problems) == ("red", False, [])
    assert done.answer is done.answers[0]
    assert len(asked(server)) == 1


def test_a_bad_answer_is_repaired_with_what_was_wrong(serve: Serve):
    server, chat = serve(says=['{"colour": "mauve"}', 'Sorry. ```json\n{"colour": "blue"}\n```'])
    counts: list[int] = []
    done = ask(chat, counts)
    assert (done.value, done.repaired) == ("blue", True)
    assert done.problems == [("colour", "there is no colour 'mauve'. Known: red, green, blue.")]
    assert len(done.answers) == 2
    first, second = asked(server)
    assert second["messages"][:2] == first["messages"]
    wrong, again = second["messages"][2:]
    assert (wrong["role"], wrong["content"]) == ("assistant", '{"colour": "mauve"}')
    assert again["role"] == "user"
    assert "- colour: there is no colour 'mauve'. Known: red, green, blue." in again["content"]
    assert (second["seed"], second["temperature"]) == (7, 0.5)
    assert counts, "progress was told"


def test_no_mark_of_a_chat_template_is_said_again(serve: Serve):
    bad = '{"colour": "mauve <|end|> [INST] ]"}'
    server, chat = serve(says=[bad, '{"colour": "red"}'])
    assert ask(chat).value == "red"
    for message in asked(server)[-1]["messages"][2:]:
        assert "mauve" in message["content"]
        assert not re.search(r"[<>|]|\[INST", message["content"])


def test_half_a_json_is_repaired_too(serve: Serve):
    server, chat = serve(says=['{"colour": "re', '{"colour": "red"}'], structured=())
    assert ask(chat).value == "red"
    assert "the JSON breaks at character 12" in asked(server)[-1]["messages"][-1]["content"]


def test_a_second_failure_names_service_model_and_problems(serve: Serve):
    server, chat = serve(says=["I like mauve.", '{"colour": "mauve"}', '{"colour": "red"}'])
    with pytest.raises(ServiceError) as caught:
        ask(chat)
    model = asyncio.run(chat.model())
    assert str(caught.value) == (
        f"{chat.name}: the model {model} wrote no usable colour, also when it was told what was "
        "wrong: colour: there is no colour 'mauve'. Known: red, green, blue. Try another seed or "
        "a larger model."
    )
    assert len(asked(server)) == 2, "a third time would be no better"


def test_what_is_shown_again_is_bounded(serve: Serve):
    long = json.dumps({"colour": "mauve " * 4000})
    server, chat = serve(says=[long, '{"colour": "red"}'])
    assert ask(chat).value == "red"
    wrong, again = asked(server)[-1]["messages"][2:]
    assert len(wrong["content"]) <= 8000
    assert len(again["content"]) < 1000


def test_an_error_of_the_server_is_no_reason_to_ask_again(serve: Serve):
    server, chat = serve(says=['{"colour": "red"}'] * 2)
    ask(chat)
    server.fault("POST /v1/chat/completions", status=401, text="no key")
    with pytest.raises(ServiceError, match="401"):
        ask(chat)
    assert len(asked(server)) == 2
