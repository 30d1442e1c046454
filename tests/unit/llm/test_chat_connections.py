"""Connections and strangers: nobody there, deaf or dripping servers, bytes of any kind, secrets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.llm import sending, structured
from animation_studio.llm.messages import ChatRequest, Message
from tests.support.chats import SCHEMA, client_at, client_of, fails, request, run
from tests.support.standin_kinds import KINDS
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"
KEY = "sk-very-secret-1234"
SHORT = {"answer": 0.5, "generate": 1.0}
LONG = ["word " * 100] * 9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    structured._found.clear()
    monkeypatch.setattr(sending, "_PAUSE", 0.01)
    monkeypatch.setattr(sending, "_RETRIES", 2)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = fails(client_at(f"http://127.0.0.1:{port}", model="tiny"))
    assert "does not run: nothing listens at its address" in text
    assert "Start it" in text


def test_an_address_that_takes_no_connection_is_given_up_soon() -> None:
    """A full queue of connections: neither refused nor accepted."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            client = client_at(
                f"http://127.0.0.1:{address[1]}", model="tiny", timeouts={"answer": 0.3}
            )
            text = fails(client)
    assert "within 0.3 s" in text or "no answer" in text


def test_a_server_that_drips_ends_with_its_time(server: StandIn) -> None:
    """Each token comes, and all of them together would take minutes."""
    server.steer({"model": {"says": ["word " * 300], "token_seconds": 0.2}})
    text = fails(client_of(server, timeouts=SHORT), max_tokens=600)
    assert "was not done after 1 s" in text
    assert "timeouts.generate" in text


def test_time_is_bounded_over_all_retries(server: StandIn, monkeypatch: Any) -> None:
    monkeypatch.setattr(sending, "_PAUSE", 0.2)
    monkeypatch.setattr(sending, "_RETRIES", 1000)
    server.fault(CHAT, status=503)

    async def check() -> str:
        with pytest.raises(ServiceError) as caught:
            await client_of(server, timeouts=SHORT).ask(request())
        return str(caught.value)

    assert "answered 503" in run(asyncio.wait_for(check(), 5))


@pytest.mark.parametrize("status", [400, 401, 404, 500, 502])
def test_what_may_have_been_read_is_not_sent_again(server: StandIn, status: int) -> None:
    server.fault(CHAT, status=status)
    fails(client_of(server))
    assert server.requests[CHAT] == 1


@pytest.mark.parametrize("fault", [{"hang": True}, {"cut": True}, {"truncated": True}])
def test_what_may_be_at_work_is_not_sent_again(server: StandIn, fault: dict[str, Any]) -> None:
    server.fault(CHAT, **fault)
    fails(client_of(server, timeouts=SHORT))
    assert server.requests[CHAT] == 1


def test_what_broke_off_amid_is_not_sent_again(server: StandIn) -> None:
    server.steer({"model": {"says": LONG, "break_after": 5, "break_how": "cut"}})
    fails(client_of(server))
    assert server.requests[CHAT] == 1


# Secrets


@pytest.mark.parametrize(
    "said",
    [
        Answer(401, {"error": f"Incorrect API key provided: {KEY}"}),
        Answer(200, f"who are you, {KEY}?"),
        Answer(200, events=[f'data: {{"error": "no such key: {KEY}"}}\n\n'.encode()]),
    ],
    ids=["status", "garbage", "event"],
)
def test_a_key_that_the_server_repeats_is_in_no_message(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, said: Answer
) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    server.steer({"model": {"api_key": KEY, "says": [said]}})
    text = fails(client_of(server, api_key_env="WRITER_KEY"))
    assert KEY not in text
    assert "***" in text


def test_a_wrong_key_names_its_variable(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    server.model.api_key = "another"
    text = fails(client_of(server, api_key_env="WRITER_KEY", model="tiny"))
    assert "WRITER_KEY" in text
    assert KEY not in text


def test_nothing_of_a_request_is_in_a_message(server: StandIn) -> None:
    """Sentences are the user's: they are not repeated in errors that land in logs."""
    server.fault(CHAT, status=500)
    messages = [Message("system", "secret rules"), Message("user", "a secret sentence")]
    with pytest.raises(ServiceError) as caught:
        run(client_of(server).ask(ChatRequest(messages, 10)))
    assert "secret" not in str(caught.value)


# Whole servers that misbehave


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gpt_sovits"])
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1_000_000,
        b"HTTP/1.1 200 OK\r\n\r\ndata: " + b"\0" * 100,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\x00",
        b"HTTP/1.1 200 OK\r\n\r\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
        b"HTTP/1.1 200 OK\r\n\r\n: ping\n\n: ping\n\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b'data: {"choices": [3]}\n\ndata: {"choices": null}\n\n',
        b"HTTP/1.1 200 OK\r\n\r\n{" + b'"a":' * 50_000,
        b"",
    ],
)
def test_bytes_of_any_kind(kind: str, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for more in ({}, {"schema": SCHEMA}):
            fails(client_at(url, kind, model="tiny"), **more)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
