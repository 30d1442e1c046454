"""Everything that a chat server can do wrong: named with service, model and cause, in bounded time.

Each fault is met at every place: the model's name, the search for the form, the answer. Afterwards
the server is asked again and answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.llm import sending, structured
from tests.support.chats import (
    PNG,
    SCHEMA,
    ask,
    check_error,
    client_of,
    fails,
    run,
)
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"
SHORT = {"answer": 0.5, "generate": 1.0}
LONG = ["word " * 100] * 9

# What the route does (arguments of StandIn.fault), and what the message says of it.
ROUTE: dict[str, tuple[dict[str, Any], str]] = {
    "400": ({"status": 400, "text": '{"error": {"message": "bad seed"}}'}, "400: bad seed"),
    "401": ({"status": 401, "text": '{"error": "Unauthorized"}'}, "401: Unauthorized"),
    "403": ({"status": 403}, "answered 403"),
    "404 route": ({"status": 404, "text": '{"detail": "Not Found"}'}, "404: Not Found"),
    "413": ({"status": 413, "text": "request too large"}, "longer than its context"),
    "418": ({"status": 418}, "answered 418"),
    "429": ({"status": 429, "text": '{"error": "slow down"}'}, "is busy after 2 retries"),
    "500": ({"status": 500, "text": '{"error": {"message": "CUDA"}}'}, "answered 500: CUDA"),
    "502 HTML": ({"status": 502, "text": "<html>bad gateway</html>"}, "502: <html>bad gateway"),
    "503": ({"status": 503, "text": "Loading model"}, "503: Loading model after 2 retries"),
    "redirect": ({"status": 307, "text": ""}, "answered 307"),
    "nothing": ({"status": 200, "text": ""}, "no chat answer: nothing"),
    "HTML": ({"status": 200, "text": "<html>Welcome!</html>"}, "no chat answer: <html>Welcome!"),
    "prose": ({"status": 200, "text": "Luca runs."}, "no chat answer: Luca runs."),
    "a list": ({"status": 200, "text": "[1, 2]"}, "no chat answer: [1, 2]"),
    "other JSON": ({"status": 200, "text": '{"is": "else"}'}, 'no chat answer: {"is": "else"}'),
    "an error as 200": ({"status": 200, "text": '{"error": "no memory"}'}, "an error: no memory"),
    "half of it": ({"truncated": True}, 'sent what is no JSON object: {"is_sl'),
    "cut off": ({"cut": True}, "broke the connection off"),
    "noise": ({"megabytes": 3}, "sent a line of more than 1,048,576 bytes"),
    "never": ({"hang": True}, "gave no answer within 1 s"),
    "too late": ({"delay": 9.0}, "gave no answer within 1 s"),
    "dies": ({"die": True}, "broke the connection off"),
}

# What the model is and says, and what the message says of it.
MODEL: dict[str, tuple[dict[str, Any], str]] = {
    "cut at the limit": ({"says": ["word " * 900] * 9}, "cut after 400 of at most 400 tokens"),
    "put to sleep": ({"chat_finish": "abort"}, "finish_reason abort"),
    "filtered": ({"chat_finish": "content_filter"}, "withheld its answer"),
    "a tool": ({"chat_finish": "tool_calls"}, "called a tool instead of answering"),
    "another end": ({"chat_finish": "\x1b[31mboo"}, "finish_reason"),
    "empty": ({"says": [""] * 9}, "answered nothing"),
    "blank": ({"says": [" \n "] * 9}, "answered nothing"),
    "thought alone": ({"says": [""] * 9, "reasoning": "Hm, hm."}, "nothing but its reasoning"),
    "thinks too long": ({"reasoning": "Hm. " * 900}, "used up its 400 tokens without an answer"),
    "hangs amid": ({"says": LONG, "break_after": 5}, "was not done after 1 s, when 5 tokens"),
    "cut amid": ({"says": LONG, "break_after": 5, "break_how": "cut"}, "off after 5 tokens"),
    "ends amid": ({"says": LONG, "break_after": 5, "break_how": "end"}, "without a finish_reason"),
    "error amid": (
        {"says": LONG, "break_after": 5, "break_how": "error"},
        "sent an error: the engine died after 5 tokens",
    ),
    "garbage amid": (
        {"says": LONG, "break_after": 5, "break_how": "garbage"},
        "sent what is no JSON object: {no JSON at all after 5 tokens",
    ),
    "an endless line amid": (
        {"says": LONG, "break_after": 5, "break_how": "line"},
        "sent a line of more than 1,048,576 bytes after 5 tokens",
    ),
    "a megabyte of white space": (
        {"says": ["{" + "\n\t " * 350_000] * 9},
        "wrote more than 200 characters of white space in a row",
    ),
    "a megabyte at once": (
        {"says": [Answer(200, {"choices": [{"message": {"content": "word" * 250_000}}]})] * 9},
        "wrote more than 262,144 bytes",
    ),
    "white space at once": (
        {"says": [" " * 1_000_000] * 9, "streams": False},
        "wrote more than 200 characters of white space in a row",
    ),
}
# The search for the form meets these, too: there they are met at the first probe.
AT_PROBE = [name for name in ROUTE if name not in ("400", "413", "500")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    structured._found.clear()
    monkeypatch.setattr(sending, "_PAUSE", 0.01)
    monkeypatch.setattr(sending, "_RETRIES", 2)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


def usable_again(server: StandIn) -> None:
    """Check that nothing of what went wrong stays."""
    server.heal()
    if not server.running:
        server.serve()
    server.model.prepare_chat()
    assert ask(client_of(server), "And now?").text
    assert ask(client_of(server), schema=SCHEMA).enforced


@pytest.mark.parametrize("name", ROUTE)
def test_a_route_that_fails(server: StandIn, name: str) -> None:
    fault, said = ROUTE[name]
    server.fault(CHAT, **fault)
    assert said in fails(client_of(server, timeouts=SHORT))
    usable_again(server)


@pytest.mark.parametrize("name", AT_PROBE)
def test_a_route_that_fails_while_the_form_is_searched(server: StandIn, name: str) -> None:
    fault, said = ROUTE[name]
    server.fault(CHAT, **fault)
    assert said in fails(client_of(server, timeouts=SHORT), schema=SCHEMA)
    usable_again(server)


@pytest.mark.parametrize("name", ROUTE)
def test_a_route_that_fails_once_the_form_is_known(server: StandIn, name: str) -> None:
    fault, said = ROUTE[name]
    client = client_of(server, timeouts=SHORT)
    ask(client, schema=SCHEMA)
    server.fault(CHAT, **fault)
    assert said in fails(client, schema=SCHEMA)
    usable_again(server)


@pytest.mark.parametrize("name", ["401", "500", "HTML", "never", "cut off", "half of it", "dies"])
def test_models_that_cannot_be_listed(server: StandIn, name: str) -> None:
    fault, _ = ROUTE[name]
    server.fault("GET /v1/models", **fault)
    client = client_of(server, timeouts=SHORT)
    with pytest.raises(ServiceError) as caught:
        ask(client)
    assert str(caught.value).startswith(f"{client.name} was asked for its models and ")
    check_error(str(caught.value))
    usable_again(server)


@pytest.mark.parametrize("held", [None, SCHEMA], ids=["free", "schema"])
@pytest.mark.parametrize("name", MODEL)
def test_a_model_that_fails(server: StandIn, name: str, held: Any) -> None:
    settings, said = MODEL[name]
    client = client_of(server, timeouts=SHORT)
    if held:
        ask(client, schema=held)
    server.steer({"model": settings})
    assert said in fails(client, schema=held)
    usable_again(server)


def test_white_space_is_left_at_once(server: StandIn) -> None:
    """Not after all of it came: the server is told to stop by closing the connection."""
    server.steer({"model": {"says": ["\n" * 1_000_000], "token_seconds": 0.002}})
    fails(client_of(server))

    async def noticed() -> None:
        while not server.model.left_chats:
            await asyncio.sleep(0.005)

    run(asyncio.wait_for(noticed(), 5))


def test_answers_may_have_white_space(server: StandIn) -> None:
    text = "a" + " " * 200 + "b" + "\n" * 200 + "c"
    server.steer({"model": {"says": [text], "chunk_tokens": 3}})
    assert ask(client_of(server)).text == text


def test_a_schema_or_not_half_a_json_with_a_good_end_is_handed_on(server: StandIn) -> None:
    """Whether it can be used is for who reads it to say: it is repaired there once."""
    server.model.says = ['{"action": "runs", "mo'] * 2
    client = client_of(server)
    assert ask(client).text == '{"action": "runs", "mo'
    assert not ask(client, schema=SCHEMA).enforced


# What is wrong with the request


def test_a_model_that_is_not_there_is_named_with_those_that_are(server: StandIn) -> None:
    text = fails(client_of(server, model="qwen3-vl"), model="qwen3-vl")
    assert "does not have it: it offers tiny" in text
    assert "`model`" in text


def test_many_models_are_not_all_named(server: StandIn) -> None:
    listed = json.dumps({"data": [{"id": f"model-{n}"} for n in range(50)]})
    server.fault("GET /v1/models", status=200, text=listed)
    text = fails(client_of(server, model="nobody"), model="nobody")
    assert "model-7, ..." in text
    assert "model-8" not in text


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "ollama", "openai"])
def test_a_text_model_and_a_picture(kind: str) -> None:
    with StandIn(kind, vision=False) as server:
        client = client_of(server)
        for more in ({}, {"schema": SCHEMA}, {"choices": ("Yes", "No")}):
            text = fails(client, pictures=[PNG], **more)
            assert "does not see pictures" in text
            assert text.endswith("Choose a service with a vision model.")


@pytest.mark.parametrize(
    "said",
    [
        "At most 4 image(s) may be provided in one prompt. (parameter=image)",
        "Failed to load image: image file is truncated",
    ],
)
def test_a_vision_model_that_refuses_a_picture_is_not_called_blind(
    server: StandIn, said: str
) -> None:
    text = json.dumps({"error": {"message": said, "code": 400}})
    server.fault(CHAT, status=400, text=text)
    assert f"answered 400: {said}" in fails(client_of(server), pictures=[PNG])


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens. However, your prompt contains 5000.",
        "max_tokens=100000 cannot be greater than max_model_len=4096.",
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    ],
)
def test_a_request_that_is_too_long(server: StandIn, said: str) -> None:
    server.fault(CHAT, status=400, text=json.dumps({"error": {"message": said}}))
    text = fails(client_of(server))
    assert "found the request longer than its context" in text
    assert said.removesuffix(".") in text


def test_a_redirect_is_not_followed(server: StandIn) -> None:
    with StandIn("vllm") as other:
        there = {"Location": f"{other.url}/v1/chat/completions"}
        server.model.says = [Answer(307, "", headers=there)]
        text = fails(client_of(server))
        assert not other.requests
    assert "answered 307: go to" in text
