"""What all kinds share: stopping and starting by the user's commands, and every way it can fail."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from animation_studio.gpu.service import Service, ServiceState
from tests.support import standin_service
from tests.support.services import fails, run, service_of
from tests.support.standin_service import StandIn

STANDIN = str(Path(standin_service.__file__))
NOTHING = [sys.executable, "-I", "-S", "-c", "pass"]
WAITS = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


@pytest.fixture
def service(server: StandIn, tmp_path: Path) -> Service:
    return service_of(server, tmp_path, **server.commands())


def failing(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", f"import sys; print({text!r}); sys.exit(1)"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def process(server: StandIn, *options: str) -> list[str]:
    """A start command that is the server itself."""
    port = str(server.port)
    return [sys.executable, STANDIN, "--kind", server.kind, "--port", port, *options]


async def until(ready: Callable[[], object]) -> None:
    while not ready():
        await asyncio.sleep(0.005)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_stops_and_starts(server: StandIn, service: Service) -> None:
    async def check() -> None:
        assert service.can_stop
        await service.stop()
        assert (await service.condition()).state is ServiceState.STOPPED
        assert server.memory_bytes() == 0
        await service.start()
        assert (await service.condition()).state is ServiceState.AWAKE
        await service.prove()

    run(check)


def test_one_that_answers_is_not_started_again(server: StandIn, tmp_path: Path) -> None:
    service = service_of(server, tmp_path, start=failing("should not run"))
    run(service.start)
    assert not (tmp_path / "writer.log").exists()


def test_one_that_comes_up_by_itself_is_waited_for(server: StandIn, tmp_path: Path) -> None:
    server.fault("GET /health", status=503, times=3)
    service = service_of(server, tmp_path, start=failing("should not run"))
    run(service.start)
    assert server.requests["GET /health"] == 4


def test_one_that_sleeps_is_not_started(server: StandIn, service: Service) -> None:
    async def check() -> None:
        await service.sleep(1)
        await service.start()
        assert (await service.condition()).state is ServiceState.ASLEEP

    run(check)


def test_the_health_check_of_services_yaml_is_asked(server: StandIn, tmp_path: Path) -> None:
    service = service_of(server, tmp_path, **server.commands(), health="/v1/models")
    run(service.start)
    assert server.requests["GET /v1/models"] == 1
    assert server.requests["GET /health"] == 0


@pytest.mark.parametrize("act", ["stop", "start"])
def test_without_a_command_it_says_what_to_write(server: StandIn, tmp_path: Path, act: str) -> None:
    service = service_of(server, tmp_path)
    assert not service.can_stop
    if act == "start":
        server.crash()
    message = run(lambda: fails(getattr(service, act)()))
    assert f"has no {act} command" in message
    assert f'{act}: ["' in message


def test_a_stop_that_fails_says_why(server: StandIn, service: Service) -> None:
    server.stop_fails = True
    message = run(lambda: fails(service.stop()))
    assert "the stand-in cannot stop" in message
    assert server.running


def test_a_stop_that_finds_nothing_to_stop_has_nothing_to_complain_of(
    server: StandIn, service: Service
) -> None:
    server.stop_fails = True
    server.crash()
    run(service.stop)


def test_a_stop_that_does_nothing_is_found_out(server: StandIn, tmp_path: Path) -> None:
    service = service_of(server, tmp_path, stop=NOTHING, start=NOTHING)
    assert "still listens after 1.5 s" in run(lambda: fails(service.stop()))


def test_a_stop_that_hangs_is_killed(server: StandIn, tmp_path: Path) -> None:
    service = service_of(server, tmp_path, stop=WAITS, start=NOTHING, timeouts={"stop": 0.3})
    assert "was killed" in run(lambda: fails(service.stop()))


def test_a_cancelled_stop_ends_before_a_start(server: StandIn, service: Service) -> None:
    """Found awake one moment before it ends, it would not be started again."""

    async def check() -> None:
        task = asyncio.ensure_future(service.stop())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
        assert task.cancelled()
        await service.start()
        assert (await service.condition()).state is ServiceState.AWAKE

    run(check)


def test_a_start_that_fails_says_why_at_once(server: StandIn, tmp_path: Path) -> None:
    server.crash()
    service = service_of(server, tmp_path, start=failing("no GPU found"), timeouts={"start": 60})
    message = run(lambda: fails(service.start()))
    for part in ("ended with status 1", "no GPU found", str(tmp_path / "writer.log")):
        assert part in message


def test_a_start_that_does_nothing_is_found_out(server: StandIn, tmp_path: Path) -> None:
    server.crash()
    service = service_of(server, tmp_path, start=NOTHING, timeouts={"start": 0.5})
    message = run(lambda: fails(service.start()))
    assert "not ready after 0.5 s" in message
    assert "timeouts.start" in message


def test_a_program_that_does_not_exist_is_named(server: StandIn, tmp_path: Path) -> None:
    server.crash()
    service = service_of(server, tmp_path, start=["no-such-program", "serve"])
    assert "'no-such-program' cannot be run" in run(lambda: fails(service.start()))


def test_the_key_in_a_log_is_struck_out(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRITER_KEY", "sk-secret-99")
    server.crash()
    start = failing("args: --api-key sk-secret-99")
    service = service_of(server, tmp_path, start=start, api_key_env="WRITER_KEY")
    message = run(lambda: fails(service.start()))
    assert "sk-secret-99" not in message
    assert "--api-key ***" in message


def test_a_start_command_that_is_the_server_itself(server: StandIn, tmp_path: Path) -> None:
    server.crash()
    pid_file = tmp_path / "pid"
    code = "import os, sys; os.kill(int(open(sys.argv[1]).read()), 15)"
    stop = [sys.executable, "-I", "-S", "-c", code, str(pid_file)]
    timeouts = {"start": 8, "stop": 5}
    service: Any = service_of(server, tmp_path, start=process(server), stop=stop, timeouts=timeouts)

    async def check() -> int:
        await service.start()
        pid = int(service._launched.pid)
        pid_file.write_text(str(pid))
        await service.prove()
        await service.sleep(1)
        await service.wake(1)
        await service.stop()
        return pid

    assert ended(run(check))
    assert "stand-in vllm starts" in (tmp_path / "writer.log").read_text()


@pytest.mark.parametrize("options", [[], ["--ignore-term"]])
@pytest.mark.parametrize("how", ["cancelled", "too late"])
def test_a_start_that_is_given_up_ends_what_it_started(
    server: StandIn, tmp_path: Path, options: list[str], how: str
) -> None:
    server.crash()
    start = process(server, "--start-seconds", "60", *options)
    seconds = 60 if how == "cancelled" else 1.0
    service = service_of(server, tmp_path, start=start, timeouts={"start": seconds})
    pids: list[int] = []

    def started() -> bool:
        log = tmp_path / "writer.log"
        return log.exists() and "starts" in log.read_text()

    async def check() -> None:
        task = asyncio.ensure_future(service.start())
        await until(started)
        pids.extend(_children())
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert "ended again" in await fails(task)
        assert pids
        await until(lambda: not set(pids) & set(_children()))

    run(check)


def _children() -> list[int]:
    """Process ids of this process's children that are stand-ins."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and STANDIN.encode() in command:
            found.append(int(folder.name))
    return found


def test_a_server_that_crashes_while_it_starts_is_told_at_once(
    server: StandIn, tmp_path: Path
) -> None:
    server.crash()
    settings = '{"no_such_setting": 1}'
    start = process(server, "--settings", settings)
    service = service_of(server, tmp_path, start=start, timeouts={"start": 60})
    message = run(lambda: fails(service.start()))
    assert "no_such_setting" in message


def test_a_process_that_dies_half_way_is_stopped(server: StandIn, tmp_path: Path) -> None:
    server.crash()
    control = tmp_path / "control.json"
    control.write_text('{"faults": [{"route": "POST /sleep", "die": true}]}')
    start = process(server, "--control", str(control))
    service = service_of(server, tmp_path, start=start, timeouts={"start": 8})

    async def check() -> None:
        await service.start()
        await fails(service.sleep(1))
        assert (await service.condition()).state is ServiceState.STOPPED
        control.write_text("{}")
        await service.start()
        await service.sleep(1)
        await service.wake(1)
        control.write_text('{"faults": [{"route": "GET /is_sleeping", "die": true}]}')
        await service.condition()
        assert (await service.condition()).state is ServiceState.STOPPED

    run(check)


def test_many_conditions_leave_no_descriptor_open(server: StandIn, service: Service) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def check() -> None:
        await service.condition()
        before = count()
        for _ in range(50):
            await service.condition()
        # The stand-in's own threads close theirs a little later.
        await until(lambda: count() <= before)

    run(check)


def test_the_log_of_a_service_stays_in_its_folder(server: StandIn, tmp_path: Path) -> None:
    from animation_studio.gpu.services import open_service

    server.crash()
    folder = tmp_path / "logs"
    entry = service_of(server, folder, start=failing("x")).entry
    service = open_service("../../etc/pass wd", entry, folder)
    with pytest.raises(Exception, match="ended with status 1"):
        run(service.start)
    assert [path.name for path in folder.iterdir()] == [".._.._etc_pass_wd.log"]
