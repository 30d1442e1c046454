"""What is sent again, and what is left: retries, pauses, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.llm import sending
from tests.support.chats import ask, client_of, request, run
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PAUSE", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_was_refused_unread_is_sent_again(server: StandIn, status: int) -> None:
    server.fault(CHAT, status=status, times=2)
    answer = ask(client_of(server))
    assert answer.retries == 2
    assert server.requests[CHAT] == 3


@pytest.mark.usefixtures("quick")
def test_retry_after_is_obeyed(server: StandIn) -> None:
    answers = [Answer(429, {"error": "busy"}, headers={"Retry-After": "1"}), "Now."]
    server.model.says = answers
    began = time.monotonic()
    assert ask(client_of(server)).retries == 1
    assert time.monotonic() - began >= 1.0


def test_a_wish_longer_than_there_is_time_is_an_error_at_once(server: StandIn) -> None:
    server.model.says = [Answer(429, {"error": "busy"}, headers={"Retry-After": "9"})]
    with pytest.raises(ServiceError, match="is busy: it answered 429: busy"):
        ask(client_of(server, timeouts={"generate": 5.0}))


def test_a_server_that_is_just_starting_is_waited_for() -> None:

    async def check() -> Any:
        task = asyncio.ensure_future(client_of(server, model="tiny").ask(request()))
        await asyncio.sleep(0.1)
        server.serve()
        return await task

    with StandIn("vllm") as server:
        server.crash()
        assert run(check()).retries >= 1


@pytest.mark.usefixtures("quick")
def test_more_requests_than_the_server_takes_all_come_through(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_RETRIES", 50)
    server.steer({"model": {"parallel": 2, "token_seconds": 0.002}})

    async def check() -> list[Any]:
        client = client_of(server)
        return await asyncio.gather(*(client.ask(request(f"Hello {n}")) for n in range(6)))

    assert len(run(check())) == 6
    assert server.model.most_chats == 2


# Leaving


@pytest.mark.parametrize("when", ["before", "amid"])
def test_a_cancelled_request_is_left_at_once_and_the_server_sees_it(
    server: StandIn, when: str
) -> None:
    said: list[int] = []

    async def check() -> None:
        # A long time before the first token, or between two.
        seconds = {"work_seconds": 60.0} if when == "before" else {"token_seconds": 0.05}
        server.steer({"model": {**seconds, "says": ["word " * 300]}})
        task = asyncio.ensure_future(client_of(server).ask(request(max_tokens=600), said.append))
        while not (server.model.chats if when == "before" else said):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1.0)
        while server.model.left_chats == 0:
            await asyncio.sleep(0.005)

    run(asyncio.wait_for(check(), 5.0))
    assert server.model.chats == 0
    server.steer({"model": {"work_seconds": 0.0, "token_seconds": 0.0, "says": []}})
    assert ask(client_of(server)).text


def test_a_cancelled_pause_is_left_at_once(server: StandIn) -> None:
    server.fault(CHAT, status=429)

    async def check() -> None:
        task = asyncio.ensure_future(client_of(server).ask(request()))
        while not server.requests[CHAT]:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(asyncio.wait({task}), 1.0)
        assert task.cancelled()

    run(check())
