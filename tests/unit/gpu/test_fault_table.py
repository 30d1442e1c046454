"""Every fault in every phase of a lease: nothing stays paused, and the cause is named.

The service has stop and start commands, as a user who wants no surprises gives it. The fault begins
before the phase and ends (heals) after it; then the pack has to bring everything back by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from animation_studio.errors import StudioError
from animation_studio.gpu import arbiter as arbiter_module
from animation_studio.gpu import work as work_module
from tests.support.gpu_desk import GB, Desk, image, until
from tests.support.nvml_standin import NOT_SUPPORTED, ScriptedGpu

Fault = Callable[[Desk], None]

PHASES = ("taking", "held", "giving back")


def every_route(**kind) -> Fault:
    return lambda desk: desk.servers["qwen"].fault("*", **kind)


def acts(**kind) -> Fault:
    def begin(desk: Desk) -> None:
        for route in ("POST /sleep", "POST /wake_up"):
            desk.servers["qwen"].fault(route, **kind)

    return begin


def model(**values) -> Fault:
    return lambda desk: desk.servers["qwen"].steer({"model": values})


def stays_loaded(desk: Desk) -> None:
    """ComfyUI's models stay on the GPU, and nothing else fits."""
    desk.host.load(0, stays=7 * GB)
    desk.host.note = "ComfyUI runs with --highvram"
    desk.servers["qwen"].steer({"model": {"wake_out_of_memory": 99}})


def commands(**values) -> Fault:
    """Memory stays or waking fails, so that the commands are needed, and they go wrong."""

    def begin(desk: Desk) -> None:
        server = desk.servers["qwen"]
        server.steer({"model": {"keeps_memory": True}})
        server.fault("POST /wake_up", status=500)
        for name, value in values.items():
            setattr(server, name, value)

    return begin


FAULTS: dict[str, Fault] = {
    "unreachable": lambda desk: desk.servers["qwen"].crash(),
    "slow": every_route(delay=0.15),
    "never answers": every_route(hang=True),
    "never answers an act": acts(hang=True),
    "500": every_route(status=500),
    "500 to an act": acts(status=500),
    "500 after the act": acts(status=500, acts=True),
    "asleep and the memory stays": model(keeps_memory=True),
    "crashes half way": acts(die=True),
    "connection breaks": acts(cut=True, acts=True),
    "truncated JSON": every_route(truncated=True),
    "a megabyte of noise": every_route(megabytes=2),
    "wakes out of memory once": model(wake_out_of_memory=1),
    "wakes out of memory always": model(wake_out_of_memory=99),
    "stop command fails": commands(stop_fails=True),
    "start command fails": commands(start_fails=True),
    "start command hangs": commands(start_seconds=60.0),
    "NVML absent": lambda desk: desk.gpu.remove(),
    "NVML says N/A": lambda desk: desk.gpu.fail(NOT_SUPPORTED, "nvmlDeviceGetMemoryInfo"),
    "--highvram": lambda desk: stays_loaded(desk),
    "the card is full": lambda desk: desk.gpu.add(7 * GB),
}


def heal(desk: Desk) -> None:
    server = desk.servers["qwen"]
    server.heal()
    server.stop_fails = server.start_fails = False
    server.start_seconds = 0.0
    server.steer({"model": {"keeps_memory": False, "wake_out_of_memory": 0}})
    desk.gpu.fail(0, "nvmlDeviceGetMemoryInfo")
    desk.gpu.set(used=server.memory_bytes())


@pytest.fixture
def desk(gpu: ScriptedGpu, tmp_path: Path, monkeypatch) -> Iterator[Desk]:
    monkeypatch.setattr(arbiter_module, "_AGAIN", (0.05, 0.1))
    monkeypatch.setattr(work_module, "_BETWEEN", 0.02)
    with Desk(gpu, tmp_path / "state", settle_seconds=0.1) as made:
        made.add(
            "qwen",
            memory_awake=9 * GB,
            commands=True,
            vram_gb=8.0,
            timeouts={"answer": 0.25, "sleep": 0.6, "wake": 0.6, "stop": 1.5, "start": 1.5},
        )
        yield made


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", FAULTS)
def test_fault(desk: Desk, name: str, phase: str):
    server = desk.servers["qwen"]

    async def whole(arbiter):
        said = []
        if phase == "taking":
            FAULTS[name](desk)
        try:
            await arbiter.take(image(timeout=6.0))
        except StudioError as error:
            said.append(str(error))
        if phase == "taking":
            heal(desk)
        if phase == "held":
            FAULTS[name](desk)
            await asyncio.sleep(0.05)
            heal(desk)
        if phase == "giving back":
            FAULTS[name](desk)
        await arbiter.end("prompt")
        if phase == "giving back":
            heal(desk)

        def well() -> bool:
            return desk.paused == [] and desk.holder is None and not server.asleep

        assert await until(well, 10.0), (said, arbiter.journal.read())
        if server.running:
            proof = await desk.services()["qwen"].prove()
            assert proof.seconds >= 0
        assert desk.work_while_asleep() == 0
        assert server.model.harm == []
        for text in said:
            assert "qwen" in text or "NVIDIA" in text

    desk.run(whole)
    # Only a server that was never paused, or ended before it was, is left ended.
    assert server.running or (name in ("unreachable", "crashes half way") and phase == "taking")


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.3])
@pytest.mark.parametrize("act", ["sleep", "stop", "prove"])
def test_interrupted_at_any_moment_of_taking(desk: Desk, act: str, after: float):
    server = desk.servers["qwen"]
    server.steer({"model": {"sleep_seconds": 0.2}})
    request = image(level="stop") if act == "stop" else image()
    if act == "prove":
        desk.put_to_sleep("qwen")
        request = image(purpose="llm")

    async def whole(arbiter):
        taking = asyncio.ensure_future(arbiter.take(request))
        await asyncio.sleep(after)
        began = time.monotonic()
        taking.cancel()
        await asyncio.wait({taking})
        # "Within a second", with room for a machine that is busy.
        assert time.monotonic() - began < 5.0
        await arbiter.end("prompt")
        assert desk.paused == []
        assert desk.holder is None

    desk.run(whole)

    assert act == "prove" or not server.asleep
    assert server.running
    assert server.model.harm == []


@pytest.mark.parametrize("phase", ["pausing", "paused", "resuming"])
def test_killed_in_any_phase_the_next_start_brings_it_back(desk: Desk, phase: str):
    """A process that is killed leaves the journal as it stands: another one goes on from it."""
    server = desk.servers["qwen"]

    async def killed(arbiter):
        await arbiter.take(image())
        (pause,) = arbiter.journal.read().paused
        arbiter.journal.put(pause.model_copy(update={"phase": phase}))

    desk.run(killed)
    if phase == "pausing":
        desk.run(lambda _: desk.services()["qwen"].wake(1))

    desk.run(lambda arbiter: arbiter.recover())

    assert not server.asleep
    assert desk.paused == []


def test_two_prompts_at_once_do_not_share_the_gpu(desk: Desk):
    server = desk.servers["qwen"]
    order = []

    async def prompt(arbiter, name: str) -> None:
        await arbiter.take(image(holder=name))
        order.append(name)
        assert server.asleep
        await asyncio.sleep(0.1)
        order.append(name)
        await arbiter.end(name)

    async def whole(arbiter):
        await asyncio.gather(*(prompt(arbiter, name) for name in ("one", "two", "three")))

    desk.run(whole)

    assert order[0::2] == order[1::2]
    assert not server.asleep
    assert desk.paused == []
