"""The whole hand-over with a real vLLM and a real ComfyUI, both on the CPU.

On a CPU sleep frees nothing, so the GPU's figures are scripted: they follow what the real server
says of itself, and the product reads them with its own meter.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import nvml_standin
from tests.support.face_graphs import node
from tests.support.follower import Follower
from tests.support.nvml_standin import ScriptedGpu
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, node_id, page_form
from tests.support.server import ComfyServer
from tests.support.services import only_service
from tests.support.waiting import until

GB = 10**9
AWAKE, ASLEEP = 11 * GB, int(1.2 * GB)


@pytest.fixture
def start(prepared, tmp_path):
    """Start a ComfyUI whose only service is `writer`, and return it with its GPU."""
    started: list[ComfyServer] = []

    def begin(**entry: object) -> tuple[ComfyServer, ScriptedGpu]:
        config = tmp_path / "config"
        writer = {"kind": "vllm", "vram_gb": 10.0, **entry}
        only_service(prepared.standins / "config", config, "writer", writer)
        gpu = ScriptedGpu(tmp_path / "gpu.txt")
        environment = gpu.environment(nvml_standin.build(tmp_path / "nvml"))
        server = ComfyServer.start(
            prepared, tmp_path / "comfyui", config=config, environment=environment
        )
        started.append(server)
        return server, gpu

    yield begin
    for server in started:
        server.stop()


def reports(server: ComfyServer, result) -> list[dict]:
    [record] = saved(server, result, "records")
    return json.loads(record.read_text(encoding="utf-8"))["gpu"]


def acts(report: dict) -> list[str]:
    return [step["act"] for step in report["steps"]]


def guarded() -> dict:
    prompt = changed(bundled("guarded_picture"), "KSampler", steps=2)
    return changed(prompt, "EmptyLatentImage", width=256, height=256)


def only_a_guard() -> dict:
    whole = bundled("guarded_picture")
    widgets = whole[node_id(whole, "AnimStudio_VRAMGuard")]["inputs"]
    inputs = {**widgets, "value": ["picture", 0]}
    return {
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "guard": node("AnimStudio_VRAMGuard", **inputs),
        "take": node(
            "AnimStudio_SaveTake",
            images=["guard", 0], filename_prefix="guard", gpu_report=["guard", 2],
        ),
    }  # fmt: skip


def test_the_model_sleeps_while_the_picture_is_made_and_answers_afterwards(vllm, start):
    server, gpu = start(base_url=vllm.url)
    with Follower(gpu, lambda: ASLEEP if vllm.is_sleeping() else AWAKE) as follower:
        result = server.run(guarded(), page_form("guarded_picture"))

        taken, back = reports(server, result)
        assert acts(taken) == ["sleep"]
        assert taken["verified"]
        assert acts(back) == ["wake", "prove"]
        assert follower.seen[:2] == [AWAKE, ASLEEP]
        assert not vllm.is_sleeping()
        assert vllm.chat(1)["choices"][0]["finish_reason"] == "length"

        # Somebody else's answer that has begun is not cut off: the guard waits for its end.
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(vllm.chat, 800)
            time.sleep(0.5)
            result = server.run(only_a_guard())
            assert other.result(60)["choices"][0]["finish_reason"] == "length"
        assert acts(reports(server, result)[0]) == ["sleep"]
        assert until(lambda: not vllm.is_sleeping())


def test_where_sleep_frees_nothing_the_server_is_stopped_and_started_again(vllm_commands, start):
    """As for a vLLM without --enable-sleep-mode: it says that it sleeps, and the memory stays."""
    commands = vllm_commands()
    server, gpu = start(
        base_url=commands.url,
        stop=commands.stop,
        start=commands.start,
        timeouts={"stop": 60.0, "start": 240.0, "wake": 60.0},
    )

    with Follower(gpu, lambda: AWAKE if commands.processes() else 0):
        woken = server.post_json("/animation_studio/gpu/wake", {"service": "writer"}, seconds=300)
        assert [step["act"] for step in woken["steps"]][-2:] == ["start", "prove"]

        result = server.run(guarded(), page_form("guarded_picture"))

    taken, back = reports(server, result)
    assert acts(taken) == ["sleep", "stop"]
    assert taken["steps"][0]["outcome"] == "no effect"
    assert acts(back) == ["start", "prove"]
    assert commands.processes()
