"""One question over HTTP: each way in which it can end is told apart, and the key stays secret."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.http import ANSWER_LIMIT, Outcome, Reply, ask, model_ids
from animation_studio.registry.services import ServiceEntry
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

KEY = "sk-very-secret-1234"


def entry_at(url: str, **more: Any) -> ServiceEntry:
    return ServiceEntry.model_validate({"kind": "vllm", "base_url": url, **more})


def ask_once(url: str, path: str = "/is_sleeping", **options: Any) -> Reply:
    entry = entry_at(url, api_key_env=options.pop("api_key_env", None))
    return asyncio.run(ask(entry, "GET", path, timeout=options.pop("timeout", 2.0), **options))


def ask_raw(answer: bytes, timeout: float = 2.0, *, stay: bool = False) -> Reply:
    """Ask a server that sends these bytes and nothing else; with `stay` it does not hang up."""

    async def run() -> Reply:
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if stay:
                await reader.read()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            ended.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            entry = entry_at(f"http://127.0.0.1:{port}")
            reply = await ask(entry, "GET", "/x", timeout=timeout)
            await ended.wait()
        return reply

    return asyncio.run(run())


def test_a_json_object_is_the_good_answer() -> None:
    with StandIn("vllm") as server:
        reply = ask_once(server.url)
    assert reply.ok
    assert reply.data == {"is_sleeping": False}


def test_an_empty_answer_is_good_where_no_json_is_expected() -> None:
    with StandIn("vllm") as server:
        assert ask_once(server.url, "/health", expect_json=False).ok
        assert ask_once(server.url, "/health").outcome is Outcome.GARBAGE


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_refused(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reply = ask_once(f"http://{host}:{port}")
    assert reply.outcome is Outcome.REFUSED
    assert "nothing listens" in reply.said


def test_a_host_that_does_not_exist_is_not_refused() -> None:
    reply = ask_once("http://no-such-host.invalid:8000", timeout=10.0)
    assert reply.outcome in (Outcome.UNREACHABLE, Outcome.SILENT)


@pytest.mark.parametrize("fault", [{"hang": True}, {"delay": 5.0}])
def test_silent(fault: dict[str, Any]) -> None:
    with StandIn("vllm") as server:
        server.fault("*", **fault)
        reply = ask_once(server.url, timeout=0.1)
    assert reply.outcome is Outcome.SILENT
    assert "no answer within 0.1 s" in reply.said


def test_a_body_that_never_ends_is_silent_too() -> None:
    reply = ask_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{", 0.1, stay=True)
    assert reply.outcome is Outcome.SILENT


def test_cut_in_the_middle() -> None:
    with StandIn("vllm") as server:
        server.fault("*", cut=True)
        reply = ask_once(server.url)
    assert reply.outcome is Outcome.BROKEN


def test_a_server_that_dies_instead_of_answering_breaks_off() -> None:
    with StandIn("vllm") as server:
        server.fault("*", die=True)
        entry = entry_at(server.url)
        reply = asyncio.run(ask(entry, "POST", "/sleep", timeout=2))
        assert reply.outcome is Outcome.BROKEN
        # aiohttp asks a second time by itself what was a GET.
        assert ask_once(server.url).outcome is Outcome.REFUSED


def test_truncated_json_shows_how_it_begins() -> None:
    with StandIn("vllm") as server:
        server.fault("*", truncated=True)
        reply = ask_once(server.url)
    assert reply.outcome is Outcome.GARBAGE
    assert not reply.ok
    assert '{"is_sleep' in reply.said


def test_no_more_than_80_characters_of_noise_are_shown() -> None:
    reply = ask_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"noise\n\x1b[31m" * 900)
    assert reply.outcome is Outcome.GARBAGE
    assert len(reply.said) < 140
    assert reply.said.isprintable()


@pytest.mark.parametrize("body", [b"[1, 2]", b'"text"', b"null", b"[" * 100_000])
def test_json_that_is_no_object_is_no_answer(body: bytes) -> None:
    reply = ask_raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert reply.outcome is Outcome.GARBAGE


@pytest.mark.parametrize("status", [200, 500])
def test_more_than_the_limit_is_not_read(status: int) -> None:
    with StandIn("vllm") as server:
        server.fault("*", megabytes=50)
        reply = ask_once(server.url)
    assert reply.outcome is Outcome.GARBAGE
    assert f"{ANSWER_LIMIT:,}" in reply.said
    assert len(reply.text) <= ANSWER_LIMIT


@pytest.mark.parametrize(
    "text",
    [
        '{"error": {"message": "no room", "code": 500}}',
        '{"detail": "no room"}',
        '{"error": "no room"}',
        '{"message": "no room"}',
        "no room",
    ],
)
def test_the_message_of_an_error_is_told(text: str) -> None:
    with StandIn("vllm") as server:
        server.fault("*", status=500, text=text)
        reply = ask_once(server.url)
    assert reply.outcome is Outcome.ANSWERED
    assert not reply.ok
    assert reply.said.replace('"', "") == "answered 500: no room"


def test_a_redirect_is_not_followed() -> None:
    with StandIn("vllm") as other:
        there = f"{other.url}/is_sleeping".encode()
        reply = ask_raw(b"HTTP/1.1 307 Go\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % there)
        assert not other.requests
    assert not reply.ok
    assert "307" in reply.said


def test_what_is_no_http_is_garbage_or_broken() -> None:
    reply = ask_raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    assert reply.outcome in (Outcome.GARBAGE, Outcome.BROKEN)


def test_https_where_plain_http_is_spoken_is_not_reached() -> None:
    with StandIn("vllm") as server:
        reply = ask_once(server.url.replace("http://", "https://"))
    assert reply.outcome is Outcome.UNREACHABLE
    assert "cannot be reached" in reply.said


def test_a_compressed_answer_is_not_unpacked() -> None:
    import gzip

    body = gzip.compress(b" " * (50 << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    reply = ask_raw(head + body)
    assert reply.outcome is Outcome.GARBAGE
    assert len(reply.text) <= len(body)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with StandIn("vllm") as server:
        assert ask_once(server.url).ok


def test_the_key_of_the_variable_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    with StandIn("vllm", api_key=KEY) as server:
        assert ask_once(server.url, "/v1/models", api_key_env="WRITER_KEY").ok
        refused = ask_once(server.url, "/v1/models")
    assert refused.status == 401


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
def test_a_missing_or_impossible_key_names_the_variable_alone(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("WRITER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("WRITER_KEY", value)
    with pytest.raises(ServiceError, match="WRITER_KEY") as caught:
        ask_once("http://127.0.0.1:9", api_key_env="WRITER_KEY")
    assert "schlüssel" not in str(caught.value)
    assert "lines" not in str(caught.value)


def _echoing(text: str) -> dict[str, Any]:
    return {"status": 401, "text": text}


@pytest.mark.parametrize(
    "fault",
    [
        _echoing(f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'),
        _echoing(f"who are you, {KEY}?"),
        {"status": 200, "text": f"no JSON but {KEY}"},
    ],
)
def test_a_key_that_the_server_repeats_is_struck_out(
    monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    with StandIn("vllm") as server:
        server.fault("*", **fault)
        reply = ask_once(server.url, api_key_env="WRITER_KEY")
    assert KEY not in repr(reply)
    assert "***" in reply.said


def test_a_question_can_be_cancelled() -> None:
    async def run(ready: Callable[[], bool]) -> None:
        task = asyncio.create_task(ask(entry_at(server.url), "GET", "/is_sleeping", timeout=60))
        while not ready():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)

    with StandIn("vllm") as server:
        server.fault("*", hang=True)
        asyncio.run(run(lambda: bool(server.requests)))


def test_a_body_is_given_away_as_it_comes_until_it_is_enough() -> None:
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return b"7" in piece

    with StandIn("openai") as server:
        said = (f"{n} ".encode() for n in range(100))
        server.model.says = [Answer(200, events=said)]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "count"}], "stream": True}
        entry = entry_at(server.url)
        reply = asyncio.run(
            ask(entry, "POST", "/v1/chat/completions", timeout=5, body=body, take=take)
        )
    assert reply.ok
    assert reply.text == ""
    assert b"".join(pieces).startswith(b"0 1 2 3 4 5 6 7")


def test_what_whoever_takes_it_raises_is_raised() -> None:
    def take(_: bytes) -> bool:
        raise ServiceError("that is no use")

    with StandIn("vllm") as server, pytest.raises(ServiceError, match="no use"):
        ask_once(server.url, take=take)


def test_an_error_is_not_given_away() -> None:
    pieces: list[bytes] = []
    with StandIn("vllm") as server:
        server.fault("*", status=500, text="no room")
        reply = ask_once(server.url, take=lambda piece: bool(pieces.append(piece)))
    assert reply.said == "answered 500: no room"
    assert pieces == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(text: str, seconds: float | None) -> None:
    head = f"HTTP/1.1 429 Busy\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n"
    assert ask_raw(head.encode()).retry_after == seconds


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"data": [{"id": "a"}, {"id": 3}, "b", {"id": "c"}]}, ["a", "c"]),
        ({"data": {"id": "a"}}, []),
        ({}, []),
    ],
)
def test_the_names_of_models(data: dict[str, Any], names: list[str]) -> None:
    assert model_ids(Reply(Outcome.ANSWERED, "answered 200", 200, data=data)) == names
