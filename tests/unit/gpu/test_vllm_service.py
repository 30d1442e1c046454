"""VllmService against the stand-in: the state machine, every fault at every route, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from animation_studio.gpu.service import OutOfMemory, Service, ServiceState
from animation_studio.http import Outcome, ask
from tests.support.services import FAULTS, fails, run, service_of
from tests.support.standin_service import StandIn

ACTS: dict[str, tuple[Callable[[Service], Any], list[str]]] = {
    "sleep": (lambda service: service.sleep(1), ["GET /is_sleeping", "POST /sleep"]),
    "wake 1": (lambda service: service.wake(1), ["GET /is_sleeping", "POST /wake_up"]),
    "wake 2": (
        lambda service: service.wake(2),
        ["GET /is_sleeping", "POST /wake_up", "POST /collective_rpc", "POST /reset_prefix_cache"],
    ),
    "prove": (
        lambda service: service.prove(),
        ["GET /v1/models", "GET /is_sleeping", "POST /v1/completions"],
    ),
}
# What a step of waking from level 2 says is not looked at, only whether it is 200.
SILENTLY = ("other JSON", "a list", "half of it")
AT_EVERY_ROUTE = [
    (act, route, fault)
    for act, (_, routes) in ACTS.items()
    for route in routes
    for fault in FAULTS
    if not (act == "wake 2" and route.startswith("POST") and fault in SILENTLY)
]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin
        assert standin.model.harm == []
        assert standin.model.work_while_asleep == 0


@pytest.fixture
def service(server: StandIn, tmp_path: Path) -> Service:
    return service_of(server, tmp_path)


async def until(ready: Callable[[], object]) -> None:
    while not ready():
        await asyncio.sleep(0.002)


async def cancelled(doing: Any, ready: Callable[[], object]) -> None:
    """Start, wait until it is ready to be cancelled, and cancel it: the caller is free at once."""
    task = asyncio.ensure_future(doing)
    await until(ready)
    task.cancel()
    await asyncio.wait({task}, timeout=0.1)
    assert task.cancelled()


@pytest.mark.parametrize("level", [1, 2])
def test_sleeps_and_wakes_and_answers(server: StandIn, service: Service, level: int) -> None:
    async def check() -> None:
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.sleep(level)
        assert (await service.condition()).state is ServiceState.ASLEEP
        assert server.model.level == level
        assert server.memory_bytes() < server.model.memory_awake
        await service.wake(level)
        assert (await service.condition()).state is ServiceState.AWAKE
        proof = await service.prove()
        assert proof.what == "one token of tiny"
        assert proof.seconds > 0

    run(check)
    assert not server.model.noise


def test_a_second_sleep_and_a_second_wake_are_no_errors(server: StandIn, service: Service) -> None:
    async def check() -> None:
        for _ in range(2):
            await service.sleep(1)
        for _ in range(2):
            await service.wake(1)

    run(check)
    assert server.requests["POST /sleep"] == 1
    assert server.requests["POST /wake_up"] == 1


def test_sleep_is_asked_by_query_alone(server: StandIn, service: Service) -> None:
    run(lambda: service.sleep(2))
    (request,) = [request for request in server.log if request.route == "POST /sleep"]
    assert request.query == {"level": ["2"], "mode": ["wait"]}
    assert request.body is None


@pytest.mark.parametrize("setting", [{"knows_mode": False}, {"refuses_mode": True}])
def test_versions_without_a_mode_sleep_too(
    server: StandIn, service: Service, setting: dict[str, bool]
) -> None:
    server.steer({"model": setting})
    run(lambda: service.sleep(2))
    assert server.model.level == 2


def test_other_peoples_answers_may_end_first(server: StandIn, service: Service) -> None:
    async def check() -> None:
        server.model.in_flight = 2
        task = asyncio.ensure_future(service.sleep(1))
        await until(lambda: server.requests["POST /sleep"])
        assert not server.model.tags
        server.model.in_flight = 0
        await task

    run(check)
    assert server.model.aborted == 0
    assert server.asleep


def test_answers_without_an_end_are_cut_half_way(server: StandIn, service: Service) -> None:
    server.model.in_flight = 2
    run(lambda: service.sleep(1))
    assert server.model.aborted == 2
    modes = [request.query["mode"] for request in server.log if request.route == "POST /sleep"]
    assert modes == [["wait"], ["abort"]]


def test_sleep_ends_when_memory_is_free_not_when_is_sleeping_says_so(
    server: StandIn, service: Service
) -> None:
    server.model.sleep_seconds = 0.2
    run(lambda: service.sleep(1))
    assert server.model.tags


def test_level_2_is_woken_in_its_order(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await service.sleep(2)
        await service.wake(2)

    run(check)
    posts = [(r.route, r.query, r.body) for r in server.log if r.route.startswith("POST")][1:]
    assert posts == [
        ("POST /wake_up", {"tags": ["weights"]}, None),
        ("POST /collective_rpc", {}, {"method": "reload_weights"}),
        ("POST /wake_up", {"tags": ["kv_cache"]}, None),
        ("POST /reset_prefix_cache", {}, None),
    ]


def test_whoever_dropped_the_weights_they_are_read_again(server: StandIn, service: Service) -> None:
    """Somebody else put it to sleep at level 2: woken as from level 1 it would answer noise."""

    async def check() -> None:
        await service.sleep(2)
        await service.wake(1)

    run(check)
    assert not server.asleep
    assert not server.model.noise


@pytest.mark.parametrize("act", ["sleep", "wake"])
@pytest.mark.parametrize("level", [1, 2])
def test_a_sleep_that_somebody_left_under_way_comes_to_its_end_first(
    server: StandIn, service: Service, level: int, act: str
) -> None:
    """As after a ComfyUI that was killed: woken at once it would lose its memory later."""

    async def check() -> None:
        server.model.in_flight = 1
        query = [("level", str(level)), ("mode", "wait")]
        left = await ask(service.entry, "POST", "/sleep", timeout=0.1, query=query)
        assert left.outcome is Outcome.SILENT
        assert (await service.condition()).state is ServiceState.ASLEEP
        await getattr(service, act)(level)
        if act == "sleep":
            assert server.model.tags
        await service.wake(level)
        await service.prove()

    run(check)
    assert not server.asleep
    assert not server.model.noise


def test_without_metrics_the_level_that_is_named_counts(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await service.sleep(1)
        server.fault("GET /metrics", status=404)
        await service.wake(1)

    run(check)
    assert server.requests["POST /collective_rpc"] == 0


@pytest.mark.parametrize("level", [1, 2])
def test_out_of_memory_is_told_apart_and_a_retry_wakes(
    server: StandIn, service: Service, level: int
) -> None:
    async def check() -> None:
        await service.sleep(level)
        server.model.wake_out_of_memory = 1
        with pytest.raises(OutOfMemory, match=r"too little memory.*CUDA Error.*Free GPU memory"):
            await service.wake(level)
        assert (await service.condition()).state is ServiceState.ASLEEP
        await service.wake(level)

    run(check)
    assert not server.asleep
    assert not server.model.noise


def test_without_its_development_mode_it_cannot_sleep(server: StandIn, service: Service) -> None:
    async def check() -> None:
        found = await service.condition()
        assert found.state is ServiceState.AWAKE
        assert not found.can_sleep
        assert "VLLM_SERVER_DEV_MODE" in found.detail
        assert "--enable-sleep-mode" in await fails(service.sleep(1))
        await service.wake(1)
        await service.prove()

    server.model.dev_mode = False
    run(check)


def test_memory_that_stays_is_the_meters_to_find(server: StandIn, service: Service) -> None:
    server.model.keeps_memory = True
    run(lambda: service.sleep(1))
    assert server.asleep
    assert server.memory_bytes() == server.model.memory_awake


@pytest.mark.parametrize("fault", FAULTS)
def test_condition_tells_every_fault_and_never_raises(
    server: StandIn, service: Service, fault: str
) -> None:
    server.fault("*", **FAULTS[fault])
    found = run(service.condition)
    expected = {
        "too late": ServiceState.SILENT,
        "never": ServiceState.SILENT,
        "dies": ServiceState.STOPPED,
    }
    assert found.state is expected.get(fault, ServiceState.FAILING)
    assert found.detail.endswith(".")


def test_condition_of_one_that_does_not_run(server: StandIn, service: Service) -> None:
    server.crash()
    assert run(service.condition).state is ServiceState.STOPPED


def test_condition_tells_of_a_key_that_is_not_set(server: StandIn, tmp_path: Path) -> None:
    found = run(service_of(server, tmp_path, api_key_env="NO_SUCH_KEY").condition)
    assert found.state is ServiceState.FAILING
    assert "NO_SUCH_KEY" in found.detail


@pytest.mark.parametrize(("act", "route", "fault"), AT_EVERY_ROUTE)
def test_every_fault_at_every_route_is_an_error_in_time_and_heals(
    server: StandIn, service: Service, act: str, route: str, fault: str
) -> None:
    do = ACTS[act][0]
    level = 2 if act == "wake 2" else 1

    async def check() -> None:
        if act.startswith("wake"):
            await service.sleep(level)
        server.fault(route, **FAULTS[fault])
        await fails(do(service))
        server.heal()
        if not server.running:
            server.serve()
        if act == "sleep":
            await service.sleep(1)
        await service.wake(level)
        await service.prove()

    run(check)


def test_no_work_is_sent_to_one_that_sleeps(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await service.sleep(1)
        assert "Wake it first" in await fails(service.prove())

    run(check)
    assert server.requests["POST /v1/completions"] == 0


def test_work_that_meets_a_sleep_ends_in_time(tmp_path: Path) -> None:
    async def check() -> None:
        server.fault("POST /v1/completions", delay=0.1)
        task = asyncio.ensure_future(fails(service.prove()))
        await until(lambda: server.requests["POST /v1/completions"])
        server.model.paused = True
        assert "no answer" in await task

    with StandIn("vllm") as server:
        service = service_of(server, tmp_path)
        run(check)


def test_an_answer_that_was_cut_proves_nothing(server: StandIn, service: Service) -> None:
    server.model.finish_reason = "abort"
    assert "'abort'" in run(lambda: fails(service.prove()))


def test_a_model_that_is_not_there_is_named(server: StandIn, tmp_path: Path) -> None:
    service = service_of(server, tmp_path, model="nobody")
    assert "`nobody` does not exist" in run(lambda: fails(service.prove()))


def test_a_server_of_chats_alone_proves_itself_too(server: StandIn, service: Service) -> None:
    server.model.chat_only = True
    assert run(service.prove).what == "one token of tiny"


def test_no_model_is_told(server: StandIn, service: Service) -> None:
    server.fault("GET /v1/models", status=200, text='{"data": []}')
    assert "offers no model" in run(lambda: fails(service.prove()))


@pytest.mark.parametrize("in_flight", [0, 1])
def test_a_cancelled_sleep_ends_before_anything_else(
    server: StandIn, service: Service, in_flight: int
) -> None:
    """Woken while the sleep is still to come, a real one would run over memory that then goes."""

    async def check() -> None:
        server.model.in_flight = in_flight
        await cancelled(service.sleep(1), lambda: server.requests["POST /sleep"])
        assert (await service.condition()).state is ServiceState.ASLEEP
        await cancelled(service.sleep(1), lambda: True)
        await service.wake(1)
        await service.prove()

    server.model.sleep_seconds = 0.15
    run(check)


def test_a_cancelled_sleep_is_undone_by_wake_alone(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await cancelled(service.sleep(1), lambda: server.requests["POST /sleep"])
        await service.wake(1)
        assert (await service.condition()).state is ServiceState.AWAKE

    server.model.sleep_seconds = 0.15
    run(check)


def test_a_cancelled_wake_ends_before_the_next_sleep(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await service.sleep(1)
        await cancelled(service.wake(1), lambda: server.requests["POST /wake_up"])
        await service.sleep(1)
        assert (await service.condition()).state is ServiceState.ASLEEP
        await service.wake(1)

    server.model.wake_seconds = 0.15
    run(check)


def test_a_cancelled_sleep_that_never_ends_is_given_up_in_time(
    server: StandIn, service: Service
) -> None:
    async def check() -> None:
        server.fault("POST /sleep", hang=True)
        await cancelled(service.sleep(1), lambda: server.requests["POST /sleep"])
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.wake(1)

    run(check)


@pytest.mark.parametrize("method", ["condition", "prove"])
def test_a_question_may_be_cancelled(server: StandIn, service: Service, method: str) -> None:
    async def check() -> None:
        server.fault("*", hang=True, times=1)
        await cancelled(getattr(service, method)(), lambda: server.requests)
        assert (await service.condition()).state is ServiceState.AWAKE

    run(check)


def test_an_act_of_a_loop_that_ended_is_forgotten(server: StandIn, service: Service) -> None:
    server.model.sleep_seconds = 0.1
    run(lambda: cancelled(service.sleep(1), lambda: server.requests["POST /sleep"]))
    while server.model.sleeps_under_way:
        pass
    assert run(service.condition).state is ServiceState.ASLEEP
