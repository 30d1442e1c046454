"""Giving back: at the end, by Resume LLM, after a crash, and what is never given back."""

from __future__ import annotations

import asyncio
import os

import pytest

from animation_studio.errors import GpuError
from animation_studio.gpu import manual
from animation_studio.gpu.process import started_at
from tests.support.gpu_desk import GB, Desk, acts, image, resume, until
from tests.support.nvml_standin import GIB


def test_the_end_gives_back_and_proves_it(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        assert server.asleep
        assert desk.paused == ["qwen"]
        assert desk.holder == "prompt"
        desk.host.load(11 * GB)
        return await arbiter.end("prompt")

    report = desk.run(whole)

    assert acts(report) == [("unload", "ComfyUI's models"), ("wake", "qwen"), ("prove", "qwen")]
    assert not server.asleep
    assert desk.paused == []
    assert desk.holder is None
    assert desk.work_while_asleep() == 0


def test_the_end_of_a_prompt_without_a_lease_is_nothing(desk: Desk):
    assert desk.run(lambda arbiter: arbiter.end("prompt")) is None


def test_resume_ends_the_lease(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        report = await arbiter.resume(resume())
        assert arbiter.lease is None
        return report

    report = desk.run(whole)

    assert report.resumed == ["qwen"]
    assert not server.asleep
    assert desk.paused == []


def test_the_peak_is_the_most_that_was_used_while_the_lease_was_held(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        desk.host.load(11 * GB)
        await asyncio.sleep(0.6)
        return await arbiter.resume(resume())

    report = desk.run(whole)

    assert (
        report.peak == desk.gpu.used - 9 * GB + 11 * GB + desk.servers["qwen"].model.memory_asleep
    )


def test_resume_with_nothing_paused_wakes_the_first_language_model(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)
    desk.put_to_sleep("qwen")

    report = desk.run(lambda arbiter: arbiter.resume(resume()))

    assert acts(report)[-1] == ("prove", "qwen")
    assert not server.asleep


def test_resume_where_nothing_runs_has_nothing_to_do_and_says_so(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB, running=False)

    report = desk.run(lambda arbiter: arbiter.resume(resume()))

    assert not report.steps
    assert "nothing to wake" in report.warnings[0]


def test_resume_leaves_a_model_that_is_awake_alone(desk: Desk):
    first = desk.add("first", memory_awake=6 * GB, group="llm")
    desk.add("second", memory_awake=6 * GB, group="llm")
    desk.put_to_sleep("first")

    report = desk.run(lambda arbiter: arbiter.resume(resume()))

    assert acts(report) == [("prove", "second")]
    assert first.asleep


def test_a_named_service_that_cannot_be_had_is_an_error(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB, running=False)

    with pytest.raises(GpuError, match="qwen"):
        desk.run(lambda arbiter: arbiter.resume(resume("qwen")))


def test_one_that_does_not_wake_leaves_the_one_awake_that_made_way(desk: Desk):
    first = desk.add("first", memory_awake=6 * GB, group="llm")
    second = desk.add("second", memory_awake=6 * GB, group="llm")
    desk.put_to_sleep("second")
    second.fault("POST /wake_up", status=500)

    with pytest.raises(GpuError, match="second"):
        desk.run(lambda arbiter: arbiter.resume(resume("second")))

    assert not first.asleep
    assert first.requests["POST /sleep"] == 1


def test_a_wake_up_that_comfyui_leaves_no_room_for_unloads_it_first(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, vram_gb=8.0)
    desk.put_to_sleep("qwen")
    desk.host.load(11 * GB)

    report = desk.run(lambda arbiter: arbiter.resume(resume("qwen")))

    assert acts(report) == [("unload", "ComfyUI's models"), ("wake", "qwen"), ("prove", "qwen")]
    assert not server.asleep


def test_a_server_that_crashes_while_it_sleeps_is_started_again(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, commands=True)

    async def whole(arbiter):
        await arbiter.take(image())
        server.crash()
        await arbiter.end("prompt")

    desk.run(whole)

    assert server.running
    assert desk.paused == []


def test_what_somebody_puts_to_sleep_by_hand_stays_asleep(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(resume="next guard"))
        await arbiter.end("prompt")
        await manual.sleep(arbiter, "qwen")
        await arbiter.recover()

    desk.run(whole)

    assert server.asleep
    assert desk.paused == []


def test_never_forgets_only_what_it_succeeded_with(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(holder="one", resume="next guard"))
        await arbiter.end("one")
        with pytest.raises(GpuError):
            await arbiter.take(image(holder="two", need=15 * GIB, resume="never"))
        assert desk.paused == ["qwen"]
        await arbiter.end("two")
        assert await until(lambda: server.asleep)

    desk.run(whole)


def test_a_guard_that_fails_does_not_undo_an_earlier_one(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        with pytest.raises(GpuError):
            await arbiter.take(image(need=15 * GIB))
        assert server.asleep
        await arbiter.end("prompt")

    desk.run(whole)

    assert not server.asleep


def test_never_leaves_it_paused_and_forgets_it(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(resume="never"))
        await arbiter.end("prompt")

    desk.run(whole)

    assert server.asleep
    assert desk.paused == []
    assert desk.holder is None


def test_models_that_stay_with_highvram_are_named_where_a_service_cannot_wake(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image())
        desk.host.load(0, stays=12 * GB)
        desk.host.note = "ComfyUI runs with --highvram, where its models stay on the GPU"
        server.model.wake_out_of_memory = 99
        with pytest.raises(GpuError) as caught:
            await arbiter.resume(resume())
        assert "out of memory" in str(caught.value)
        assert "--highvram" in str(caught.value)
        assert "`stop` and `start` commands" in str(caught.value)
        (left,) = arbiter.journal.read().paused
        assert "out of memory" in left.note
        # As soon as there is memory it comes back.
        server.model.wake_out_of_memory = 0
        await arbiter.end("prompt")

    desk.run(whole)

    assert not server.asleep
    assert desk.paused == []


def test_recovery_resumes_what_a_crash_left(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)
    desk.run(lambda arbiter: arbiter.take(image()))
    assert server.asleep
    assert desk.paused == ["qwen"]

    assert desk.run(lambda arbiter: arbiter.recover())

    assert not server.asleep
    assert desk.paused == []


@pytest.mark.parametrize("runs", [True, False])
def test_recovery_leaves_what_another_process_keeps_until_its_next_guard(desk: Desk, runs: bool):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(resume="next guard"))
        await arbiter.end("prompt")
        (pause,) = arbiter.journal.read().paused
        parent = os.getppid()
        started = started_at(parent) if runs else 0.1
        arbiter.journal.put(pause.model_copy(update={"pid": parent, "started": started}))
        assert await arbiter.recover()

    desk.run(whole)

    assert server.asleep == runs


def test_recovery_only_offers_where_it_is_told_to(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)
    desk.run(lambda arbiter: arbiter.take(image()))
    desk.settings["after_crash"] = "offer"

    assert not desk.run(lambda arbiter: arbiter.recover())
    assert server.asleep
    assert desk.run(lambda arbiter: arbiter.recover(offered=True))
    assert not server.asleep
