"""From a sentence to judged pictures with a real vLLM that sees, and a real ComfyUI, on the CPU.

The model's weights are random, so its plans and answers are noise; what must hold is everything
else. The GPU's figures are scripted and follow what the real server says of itself.
"""

from __future__ import annotations

import json

import pytest

from tests.support import nvml_standin
from tests.support.follower import Follower
from tests.support.nvml_standin import ScriptedGpu
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, page_form
from tests.support.server import ComfyServer
from tests.support.services import only_service
from tests.support.waiting import until

GB = 10**9
AWAKE, ASLEEP = 11 * GB, int(1.2 * GB)


@pytest.fixture(scope="module")
def comfy(prepared, vision_vllm, tmp_path_factory):
    """A ComfyUI whose only service is the vLLM that sees, and the GPU that both are on."""
    folder = tmp_path_factory.mktemp("sentence")
    config = folder / "config"
    entry = {"kind": "vllm", "base_url": vision_vllm.url, "vram_gb": 10.0, "vision": True}
    only_service(prepared.standins / "config", config, "vision", entry)
    gpu = ScriptedGpu(folder / "gpu.txt")
    environment = gpu.environment(nvml_standin.build(folder / "nvml"))
    server = ComfyServer.start(prepared, folder / "comfyui", config=config, environment=environment)
    with Follower(gpu, lambda: ASLEEP if vision_vllm.is_sleeping() else AWAKE) as follower:
        server.follower = follower
        yield server
    server.stop()


def record(comfy, result):
    [file] = saved(comfy, result, "records")
    return json.loads(file.read_text(encoding="utf-8"))


def test_sentence_to_picture(comfy, vision_vllm):
    prompt = changed(bundled("sentence_to_picture"), "AnimStudio_PromptWriter", temperature=1.0)
    prompt = changed(prompt, "AnimStudio_Judge", threshold=0.0, slot_threshold=0.0)
    result = comfy.run(prompt, page_form("sentence_to_picture"))
    judged = record(comfy, result)["judgement"]
    assert judged["accepted"]
    assert judged["model"] == vision_vllm.model
    assert all(one["measured"] for one in judged["answers"])
    assert all(0.0 < one["p_yes"] < 1.0 for one in judged["answers"])
    assert len({round(one["p_yes"], 6) for one in judged["answers"]}) > 3
    assert judged["unanswered"] == []
    assert set(judged["plan"]["characters"]) <= {"luca", "alberto", "giulia"}
    # It slept while the picture was made, and looked at it afterwards.
    assert AWAKE in comfy.follower.seen
    assert ASLEEP in comfy.follower.seen
    assert until(lambda: not vision_vllm.is_sleeping())


def test_until_accepted_changes_the_plan_and_keeps_the_best(comfy, vision_vllm):
    prompt = changed(
        bundled("sentence_to_accepted_picture"),
        "AnimStudio_UntilAccepted",
        threshold=1.0, rounds=2, temperature=1.0, sentence="Giulia reads under a tree",
    )  # fmt: skip
    judged = record(comfy, comfy.run(prompt))["judgement"]
    assert not judged["accepted"]
    first, second = judged["rounds"]
    assert second["seed"] == first["seed"] + 1
    # Whatever the model wrote, only what failed may have changed.
    for name in ("intent", "characters", "others", "style", "lines"):
        assert first["plan"][name] == second["plan"][name]
    assert second["changed"] or first["plan"] == second["plan"]
    best = max(judged["rounds"], key=lambda one: one["judgement"]["mean"])
    assert judged["mean"] >= best["judgement"]["mean"] - 0.05
    assert until(lambda: not vision_vllm.is_sleeping())
