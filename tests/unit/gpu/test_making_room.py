"""Making room: the smallest sufficient step, verified by the meter."""

from __future__ import annotations

import asyncio

import pytest

from animation_studio.errors import ConfigError, GpuError
from tests.support.gpu_desk import GB, Desk, acts, image, llm, until
from tests.support.nvml_standin import GIB


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


def test_one_that_is_awake_is_stopped_before_one_that_sleeps(desk: Desk):
    qwen = desk.add("qwen", memory_awake=6 * GB, vram_gb=6.0, commands=True)
    voice = desk.add("voice", "gpt_sovits", memory_awake=4 * GB, vram_gb=4.0, commands=True)

    report = desk.run(lambda arbiter: arbiter.take(image(need=14 * GIB)))

    assert acts(report) == [("sleep", "qwen"), ("stop", "voice")]
    assert qwen.running
    assert not voice.running


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


def test_pictures_lack_room_only_where_a_service_has_it(desk: Desk):
    desk.add("qwen", memory_awake=9 * GB)
    assert desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())

    desk.put_to_sleep("qwen")
    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())
    desk.gpu.set(used=12 * GIB)
    assert not desk.run(lambda arbiter: arbiter.lacks_room_for_pictures())
