"""VllmService against the stand-in: the state machine, every fault, cancellation at each phase."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from animation_studio.errors import ServiceError
from animation_studio.gpu.service import OutOfMemory, Service, ServiceState
from animation_studio.gpu.services import open_service
from animation_studio.registry.services import ServiceEntry
from tests.support.standin_service import StandIn

SHORT = {"answer": 0.3, "sleep": 0.6, "wake": 0.6, "stop": 0.6, "start": 0.6}


def service_of(server: StandIn, folder: Path, **more: Any) -> Service:
    timeouts = {**SHORT, **more.pop("timeouts", {})}
    entry = ServiceEntry.model_validate(
        {"kind": "vllm", "base_url": server.url, "timeouts": timeouts, **more}
    )
    return open_service("writer", entry, folder)


@pytest.mark.parametrize("level", [1, 2])
def test_sleeps_and_wakes_and_answers(tmp_path: Path, level: int) -> None:
    async def run() -> None:
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

    with StandIn("vllm") as server:
        service = service_of(server, tmp_path)
        asyncio.run(run())
        assert server.model.harm == []
        assert not server.model.noise


def test_a_second_sleep_and_a_second_wake_are_no_errors(tmp_path: Path) -> None:
    async def run() -> None:
        await service.sleep(1)
        await service.sleep(1)
        await service.wake(1)
        await service.wake(1)

    with StandIn("vllm") as server:
        service = service_of(server, tmp_path)
        asyncio.run(run())
        assert server.requests["POST /sleep"] == 1
        assert server.requests["POST /wake_up"] == 1


def test_out_of_memory_is_told_apart_and_a_retry_wakes(tmp_path: Path) -> None:
    async def run() -> None:
        await service.sleep(1)
        with pytest.raises(OutOfMemory, match=r"too little memory.*CUDA Error.*Free GPU memory"):
            await service.wake(1)
        await service.wake(1)

    with StandIn("vllm", wake_out_of_memory=1) as server:
        service = service_of(server, tmp_path)
        asyncio.run(run())
        assert not server.asleep


def test_a_sleep_that_is_cancelled_ends_before_anything_else(tmp_path: Path) -> None:
    async def run() -> None:
        task = asyncio.create_task(service.sleep(1))
        while not server.requests["POST /sleep"]:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await service.condition()).state is ServiceState.ASLEEP
        await service.wake(1)

    with StandIn("vllm", sleep_seconds=0.15) as server:
        service = service_of(server, tmp_path)
        asyncio.run(run())
        assert server.model.harm == []
        assert not server.asleep


def test_no_work_is_sent_to_one_that_sleeps(tmp_path: Path) -> None:
    async def run() -> None:
        await service.sleep(1)
        with pytest.raises(ServiceError, match=r"asleep.*Wake it first"):
            await service.prove()

    with StandIn("vllm") as server:
        service = service_of(server, tmp_path)
        asyncio.run(run())
        assert server.model.work_while_asleep == 0
        assert server.requests["POST /v1/completions"] == 0
