"""Leases: the smallest sufficient step, verified by the meter, given back in every case."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from animation_studio.errors import ConfigError, GpuError
from animation_studio.gpu import arbiter as arbiter_module
from animation_studio.gpu import manual
from animation_studio.gpu.process import started_at
from tests.support.gpu_desk import GB, Desk, image, llm, resume
from tests.support.nvml_standin import GIB, ScriptedGpu


@pytest.fixture
def desk(gpu: ScriptedGpu, tmp_path: Path) -> Iterator[Desk]:
    with Desk(gpu, tmp_path / "state") as made:
        yield made


def acts(report) -> list[tuple[str, str]]:
    return [(step.act, step.target) for step in report.steps]


def test_where_there_is_room_nothing_is_done(desk: Desk):
    desk.add("small", memory_awake=2 * GB)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert report.ok
    assert report.verified
    assert not report.steps
    assert not report.paused
    assert not desk.servers["small"].asleep


def test_what_comfyui_holds_itself_counts_as_room_for_pictures(desk: Desk):
    desk.add("small", memory_awake=2 * GB)
    desk.host.load(10 * GB)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert report.verified
    assert not report.steps
    assert desk.host.unloads == 0


def test_sleep_is_taken_before_stop_and_the_largest_first(desk: Desk):
    desk.add("small", memory_awake=2 * GB, vram_gb=2.0, commands=True)
    desk.add("large", memory_awake=9 * GB, vram_gb=9.0, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert acts(report) == [("sleep", "large")]
    assert report.steps[0].freed > 7 * GB
    assert report.paused == ["large"]
    assert report.verified
    assert report.after.free >= 12 * GIB
    assert not desk.servers["small"].asleep


def test_what_sleep_leaves_is_stopped(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, memory_asleep=5 * GB, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert acts(report) == [("sleep", "qwen"), ("stop", "qwen")]
    assert report.verified
    assert not server.running


def test_a_service_that_lies_about_its_sleep_is_stopped(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, keeps_memory=True, vram_gb=9.0, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert [step.outcome for step in report.steps] == ["no effect", "done"]
    assert "--enable-sleep-mode" in " ".join(report.warnings)
    assert not server.running


def test_without_room_it_undoes_and_says_who_holds_it(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, keeps_memory=True, vram_gb=9.0)
    desk.gpu.set_processes([(1, 9 * GB)])

    with pytest.raises(GpuError) as caught:
        desk.run(lambda arbiter: arbiter.take(image()))

    said = str(caught.value)
    assert "12.0 GB must be free on NVIDIA GeForce RTX 5080" in said
    assert "(pid 1) 8.4 GB" in said
    assert "--enable-sleep-mode" in said
    assert "qwen is back" in said
    assert not server.asleep
    assert desk.paused == []
    assert desk.holder is None
    assert not caught.value.report.ok
    assert caught.value.report.resumed == ["qwen"]


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


async def until(condition, seconds: float = 5.0) -> bool:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


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


def test_who_goes_on_with_too_little_keeps_what_there_is(desk: Desk):
    qwen = desk.add("qwen", memory_awake=6 * GB, vram_gb=6.0)
    desk.add("voice", "gpt_sovits", memory_awake=5 * GB, vram_gb=5.0)

    async def whole(arbiter):
        report = await arbiter.take(image(best_effort=True))
        assert qwen.asleep
        await arbiter.end("prompt")
        return report

    report = desk.run(whole)

    assert not report.verified
    assert "There is no room for image" in " ".join(report.warnings)
    assert "voice cannot be paused" in " ".join(report.warnings)
    assert not qwen.asleep


def test_a_wish_of_the_configuration_that_nobody_could_meet_is_no_error(desk: Desk):
    """A small card with a desktop on it, and no server at all."""
    desk.gpu.set(total=8 * GIB, used=2 * GIB)

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert not report.ok
    assert "6.8 GB must be free" in report.warnings[0]
    with pytest.raises(GpuError, match=r"7\.0 GB must be free"):
        desk.run(lambda arbiter: arbiter.take(image(need=7 * GIB)))


def test_a_comfyui_without_a_gpu_makes_no_room_by_itself(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB)
    desk.host.uuid = None

    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())
    desk.settings["device"] = 0
    assert desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())


def test_a_gpu_that_nvml_does_not_list_is_not_taken_for_another(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB)
    desk.host.uuid = "GPU-another"

    report = desk.run(lambda arbiter: arbiter.take(image()))

    assert "does not list the GPU" in " ".join(report.warnings)


def test_what_cannot_be_paused_makes_no_room(desk: Desk):
    desk.add("voice", "gpt_sovits", memory_awake=9 * GB)
    desk.add("vllm", memory_awake=1 * GB, dev_mode=False)

    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())


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


def test_one_that_is_awake_is_stopped_before_one_that_sleeps(desk: Desk):
    qwen = desk.add("qwen", memory_awake=6 * GB, vram_gb=6.0, commands=True)
    voice = desk.add("voice", "gpt_sovits", memory_awake=4 * GB, vram_gb=4.0, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image(need=14 * GIB)))

    assert acts(report) == [("sleep", "qwen"), ("stop", "voice")]
    assert qwen.running
    assert not voice.running


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


def test_memory_that_comes_late_is_waited_for_and_no_lie(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, vram_gb=8.0, keeps_memory=True)
    desk.settings["settle_seconds"] = 3.0

    async def whole(arbiter):
        taking = asyncio.ensure_future(arbiter.take(image(purpose="everything off")))
        await until(lambda: server.requests["POST /sleep"] == 1)
        await asyncio.sleep(0.3)
        server.steer({"model": {"keeps_memory": False}})
        report = await taking
        await arbiter.end("prompt")
        return report

    report = desk.run(whole)

    assert report.steps[-1].outcome == "done"
    assert report.steps[-1].freed > 7 * GB
    assert report.warnings == []


def test_a_voice_that_is_only_speaking_is_not_restarted(desk: Desk):
    """While it generates, GPT-SoVITS answers nobody."""
    voice = desk.add(
        "voice", "gpt_sovits", memory_awake=3 * GB, commands=True,
        timeouts={"answer": 0.1, "wake": 5.0, "stop": 2.0, "start": 5.0},
    )  # fmt: skip
    voice.fault("GET /openapi.json", delay=0.5)

    report = desk.run(lambda arbiter: arbiter.take(llm("voice", purpose="voice")))

    assert acts(report) == [("prove", "voice")]


def test_reports_hold_no_address(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)
    server.fault("POST /sleep", status=500)

    with pytest.raises(GpuError) as caught:
        desk.run(lambda arbiter: arbiter.take(image(best_effort=False)))

    assert server.url in str(caught.value)
    assert "127.0.0.1" not in caught.value.report.model_dump_json()
    assert caught.value.report.paused == []


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


def test_asking_for_one_of_a_group_puts_the_other_to_sleep_and_starts_it(desk: Desk):
    first = desk.add("first", memory_awake=9 * GB, group="llm")
    second = desk.add(
        "second", memory_awake=9 * GB, group="llm", commands=True, running=False, vram_gb=9.0
    )

    async def whole(arbiter):
        report = await arbiter.take(llm("second"))
        assert first.asleep
        assert second.running
        return report, await arbiter.end("prompt")

    report, end = desk.run(whole)

    assert acts(report) == [("sleep", "first"), ("start", "second"), ("prove", "second")]
    # As it was found: the first is awake, and of a group only one is.
    assert acts(end) == [("sleep", "second"), ("wake", "first"), ("prove", "first")]
    assert not first.asleep
    assert second.asleep
    assert desk.paused == []


def test_one_that_is_awake_already_needs_no_room(desk: Desk):
    desk.add("qwen", memory_awake=15 * GB)

    report = desk.run(lambda arbiter: arbiter.take(llm()))

    assert acts(report) == [("prove", "qwen")]


def test_room_for_a_language_model_unloads_comfyui_first(desk: Desk):
    desk.add("qwen", memory_awake=10 * GB, vram_gb=10.0)
    desk.add("voice", "gpt_sovits", memory_awake=3 * GB, commands=True, vram_gb=3.0)
    desk.put_to_sleep("qwen")
    desk.host.load(9 * GB)

    report = desk.run(lambda arbiter: arbiter.take(llm("qwen")))

    assert acts(report)[:2] == [("unload", "ComfyUI's models"), ("wake", "qwen")]
    assert report.steps[0].freed == 9 * GB


def test_everything_off_unloads_and_pauses_all(desk: Desk):
    qwen = desk.add("qwen", memory_awake=5 * GB)
    voice = desk.add("voice", "gpt_sovits", memory_awake=3 * GB, commands=True)
    desk.host.load(4 * GB)

    async def whole(arbiter):
        report = await arbiter.take(image(purpose="everything off"))
        assert qwen.asleep
        assert not voice.running
        assert desk.host.unloads == 1
        return report, await arbiter.end("prompt")

    report, _ = desk.run(whole)

    assert report.ok
    assert set(report.paused) == {"qwen", "voice"}
    assert not qwen.asleep
    assert voice.running
    assert desk.paused == []


def test_never_leaves_it_paused_and_forgets_it(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(resume="never"))
        await arbiter.end("prompt")

    desk.run(whole)

    assert server.asleep
    assert desk.paused == []
    assert desk.holder is None


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


def test_only_the_named_service_is_paused(desk: Desk):
    one = desk.add("one", memory_awake=4 * GB, vram_gb=4.0)
    two = desk.add("two", memory_awake=5 * GB, vram_gb=5.0)

    with pytest.raises(GpuError, match="There is no room for image"):
        desk.run(lambda arbiter: arbiter.take(image(pause=frozenset())))
    report = desk.run(lambda arbiter: arbiter.take(image(need=10 * GIB, pause=frozenset({"one"}))))

    assert report.paused == ["one"]
    assert one.asleep
    assert not two.asleep


def test_level_stop_goes_straight_to_stop(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image(level="stop")))

    assert acts(report) == [("stop", "qwen")]
    assert not server.running


def test_level_2_sleeps_and_wakes_in_its_order(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    async def whole(arbiter):
        await arbiter.take(image(level="sleep 2"))
        await arbiter.end("prompt")

    desk.run(whole)

    assert server.requests["POST /collective_rpc"] == 1
    assert not server.model.harm


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


def test_more_than_the_card_has_is_refused_before_anything_is_paused(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB)

    with pytest.raises(GpuError, match=r"20\.0 GB are asked for and the GPU has 16\.0 GB"):
        desk.run(lambda arbiter: arbiter.take(image(need=20 * GIB)))

    assert server.requests["POST /sleep"] == 0


def test_the_configured_need_fits_a_smaller_card(desk: Desk):
    desk.gpu.set(total=8 * GIB, used=1 * GIB)

    assert desk.run(lambda arbiter: arbiter.take(image())).verified


def test_no_service_of_a_purpose_is_said(desk: Desk):
    with pytest.raises((ConfigError, GpuError), match="has no service for voice"):
        desk.run(lambda arbiter: arbiter.take(image(purpose="voice")))

    assert desk.holder is None


def test_without_a_meter_services_are_paused_once_and_nothing_is_believed(desk: Desk):
    server = desk.add("qwen", memory_awake=9 * GB, commands=True)
    desk.gpu.remove()

    async def whole(arbiter):
        report = await arbiter.take(image())
        assert server.asleep
        await arbiter.end("prompt")
        return report

    report = desk.run(whole)

    assert report.ok
    assert not report.verified
    assert acts(report) == [("sleep", "qwen")]
    assert "Nothing was measured" in report.warnings[0]
    assert not server.asleep


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


def test_pictures_lack_room_only_where_a_service_has_it(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB)
    assert desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())

    desk.put_to_sleep("qwen")
    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())
    desk.gpu.set(used=12 * GIB)
    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())
