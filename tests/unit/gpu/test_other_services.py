"""Ollama, llama.cpp, OpenAI-compatible servers and GPT-SoVITS against their stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from animation_studio.gpu.service import OutOfMemory, Service, ServiceState
from tests.support.services import FAULTS, fails, run, service_of
from tests.support.standin_service import StandIn

GB = 10**9
# Kind: act: the routes that it uses.
ROUTES: dict[str, dict[str, list[str]]] = {
    "ollama": {
        "condition": ["GET /api/ps"],
        "sleep": ["GET /api/ps", "POST /api/generate"],
        "wake": ["POST /api/generate"],
        "prove": ["POST /api/generate"],
    },
    "llama_cpp": {
        "condition": ["GET /models"],
        "sleep": ["GET /models", "POST /models/unload"],
        "wake": ["GET /models", "POST /models/load"],
        "prove": ["GET /models", "POST /v1/completions"],
    },
    "openai": {"condition": ["GET /v1/models"], "prove": ["POST /v1/completions"]},
    "gpt_sovits": {"condition": ["GET /openapi.json"], "prove": ["GET /openapi.json"]},
}
DOING: dict[str, Callable[[Service], Any]] = {
    "sleep": lambda service: service.sleep(1),
    "wake": lambda service: service.wake(1),
    "prove": lambda service: service.prove(),
}
AT_EVERY_ROUTE = [
    (kind, act, route, fault)
    for kind, acts in ROUTES.items()
    for act, routes in acts.items()
    for route in routes
    for fault in FAULTS
    if act != "condition"
]


async def until(ready: Callable[[], object]) -> None:
    while not ready():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("kind", "route", "fault"),
    [(kind, acts["condition"][0], fault) for kind, acts in ROUTES.items() for fault in FAULTS],
)
def test_condition_tells_every_fault(tmp_path: Path, kind: str, route: str, fault: str) -> None:
    with StandIn(kind) as server:
        server.fault(route, **FAULTS[fault])
        found = run(service_of(server, tmp_path).condition)
    expected = {
        "too late": ServiceState.SILENT,
        "never": ServiceState.SILENT,
        "dies": ServiceState.STOPPED,
    }
    if kind == "openai":
        # Its health check is a status and nothing more.
        expected.update(dict.fromkeys(("other JSON", "a list", "half of it"), ServiceState.AWAKE))
    assert found.state is expected.get(fault, ServiceState.FAILING)
    assert found.detail.endswith(".") or found.state is ServiceState.AWAKE


@pytest.mark.parametrize("kind", ROUTES)
def test_condition_of_one_that_does_not_run(tmp_path: Path, kind: str) -> None:
    with StandIn(kind) as server:
        service = service_of(server, tmp_path)
        server.crash()
        assert run(service.condition).state is ServiceState.STOPPED


@pytest.mark.parametrize(("kind", "act", "route", "fault"), AT_EVERY_ROUTE)
def test_every_fault_at_every_route_is_an_error_in_time_and_heals(
    tmp_path: Path, kind: str, act: str, route: str, fault: str
) -> None:
    async def check() -> None:
        if act == "wake":
            await service.sleep(1)
        server.fault(route, **FAULTS[fault])
        await fails(DOING[act](service))
        server.heal()
        if not server.running:
            server.serve()
        await service.wake(1)
        await service.prove()

    with StandIn(kind) as server:
        service = service_of(server, tmp_path, model="tiny")
        run(check)


def test_ollama_unloads_and_loads(tmp_path: Path) -> None:
    async def check() -> None:
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.sleep(1)
        assert (await service.condition()).state is ServiceState.ASLEEP
        assert server.memory_bytes() == 0
        await service.sleep(1)
        await service.wake(1)
        await service.wake(1)
        assert (await service.condition()).state is ServiceState.AWAKE
        assert (await service.prove()).what == "one token of tiny"

    with StandIn("ollama", loaded={"tiny": 4 * GB, "other": 2 * GB}) as server:
        service = service_of(server, tmp_path, model="tiny")
        run(check)
        assert list(server.model.loaded) == ["tiny"]
        bodies = [request.body for request in server.log if request.body]
        assert bodies[0] == {"model": "tiny", "keep_alive": 0, "stream": False}


def test_ollama_without_a_model_loads_none_by_itself(tmp_path: Path) -> None:
    async def check() -> None:
        await service.sleep(1)
        await service.wake(1)
        assert "version" in (await service.prove()).what
        assert (await service.condition()).state is ServiceState.ASLEEP

    with StandIn("ollama") as server:
        service = service_of(server, tmp_path)
        run(check)


def test_ollama_with_models_on_the_cpu_alone_sleeps(tmp_path: Path) -> None:
    with StandIn("ollama", loaded={"small": 0}) as server:
        service = service_of(server, tmp_path)
        assert run(service.condition).state is ServiceState.ASLEEP
        run(lambda: service.sleep(1))
        assert server.requests["POST /api/generate"] == 0


def test_ollama_that_still_answers_is_waited_for(tmp_path: Path) -> None:
    async def check() -> None:
        task = asyncio.ensure_future(service.sleep(1))
        await until(lambda: server.requests["POST /api/generate"])
        assert server.memory_bytes()
        server.model.in_flight = 0
        await task

    with StandIn("ollama", in_flight=1) as server:
        service = service_of(server, tmp_path)
        run(check)
        assert server.memory_bytes() == 0


def test_ollama_that_never_ends_its_answer_is_named(tmp_path: Path) -> None:
    with StandIn("ollama", in_flight=1) as server:
        message = run(lambda: fails(service_of(server, tmp_path).sleep(1)))
    assert "still holds tiny after 0.6 s" in message


@pytest.mark.parametrize(
    "said",
    [
        "llama runner process has terminated: cudaMalloc failed: out of memory",
        "model requires more system memory (9.1 GiB) than is available (3.2 GiB)",
    ],
)
def test_ollama_without_room_is_told_apart(tmp_path: Path, said: str) -> None:
    with StandIn("ollama", load_error=said, loaded={}) as server:
        service = service_of(server, tmp_path, model="tiny")
        with pytest.raises(OutOfMemory):
            run(lambda: service.wake(1))


def test_ollama_names_a_model_that_it_has_not(tmp_path: Path) -> None:
    with StandIn("ollama") as server:
        service = service_of(server, tmp_path, model="nobody")
        assert "'nobody' not found" in run(lambda: fails(service.wake(1)))


def test_llama_router_unloads_and_loads(tmp_path: Path) -> None:
    async def check() -> None:
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.sleep(1)
        assert (await service.condition()).state is ServiceState.ASLEEP
        assert server.memory_bytes() == 0
        await service.sleep(1)
        await service.wake(1)
        await service.wake(1)
        assert (await service.condition()).state is ServiceState.AWAKE
        assert (await service.prove()).what == "one token of tiny"

    with StandIn("llama_cpp", load_seconds=0.1) as server:
        service = service_of(server, tmp_path, model="tiny")
        run(check)
        assert server.requests["POST /models/unload"] == 1
        assert server.requests["POST /models/load"] == 1


def test_llama_router_ends_what_sleeps_because_it_was_idle(tmp_path: Path) -> None:
    with StandIn("llama_cpp", states={"tiny": "sleeping", "other": "loaded"}) as server:
        run(lambda: service_of(server, tmp_path).sleep(1))
        assert set(server.model.states.values()) == {"unloaded"}


def test_llama_router_that_cannot_load_says_so(tmp_path: Path) -> None:
    with StandIn("llama_cpp", states={"tiny": "unloaded"}, load_fails=True) as server:
        service = service_of(server, tmp_path, model="tiny")
        assert "could not" in run(lambda: fails(service.wake(1)))


def test_llama_router_that_loads_too_slowly_says_so(tmp_path: Path) -> None:
    with StandIn("llama_cpp", states={"tiny": "unloaded"}, load_seconds=2.0) as server:
        service = service_of(server, tmp_path, model="tiny")
        assert "timeouts.wake" in run(lambda: fails(service.wake(1)))


def test_llama_router_without_a_model_loads_none_by_itself(tmp_path: Path) -> None:
    async def check() -> None:
        await service.sleep(1)
        await service.wake(1)
        assert "none is loaded" in (await service.prove()).what

    with StandIn("llama_cpp") as server:
        service = service_of(server, tmp_path)
        run(check)
        assert server.memory_bytes() == 0


def test_llama_server_of_one_model_cannot_sleep(tmp_path: Path) -> None:
    async def check() -> None:
        found = await service.condition()
        assert found.state is ServiceState.AWAKE
        assert not found.can_sleep
        assert "router mode" in found.detail
        assert "router mode" in await fails(service.sleep(1))
        await service.wake(1)
        assert (await service.prove()).what == "one token of tiny"

    with StandIn("llama_cpp", router=False) as server:
        service = service_of(server, tmp_path, model="tiny")
        run(check)


def test_llama_server_that_sleeps_because_it_was_idle(tmp_path: Path) -> None:
    async def check() -> None:
        found = await service.condition()
        assert found.state is ServiceState.ASLEEP
        assert not found.can_sleep
        await service.prove()
        assert (await service.condition()).state is ServiceState.AWAKE

    with StandIn("llama_cpp", router=False, idle=True) as server:
        service = service_of(server, tmp_path)
        run(check)


def test_llama_server_that_still_loads_fails_for_now(tmp_path: Path) -> None:
    with StandIn("llama_cpp") as server:
        text = '{"error": {"code": 503, "message": "Loading model"}}'
        server.fault("*", status=503, text=text)
        found = run(service_of(server, tmp_path).condition)
    assert found.state is ServiceState.FAILING
    assert "Loading model" in found.detail


@pytest.mark.parametrize("kind", ["openai", "gpt_sovits"])
def test_a_kind_without_sleep_says_so(tmp_path: Path, kind: str) -> None:
    async def check() -> None:
        assert not service.can_sleep
        assert not (await service.condition()).can_sleep
        assert "stop and start commands" in await fails(service.sleep(1))
        await service.wake(1)

    with StandIn(kind) as server:
        service = service_of(server, tmp_path)
        run(check)


def test_an_openai_compatible_server_proves_itself(tmp_path: Path) -> None:
    with StandIn("openai", chat_only=True) as server:
        assert run(service_of(server, tmp_path).prove).what == "one token of tiny"


def test_an_openai_compatible_server_is_asked_at_the_users_health_check(tmp_path: Path) -> None:
    with StandIn("openai") as server:
        found = run(service_of(server, tmp_path, health="/healthz").condition)
        assert found.state is ServiceState.FAILING
        assert "404" in found.detail
        assert server.requests["GET /healthz"] == 1


def test_gpt_sovits_exits_when_asked_and_comes_again(tmp_path: Path) -> None:
    async def check() -> None:
        assert service.can_stop
        await service.stop()
        assert (await service.condition()).state is ServiceState.STOPPED
        await service.start()
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.prove()

    with StandIn("gpt_sovits") as server:
        service = service_of(server, tmp_path, start=server.commands()["start"])
        run(check)
        assert server.requests["GET /control"] == 1


def test_gpt_sovits_without_a_start_command_is_not_ended(tmp_path: Path) -> None:
    with StandIn("gpt_sovits") as server:
        service = service_of(server, tmp_path)
        assert not service.can_stop
        assert "has no stop command" in run(lambda: fails(service.stop()))
        assert server.running


def test_gpt_sovits_prefers_the_users_stop_command(tmp_path: Path) -> None:
    with StandIn("gpt_sovits") as server:
        run(service_of(server, tmp_path, **server.commands()).stop)
        assert server.requests["GET /control"] == 0
        assert not server.running


@pytest.mark.parametrize(
    "fault", [{"cut": True}, {"die": True}, {"delay": 0.2, "die": True}], ids=str
)
def test_gpt_sovits_may_exit_in_its_own_way(tmp_path: Path, fault: dict[str, Any]) -> None:
    with StandIn("gpt_sovits") as server:
        server.fault("GET /control", acts=True, **fault)
        service = service_of(server, tmp_path, start=server.commands()["start"])
        if "die" in fault:
            run(service.stop)
        else:
            assert "still listens" in run(lambda: fails(service.stop()))


def test_gpt_sovits_without_a_control_route_says_so(tmp_path: Path) -> None:
    with StandIn("gpt_sovits") as server:
        server.fault("GET /control", status=404)
        service = service_of(server, tmp_path, start=server.commands()["start"])
        assert "answered 404" in run(lambda: fails(service.stop()))


def test_gpt_sovits_is_told_from_another_server(tmp_path: Path) -> None:
    with StandIn("gpt_sovits") as server:
        server.fault("GET /openapi.json", status=200, text='{"paths": {"/v1/models": {}}}')
        found = run(service_of(server, tmp_path).condition)
        assert found.state is ServiceState.FAILING
        assert "/tts" in found.detail
        assert "kind in services.yaml" in found.detail
        healthy = service_of(server, tmp_path, health="/openapi.json")
        assert run(healthy.condition).state is ServiceState.AWAKE


def test_gpt_sovits_that_speaks_is_slow_and_not_dead(tmp_path: Path) -> None:
    async def check() -> None:
        found = await service.condition()
        assert found.state is ServiceState.SILENT
        assert "may be speaking" in found.detail
        await service.prove()

    with StandIn("gpt_sovits", generating=0.8) as server:
        service = service_of(server, tmp_path, timeouts={"wake": 5.0})
        run(check)
