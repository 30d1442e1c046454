"""The pack's VllmService through the states of a real vLLM: what it says, does and survives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.gpu.service import Service, ServiceState
from animation_studio.gpu.services import open_service
from animation_studio.registry.services import ServiceEntry
from tests.support.vllm import VllmCommands, VllmServer

LONG = 800  # tokens: 4 s
KEY = "ANIMATION_STUDIO_TEST_KEY"
SLEEP_ROUTES = [
    ("GET", "/is_sleeping"),
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
    ("POST", "/reset_prefix_cache"),
]


def service_of(url: str, folder: Path, **entry: Any) -> Service:
    values = {"kind": "vllm", "base_url": url, **entry}
    return open_service("writer", ServiceEntry.model_validate(values), folder)


def run(act: Callable[[], Coroutine[Any, Any, Any]], seconds: float = 240.0) -> Any:
    return asyncio.run(asyncio.wait_for(act(), seconds))


async def state_of(service: Service) -> ServiceState:
    return (await service.condition()).state


@pytest.fixture
def service(vllm: VllmServer, tmp_path: Path) -> Iterator[Service]:
    """The shared vLLM; left awake."""
    yield service_of(vllm.url, tmp_path)
    vllm.wake()
    assert not vllm.is_sleeping()


@pytest.fixture
def answer(vllm: VllmServer, service: Service) -> Iterator[Future[dict[str, Any]]]:
    """A long answer that somebody else waits for, begun."""
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(vllm.chat, LONG)
        deadline = time.monotonic() + 20
        while "num_requests_running{" not in metrics(vllm, " 1.0"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield begun


def metrics(vllm: VllmServer, end: str) -> str:
    """The metrics whose rows end so."""
    _, text = vllm.ask("GET", "/metrics")
    return "\n".join(row for row in text.splitlines() if row.endswith(end))


def end_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["finish_reason"])


@pytest.mark.parametrize("level", [1, 2])
def test_sleeps_wakes_and_proves_it(service, vllm, level):
    before = vllm.chat(16, temperature=0)["choices"][0]["message"]["content"]

    async def act():
        assert await state_of(service) is ServiceState.AWAKE
        await service.sleep(level)
        assert await state_of(service) is ServiceState.ASLEEP
        await service.wake(level)
        assert await state_of(service) is ServiceState.AWAKE
        return await service.prove()

    proof = run(act)
    assert proof.what == "one token of tiny"
    assert 0 < proof.seconds < 20
    assert vllm.chat(16, temperature=0)["choices"][0]["message"]["content"] == before


def test_a_level_that_somebody_else_chose_is_seen(service, vllm):
    """Woken as from level 1, a sleep of level 2 would leave it with no weights."""
    vllm.ask("POST", "/sleep?level=2")
    # Told by what only the way back from level 2 does.
    tagged = vllm.log().count("tags: ['weights']")

    async def act():
        await service.wake(1)
        await service.prove()

    run(act)
    assert not vllm.is_sleeping()
    assert vllm.log().count("tags: ['weights']") == tagged + 1


def test_what_is_done_already_is_done(service, vllm):
    async def act():
        await service.wake(1)
        await service.wake(2)
        await service.sleep(1)
        await service.sleep(2)
        await service.wake(2)
        await service.prove()

    run(act)


def test_no_work_goes_to_one_that_sleeps(service, vllm):
    vllm.ask("POST", "/sleep?level=1")
    with pytest.raises(ServiceError, match=r"Service writer .* asleep"):
        run(service.prove)
    # It would stand in the queue and be answered after the wake.
    vllm.wake()
    assert "num_requests_running{" not in metrics(vllm, " 1.0")


def test_an_answer_under_way_may_end(service, vllm, answer):
    async def act():
        await service.sleep(1)
        assert await state_of(service) is ServiceState.ASLEEP

    run(act)
    assert end_of(answer.result(5)) == "length"


def test_a_too_long_answer_is_cut_in_time(vllm, answer, tmp_path):
    service = service_of(vllm.url, tmp_path, timeouts={"sleep": 2.0})
    run(lambda: service.sleep(1))
    assert vllm.is_sleeping()
    assert end_of(answer.result(5)) == "abort"


def test_cancelled_while_falling_asleep(service, vllm, answer):
    async def act():
        task = asyncio.create_task(service.sleep(1))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # It goes on to its end, and nothing is said of it before.
        assert await state_of(service) is ServiceState.ASLEEP
        assert answer.done()
        await service.wake(1)
        await service.prove()

    run(act)
    time.sleep(0.5)
    assert not vllm.is_sleeping()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("after", [0.0, 0.003, 0.01, 0.03, 0.1])
def test_cancelled_while_waking(service, vllm, level, after):
    async def act():
        await service.sleep(level)
        task = asyncio.create_task(service.wake(level))
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait({task})
        await service.wake(level)
        assert await state_of(service) is ServiceState.AWAKE
        await service.prove()

    run(act)


def test_our_process_ends_while_it_falls_asleep(vllm, service, answer, tmp_path):
    """The next one wakes it, and no sleep of the former comes true afterwards."""

    async def begin():
        task = asyncio.create_task(service.sleep(1))
        await asyncio.sleep(0.3)
        assert not task.done()
        # The loop ends here, with all that runs in it, as a process does.

    run(begin)
    assert vllm.is_sleeping()
    later = service_of(vllm.url, tmp_path)

    async def resume():
        assert await state_of(later) is ServiceState.ASLEEP
        await later.wake(1)
        await later.prove()

    run(resume)
    answer.result(20)
    time.sleep(1.0)
    assert not vllm.is_sleeping()


def test_one_that_is_ill_treated(start_vllm, tmp_path, monkeypatch):
    """A key, a server that is stopped, an engine that is, a crash, and another without routes."""
    server = start_vllm(api_key="open-sesame")
    quick = {"answer": 1.0, "sleep": 3.0, "wake": 3.0}
    stranger = service_of(server.url, tmp_path, timeouts=quick)
    with pytest.raises(ServiceError, match="api_key_env"):
        run(stranger.prove)

    monkeypatch.setenv(KEY, "open-sesame")
    service = service_of(server.url, tmp_path, timeouts=quick, api_key_env=KEY)

    async def all_of_it():
        await service.prove()
        await service.sleep(2)
        await service.wake(2)
        await service.prove()

    run(all_of_it)
    server.api_key = None
    assert server.ask("GET", "/v1/models")[0] == 401
    for method, path in [("GET", "/is_sleeping"), ("POST", "/sleep"), ("POST", "/wake_up")]:
        assert server.ask(method, path)[0] == 200, path

    engine = next(pid for pid in server.processes() if "EngineCore" in title(pid))
    for stopped in (server.pid, engine):
        os.kill(stopped, signal.SIGSTOP)
        assert run(service.condition).state is ServiceState.SILENT
        if stopped == engine:
            assert server.ask("GET", "/health")[0] == 200
        for act in (lambda: service.sleep(1), lambda: service.wake(1), service.prove):
            with pytest.raises(ServiceError, match="Service writer"):
                run(act)
        os.kill(stopped, signal.SIGCONT)
        run(lambda: awake_again(service))

    os.kill(engine, signal.SIGKILL)
    run(lambda: becomes(service, ServiceState.STOPPED))
    for act in (lambda: service.sleep(1), lambda: service.wake(1), service.prove):
        with pytest.raises(ServiceError, match="does not run"):
            run(act)

    server = start_vllm(port=server.port, dev_mode=False)
    for method, path in SLEEP_ROUTES:
        assert server.ask(method, path)[0] == 404, path
    condition = run(service.condition)
    assert condition.state is ServiceState.AWAKE
    assert not condition.can_sleep
    assert "VLLM_SERVER_DEV_MODE=1" in condition.detail
    with pytest.raises(ServiceError, match="VLLM_SERVER_DEV_MODE=1"):
        run(lambda: service.sleep(1))
    run(service.prove)
    server.kill()
    run(lambda: becomes(service, ServiceState.STOPPED))


def test_stop_and_start(vllm_commands, tmp_path):
    """A start command that ends when the server answers; one that is the server, put to death."""
    commands: VllmCommands = vllm_commands()
    service = service_of(commands.url, tmp_path, start=commands.start, stop=commands.stop)

    async def ends_itself():
        assert await state_of(service) is ServiceState.STOPPED
        await service.start()
        await service.prove()
        await service.sleep(2)
        await service.stop()
        assert await state_of(service) is ServiceState.STOPPED
        assert commands.processes() == []
        await service.stop()

    run(ends_itself)
    service = service_of(
        commands.url, tmp_path, start=commands.start_foreground, stop=commands.stop
    )

    async def stays():
        await service.start()
        await service.start()
        await service.prove()
        os.kill(commands.pid, signal.SIGKILL)
        await becomes(service, ServiceState.STOPPED)
        # The engine outlives its server, and keeps its memory.
        assert "VLLM::EngineCore" in "".join(map(title, commands.processes()))
        await service.stop()
        assert commands.processes() == []

    run(stays)


async def becomes(service: Service, state: ServiceState) -> None:
    deadline = time.monotonic() + 30
    while await state_of(service) is not state:
        assert time.monotonic() < deadline, await service.condition()
        await asyncio.sleep(0.2)


async def awake_again(service: Service) -> None:
    """What was asked of it while it was stopped is answered when it goes on: wake it to the end."""
    await becomes_answering(service)
    await service.wake(2)
    await service.prove()


async def becomes_answering(service: Service) -> None:
    deadline = time.monotonic() + 30
    while await state_of(service) not in (ServiceState.AWAKE, ServiceState.ASLEEP):
        assert time.monotonic() < deadline, await service.condition()
        await asyncio.sleep(0.2)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
