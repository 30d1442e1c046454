"""A schema and choices: the form that a server knows is found, remembered, and found again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.errors import ServiceError
from animation_studio.llm import structured
from animation_studio.llm.structured import FORMS, Probe, Tried, obeys
from tests.support.chats import SCHEMA, ask, client_of, fails, request, run
from tests.support.standin_chat import constraints
from tests.support.standin_documents import legal_documents, random_document
from tests.support.standin_kinds import KINDS
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"
LLMS = [kind for kind in KINDS if kind != "gpt_sovits"]
YES_NO = ("Yes", "No")
# What each kind is asked for, in its order, and so how many requests it takes to find one.
ORDERS = [
    (kind, place, form) for kind in LLMS for place, form in enumerate(structured._ORDER[kind])
]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    structured._found.clear()
    yield
    assert not structured._searches


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


def bodies(server: StandIn) -> list[Any]:
    return [one.body for one in server.log if one.route == CHAT]


def check_document(text: str) -> None:
    jsonschema.validate(json.loads(text), SCHEMA)


# Finding the form


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
@pytest.mark.parametrize(("kind", "place", "form"), ORDERS)
def test_the_one_form_that_a_server_knows_is_found(
    kind: str, place: int, form: str, refuses: bool
) -> None:
    with StandIn(kind, structured=(form,), refuses_unknown=refuses) as server:
        client = client_of(server)
        first = ask(client, schema=SCHEMA)
        second = ask(client, choices=YES_NO)
        assert server.requests[CHAT] == place + 1 + 2
    check_document(first.text)
    assert second.text in YES_NO
    assert first.enforced
    assert second.enforced


@pytest.mark.parametrize("kind", LLMS)
def test_each_kind_is_held_to_a_schema_and_to_choices_as_it_is(kind: str) -> None:
    with StandIn(kind) as server:
        client = client_of(server)
        check_document(ask(client, schema=SCHEMA).text)
        answer = ask(client, max_tokens=16, choices=YES_NO)
        assert server.requests[CHAT] == 3
    assert answer.probabilities is not None
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert max(answer.probabilities, key=lambda word: answer.probabilities[word]) == answer.text


@pytest.mark.parametrize("kind", LLMS)
def test_a_server_that_knows_none_is_told_in_words(kind: str) -> None:
    said = ['{"action": "runs", "mood": "sad", "lines": []}', "**Yes**, I think so."]
    with StandIn(kind, structured=(), says=said) as server:
        client = client_of(server)
        document = ask(client, "Plan it", schema=SCHEMA)
        word = ask(client, "Is it?", choices=YES_NO)
        plan, choice = bodies(server)[-2:]
    check_document(document.text)
    assert not document.enforced
    assert word.text == "Yes"
    assert not word.enforced
    told = plan["messages"][-1]["content"]
    assert told.startswith("Plan it\n")
    assert json.dumps(SCHEMA, separators=(",", ":")) in told
    assert "Yes, No" in choice["messages"][-1]["content"]
    assert "response_format" not in plan


@pytest.mark.parametrize("kind", ["vllm", "ollama"])
def test_a_probe_is_short_and_its_word_is_new_and_not_in_the_prompt(kind: str) -> None:
    words = set()
    with StandIn(kind) as server:
        for _ in range(3):
            structured._found.clear()
            ask(client_of(server), schema=SCHEMA)
        for probe in bodies(server)[0::2]:
            assert probe["max_tokens"] <= 48
            (held,) = constraints(probe)
            (document,) = legal_documents(held.schema, 2)
            (word,) = document.values() if isinstance(document, dict) else [document]
            assert word not in json.dumps(probe["messages"])
            words.add(word)
    assert len(words) == 3


@pytest.mark.parametrize("blanks", [30, 1000])
def test_white_space_in_the_place_of_the_word_is_no_sign_of_freedom(blanks: int) -> None:
    """A model that is held to JSON may write nothing else until it is cut or stopped."""

    said = json.dumps({"action": "runs", "mood": "sad", "lines": []})
    with StandIn("ollama", blanks=blanks, says=[said]) as server:
        assert ask(client_of(server), schema=SCHEMA).enforced


@pytest.mark.parametrize(
    ("form", "text", "cut", "tried"),
    [
        ("response_format", '{"word": "bcdfgh"}', False, Tried.OBEYED),
        ("response_format", '{\n\t"word" : "bcdfgh', True, Tried.OBEYED),
        ("response_format", '{"word": "bcd', True, Tried.UNCLEAR),
        ("response_format", "{ \n\n", True, Tried.UNCLEAR),
        ("response_format", "{ \n\n", False, Tried.IGNORED),
        ("response_format", '{"word": "hello"}', False, Tried.IGNORED),
        ("response_format", "", True, Tried.IGNORED),
        ("response_format", "bcdfgh", False, Tried.IGNORED),
        ("structured_outputs", "bcdfgh", False, Tried.OBEYED),
        ("structured_outputs", "bc", True, Tried.UNCLEAR),
        ("structured_outputs", "Hello", False, Tried.IGNORED),
    ],
)
def test_what_an_answer_to_a_probe_means(form: str, text: str, cut: bool, tried: Tried) -> None:
    assert Probe(FORMS[form], "bcdfgh").judge(text, cut=cut) is tried


def test_a_plain_question_needs_no_probe(server: StandIn) -> None:
    ask(client_of(server))
    assert server.requests[CHAT] == 1


def test_many_at_once_find_it_once(server: StandIn) -> None:
    server.model.token_seconds = 0.002

    async def check() -> list[Any]:
        client = client_of(server)
        return await asyncio.gather(
            *(client.ask(request(f"Is it {n}?", choices=YES_NO)) for n in range(8))
        )

    assert all(answer.enforced for answer in run(check()))
    assert server.requests[CHAT] == 9


def test_when_the_one_who_searches_is_cancelled_another_goes_on(server: StandIn) -> None:
    server.model.token_seconds = 0.01

    async def check() -> Any:
        client = client_of(server, model="tiny")
        first = asyncio.ensure_future(client.ask(request(choices=YES_NO)))
        await asyncio.sleep(0.02)
        second = asyncio.ensure_future(client.ask(request(choices=YES_NO)))
        await asyncio.sleep(0.02)
        first.cancel()
        return await second

    assert run(check()).enforced


def test_who_waits_for_a_search_waits_no_longer_than_it_may(server: StandIn) -> None:
    server.fault(CHAT, hang=True)

    async def check() -> str:
        patient = client_of(server, model="tiny", timeouts={"generate": 20.0})
        hasty = client_of(server, model="tiny", timeouts={"generate": 0.2})
        first = asyncio.ensure_future(patient.ask(request(choices=YES_NO)))
        await asyncio.sleep(0.05)
        with pytest.raises(ServiceError) as caught:
            await hasty.ask(request(choices=YES_NO))
        first.cancel()
        await asyncio.wait({first})
        return str(caught.value)

    assert "gave no answer within 0.2 s" in run(check())


def test_models_of_one_server_are_told_apart() -> None:
    with StandIn("ollama") as server:
        for model in ("tiny", "other"):
            ask(client_of(server, model=model), schema=SCHEMA)
        assert server.requests[CHAT] == 4


def test_no_more_are_remembered_than_there_is_room_for(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structured, "_REMEMBERED", 2)
    for n in range(4):
        server.model.name = f"model {n}"
        ask(client_of(server), schema=SCHEMA)
    assert [model for _, _, model in structured._found] == ["model 2", "model 3"]


# Finding it again


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
def test_an_updated_server_is_found_again(server: StandIn, refuses: bool) -> None:
    server.steer({"model": {"structured": ("guided",), "refuses_unknown": refuses}})
    client = client_of(server)
    assert ask(client, schema=SCHEMA).enforced
    server.steer({"model": {"structured": ("structured_outputs",)}})
    during = ask(client, schema=SCHEMA)
    after = ask(client, schema=SCHEMA)
    # What is ignored shows in the answer, what is refused before it.
    assert during.enforced is refuses
    assert after.enforced
    assert bodies(server)[-1]["structured_outputs"]


def test_a_server_that_enforced_nothing_is_asked_again_later(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.model.structured = ()
    client = client_of(server)
    assert not ask(client, schema=SCHEMA).enforced
    server.model.structured = ("response_format",)
    assert not ask(client, schema=SCHEMA).enforced
    monkeypatch.setattr(structured, "_NOTHING", 0.0)
    assert ask(client, schema=SCHEMA).enforced


def test_a_server_that_failed_while_it_was_asked_is_asked_again(server: StandIn) -> None:
    server.model.structured = ("structured_outputs",)
    server.fault(CHAT, status=500, times=1)
    client = client_of(server)
    assert not ask(client, schema=SCHEMA).enforced
    assert ask(client, schema=SCHEMA).enforced


def test_a_schema_that_the_server_cannot_hold_is_its_message_not_another_form(
    server: StandIn,
) -> None:
    client = client_of(server)
    ask(client, schema=SCHEMA)
    bad = Answer(400, {"error": {"message": 'Unsupported type "nonsense"', "code": 400}})
    server.model.says = [bad, bad]
    before = server.requests[CHAT]
    text = fails(client, schema={"type": "nonsense"})
    assert 'answered 400: Unsupported type "nonsense"' in text
    assert server.requests[CHAT] == before + 2


def test_a_bad_schema_that_is_told_in_the_stream(server: StandIn) -> None:
    """As vLLM 0.32 does: status 200, and the error is an event."""
    event = b'data: {"error": {"message": "no grammar for it", "code": 400}}\n\ndata: [DONE]\n\n'
    client = client_of(server)
    ask(client, schema=SCHEMA)
    server.model.says = [Answer(200, events=iter([event]))]
    assert "sent an error: no grammar for it" in fails(client, schema={"type": "nonsense"})


def test_a_request_that_is_too_long_is_no_reason_to_search(server: StandIn) -> None:
    client = client_of(server)
    ask(client, schema=SCHEMA)
    server.model.context = 10
    assert "longer than its context" in fails(client, "long " * 100, schema=SCHEMA)
    assert server.requests[CHAT] == 3


@pytest.mark.parametrize("text", ["Certainly! Here it is.", '{"action": "r', "[]", '{"action": 3}'])
def test_an_answer_that_does_not_obey_is_handed_on_and_said_to_be_free(
    server: StandIn, text: str
) -> None:
    server.model.says = [text]
    answer = ask(client_of(server), schema=SCHEMA)
    assert answer.text == text
    assert not answer.enforced
    assert not structured._found


@pytest.mark.parametrize("field", ["reasoning_content", ""])
def test_a_model_that_thinks_first_is_given_the_time(server: StandIn, field: str) -> None:
    server.steer({"model": {"reasoning": "I think. " * 30, "reasoning_field": field}})
    assert ask(client_of(server), schema=SCHEMA).enforced
    assert [body["max_tokens"] for body in bodies(server)] == [48, 1024, 400]


def test_a_model_that_thinks_for_ever_is_hoped_for(server: StandIn) -> None:
    server.steer({"model": {"reasoning": "I think. " * 600}})
    answer = ask(client_of(server), max_tokens=4000, schema=SCHEMA)
    check_document(answer.text)
    assert answer.enforced


# Obeying


@given(st.integers(0, 2**32))
def test_a_document_of_a_schema_obeys_it(seed: int) -> None:
    import random

    document = random_document(SCHEMA, random.Random(seed))
    jsonschema.validate(document, SCHEMA)
    assert obeys(document, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"action": 3},
        {"mood": "angry"},
        {"lines": "none"},
        {"lines": [1]},
        {"more": True},
    ],
)
def test_what_a_server_that_enforces_cannot_say_does_not_obey(change: dict[str, Any]) -> None:
    good = {"action": "runs", "mood": "sad", "lines": ["Ciao"]}
    assert obeys(good, SCHEMA)
    assert not obeys({**good, **change}, SCHEMA)
    assert not obeys({"action": "runs", "mood": "sad"}, SCHEMA)
    assert not obeys([good], SCHEMA)
