"""Whose turn it is: one holder at a time, and nothing that is left over is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from animation_studio.errors import ConfigError, GpuError
from animation_studio.gpu import arbiter as arbiter_module
from animation_studio.gpu import manual
from tests.support.gpu_desk import GB, Desk, image, llm, resume, until


def test_somebody_who_waits_does_not_disturb_a_node(desk: Desk):
    """Only what is given back after a prompt is handed over to one who waits."""
    desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        desk.host.load(12 * GB)
        busy = [True]
        desk.host.waits = lambda: busy[0]
        resuming = asyncio.ensure_future(arbiter.resume(resume()))
        await asyncio.sleep(0.1)
        other = asyncio.ensure_future(arbiter.take(image(holder="two", timeout=5.0)))
        await asyncio.sleep(0.2)
        assert not resuming.done()
        busy[0] = False
        assert (await resuming).resumed == ["qwen"]
        await other
        await arbiter.end("two")

    desk.run(whole)

    assert desk.paused == []


def test_it_is_given_back_when_no_prompt_is_left(desk: Desk):
    """Those behind it sample in the room that was made: without a lease, where all is cached."""
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        desk.host.prompts = 2
        ending = asyncio.ensure_future(arbiter.end("prompt"))
        await asyncio.sleep(0.2)
        assert server.asleep
        desk.host.prompts = 0
        await ending

    desk.run(whole)

    assert not server.asleep


@pytest.fixture
def quick_care(monkeypatch):
    monkeypatch.setattr(arbiter_module, "_AGAIN", (0.05,))


@pytest.mark.usefixtures("quick_care")
def test_who_took_over_and_gave_nothing_back_does_not_make_it_forgotten(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(holder="one"))
        desk.host.prompts = 1
        ending = asyncio.ensure_future(arbiter.end("one"))
        await asyncio.sleep(0.1)
        # Waits for its turn, so that the end hands over, and then fails.
        with pytest.raises(ConfigError, match="'nobody'"):
            await arbiter.take(llm("nobody", holder="two"))
        await ending
        desk.host.prompts = 0
        assert await until(lambda: not server.asleep and desk.paused == [])

    desk.run(whole)


@pytest.mark.usefixtures("quick_care")
def test_what_could_not_be_given_back_is_tried_again_after_somebody_elses_act(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)
    desk.add("other", memory_awake=1 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        server.fault("*", status=500)
        await arbiter.end("prompt")
        async with arbiter.action("a long act"):
            server.heal()
            await asyncio.sleep(0.2)
        assert await until(lambda: not server.asleep and desk.paused == [])

    desk.run(whole)


@pytest.mark.usefixtures("quick_care")
def test_a_fault_that_nobody_foresaw_is_tried_again_too(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        desk.host.load(12 * GB)

        def broken() -> bool:
            desk.host.waits = lambda: False
            raise AttributeError("a foreign pack's model")

        desk.host.waits = broken
        with pytest.raises(AttributeError):
            await arbiter.end("prompt")
        assert arbiter.lease is None
        assert await until(lambda: not server.asleep and desk.paused == [])

    desk.run(whole)


def test_an_act_that_waits_for_a_prompt_which_wants_the_gpu_gives_way(desk: Desk):
    async def whole(arbiter):
        desk.host.waits = lambda: True
        freeing = asyncio.ensure_future(manual.free(arbiter))
        await asyncio.sleep(0.1)
        await arbiter.take(image(timeout=2.0))
        with pytest.raises(GpuError, match="A prompt wants the GPU"):
            await freeing
        await arbiter.end("prompt")

    desk.run(whole)


def test_a_journal_that_cannot_be_written_keeps_no_lock(desk: Desk):
    async def whole(arbiter):
        arbiter.journal.path.parent.mkdir(parents=True, exist_ok=True)
        arbiter.journal.path.write_text('{"format": "animation_studio/gpu_journal/99"}')
        with pytest.raises(GpuError):
            await arbiter.take(image())
        assert arbiter.lease is None
        arbiter.journal.path.unlink()
        assert (await arbiter.take(image())).ok
        await arbiter.end("prompt")

    desk.run(whole)


def test_next_guard_takes_over_and_gives_back(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(holder="one", resume="next guard"))
        await arbiter.end("one")
        assert server.asleep
        assert desk.paused == ["qwen"]
        assert desk.holder is None
        second = await arbiter.take(image(holder="two"))
        assert not second.steps
        await arbiter.end("two")

    desk.run(whole)

    assert not server.asleep
    assert desk.paused == []


def test_a_second_holder_waits_for_the_first(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        told = []
        await arbiter.take(image(holder="one"))
        second = asyncio.ensure_future(arbiter.take(image(holder="two"), told.append))
        await asyncio.sleep(0.1)
        assert not second.done()
        assert "one has it for image" in told[0]
        await arbiter.end("one")
        await second
        assert arbiter.lease.holder == "two"
        assert server.asleep
        await arbiter.end("two")

    desk.run(whole)

    assert not server.asleep
    assert desk.paused == []


def test_a_second_holder_waits_no_longer_than_it_may(desk: Desk):
    async def whole(arbiter):
        await arbiter.take(image(holder="one"))
        with pytest.raises(GpuError, match="The GPU is not free: one has it for image"):
            await arbiter.take(image(holder="two", timeout=0.1))
        await arbiter.end("one")

    desk.run(whole)


def test_another_arbiter_of_the_same_folder_waits(desk: Desk):
    async def whole(arbiter):
        other = desk.arbiter()
        await arbiter.take(image(holder="one"))
        with pytest.raises(GpuError, match=r"process \d+ has it for image \(one\)"):
            await other.take(image(holder="two", timeout=0.1))
        await arbiter.end("one")
        await other.take(image(holder="two", timeout=1.0))
        await other.end("two")

    desk.run(whole)


def test_a_handover_is_not_delayed_by_a_prompt_that_keeps_comfyui_busy(desk: Desk):
    """The end of a prompt cannot unload while the next one runs, whose guard waits for the end."""
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(holder="one"))
        desk.host.load(12 * GB)
        desk.host.waits = lambda: True
        ending = asyncio.ensure_future(arbiter.end("one"))
        await asyncio.sleep(0.1)
        await arbiter.take(image(holder="two"))
        await ending
        assert server.asleep
        assert desk.paused == ["qwen"]
        desk.host.waits = lambda: False
        await arbiter.end("two")

    desk.run(whole)

    assert not server.asleep
    assert desk.paused == []
