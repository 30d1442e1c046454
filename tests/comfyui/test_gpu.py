"""The GPU handed over inside a running ComfyUI: guard, resume, every way a prompt can end.

The service is a stand-in on a real port; the memory figures are a scripted GPU's, read by the
product's own meter through a stand-in for libnvidia-ml (a ComfyUI on the CPU has no others).
"""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.error
from pathlib import Path

import pytest

from animation_studio.errors import PromptFailedError, PromptRejectedError
from tests.support import nvml_standin
from tests.support.face_graphs import node
from tests.support.nvml_standin import ScriptedGpu
from tests.support.pictures import saved
from tests.support.prompts import bundled, changed, node_id, page_form
from tests.support.server import ComfyServer
from tests.support.services import only_service
from tests.support.standin_service import StandIn
from tests.support.waiting import until

GB = 10**9
GUARD = {
    "purpose": "image", "needed_gb": 0.0, "service": "auto", "pause": "as needed",
    "level": "configured", "timeout": 30, "on_failure": "error", "resume": "end of prompt",
}  # fmt: skip
RESUME = {"service": "auto", "timeout": 30, "on_failure": "error"}


class Shared:
    """A ComfyUI, the GPU that it sees, and a language model on that GPU."""

    def __init__(self, server: ComfyServer, gpu: ScriptedGpu, qwen: StandIn) -> None:
        self.server, self.gpu, self.qwen = server, gpu, qwen

    def status(self) -> dict:
        return self.server.get_json("/animation_studio/gpu")

    def is_free(self) -> bool:
        """Nothing is paused, nobody has the GPU, the model is awake."""
        status = self.status()
        return (
            not self.qwen.asleep
            and status["lease"] is None
            and status["journal"]["holder"] is None
            and status["journal"]["paused"] == []
        )


@pytest.fixture(scope="module")
def shared(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    library = nvml_standin.build(folder / "nvml")
    gpu = ScriptedGpu(folder / "gpu.txt")
    with StandIn("vllm", gpu=gpu, memory_awake=9 * GB) as qwen:
        config = folder / "config"
        write_services(prepared.standins / "config", config, qwen)
        server = ComfyServer.start(
            prepared, folder / "comfyui", config=config, test_packs=True,
            environment=gpu.environment(library),
        )  # fmt: skip
        yield Shared(server, gpu, qwen)
        server.stop()


def write_services(standins: Path, config: Path, qwen: StandIn, **more: object) -> None:
    """Write a configuration whose only service is `qwen`; `more` goes into its gpu section."""
    own = {
        "kind": "vllm",
        "base_url": qwen.url,
        "vram_gb": 8.0,
        "timeouts": {"answer": 0.5, "sleep": 3.0, "wake": 3.0},
    }
    gpu = {"settle_seconds": 0.5, "automatic_leases": False, **more}
    only_service(standins, config, "qwen", own, gpu)


@pytest.fixture(autouse=True)
def afterwards_all_is_well(shared):
    yield
    shared.qwen.heal()
    assert until(shared.is_free), json.dumps(shared.status(), indent=1)
    assert shared.qwen.model.work_while_asleep == 0


def guarded(*between: dict, guard: dict | None = None, resume: dict | None = None) -> dict:
    """An empty picture through guard, `between`, resume, and into a take."""
    nodes = {
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "guard": node("AnimStudio_VRAMGuard", value=["picture", 0], **{**GUARD, **(guard or {})}),
    }
    last = "guard"
    for index, one in enumerate(between):
        nodes[f"between{index}"] = {**one, "inputs": {**one["inputs"], "images": [last, 0]}}
        last = f"between{index}"
    if resume is not None:
        nodes["resume"] = node(
            "AnimStudio_ResumeLLM", value=[last, 0], report=["guard", 2], **{**RESUME, **resume}
        )
        last = "resume"
    report = [last, 2] if last in ("guard", "resume") else ["guard", 2]
    nodes["take"] = node(
        "AnimStudio_SaveTake", images=[last, 0], filename_prefix="guarded", gpu_report=report
    )
    return nodes


def record_of(shared: Shared, result) -> dict:
    (record,) = result.outputs["take"]["records"]
    return json.loads((shared.server.output_dir / record["filename"]).read_text(encoding="utf-8"))


def test_room_is_made_and_given_back_inside_the_graph(shared):
    result = shared.server.run(guarded(resume={}))

    record = record_of(shared, result)
    taken, back = record["gpu"]
    assert [step["act"] for step in taken["steps"]] == ["sleep"]
    assert taken["verified"]
    assert taken["after"]["free"] > taken["before"]["free"] + 7 * GB
    assert [step["act"] for step in back["steps"]][-2:] == ["wake", "prove"]
    assert back["resumed"] == ["qwen"]
    shown = result.outputs["guard"]["animstudio_report"][0]
    assert "qwen put to sleep" in "\n".join(shown["lines"])


def test_without_a_resume_node_the_end_of_the_prompt_gives_back(shared):
    result = shared.server.run(guarded())

    assert record_of(shared, result)["gpu"][0]["paused"] == ["qwen"]
    assert until(shared.is_free)


def test_it_always_runs(shared):
    before = shared.qwen.requests["POST /sleep"]
    for _ in range(2):
        shared.server.run(guarded())
        assert until(shared.is_free)

    assert shared.qwen.requests["POST /sleep"] == before + 2


def test_the_bundled_workflow_hands_the_gpu_over_and_back(shared):
    prompt = bundled("guarded_picture")
    result = shared.server.run(prompt, page_form("guarded_picture"))

    [record_file] = saved(shared.server, result, "records")
    taken, back = json.loads(record_file.read_text(encoding="utf-8"))["gpu"]
    assert taken["paused"] == back["resumed"] == ["qwen"]
    assert taken["verified"]
    assert back["peak"] >= taken["after"]["used"]
    assert shared.is_free()


def test_pictures_make_room_by_themselves_at_every_run(shared):
    """Also where the loader is cached, since only the seed changed; and not where there is room."""
    file = shared.server.config_dir / "services.yaml"
    before = file.read_text(encoding="utf-8")
    prompt = bundled("luca_character")
    try:
        file.write_text(
            before.replace("automatic_leases: false", "automatic_leases: true\n  device: 0")
        )
        for seed in (1, 2):
            slept = shared.qwen.requests["POST /sleep"]
            shared.server.run(changed(prompt, "KSampler", seed=seed, steps=1))
            assert shared.qwen.requests["POST /sleep"] == slept + 1
            assert until(shared.is_free)

        # The very same graph again: all of it is cached.
        slept = shared.qwen.requests["POST /sleep"]
        again = shared.server.run(changed(prompt, "KSampler", seed=2, steps=1))
        assert node_id(prompt, "KSampler") in again.cached
        assert shared.qwen.requests["POST /sleep"] == slept

        shared.gpu.set(total=64 * GB)
        try:
            slept = shared.qwen.requests["POST /sleep"]
            runs = [
                shared.server.run(changed(prompt, "KSampler", seed=seed, steps=1))
                for seed in (3, 4)
            ]
            loader = node_id(prompt, "AnimStudio_CharacterLoraLoader")
            assert shared.qwen.requests["POST /sleep"] == slept
            assert loader in runs[1].cached
        finally:
            shared.gpu.set(total=16 * nvml_standin.GIB)
    finally:
        file.write_text(before, encoding="utf-8")


def test_after_an_error_it_is_given_back(shared):
    with pytest.raises(PromptFailedError, match="on purpose"):
        shared.server.run(guarded(node("Test_Fail", text="on purpose"), resume={}))

    assert until(shared.is_free)


@pytest.mark.parametrize("phase", ["taking", "held", "giving back"])
def test_interrupted_it_is_given_back(shared, phase):
    if phase == "taking":
        shared.qwen.fault("POST /sleep", delay=1.5, acts=True, times=1)
    if phase == "giving back":
        shared.qwen.fault("POST /wake_up", delay=1.5, acts=True, times=1)
    waits = 20.0 if phase == "held" else 0.0
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(PromptFailedError, match="interrupted"):
            shared.server.run(guarded(node("Test_Wait", seconds=waits), resume={}))
        ended.append(time.monotonic())

    route = {"taking": "POST /sleep", "held": "POST /sleep", "giving back": "POST /wake_up"}[phase]
    before = shared.qwen.requests[route]
    thread = threading.Thread(target=run)
    thread.start()
    assert until(lambda: shared.qwen.requests[route] > before)
    if phase == "held":
        assert until(lambda: shared.status()["journal"]["paused"])
    shared.server.post_json("/interrupt", {})
    thread.join(30.0)

    assert ended
    assert until(shared.is_free)


def test_two_prompts_queued_at_once_have_it_one_after_the_other(shared):
    before = shared.qwen.requests["POST /sleep"]
    threads = [
        threading.Thread(target=shared.server.run, args=[guarded(node("Test_Wait", seconds=t))])
        for t in (0.3, 0.31)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert until(shared.is_free)
    assert shared.qwen.requests["POST /sleep"] in (before + 1, before + 2)


def test_a_prompt_that_is_taken_out_of_the_queue_had_nothing(shared):
    body = {"prompt": guarded(node("Test_Wait", seconds=2.0)), "client_id": "one"}
    first = shared.server.post_json("/prompt", body)["prompt_id"]
    other = {"prompt": guarded(node("Test_Wait", seconds=0.1)), "client_id": "one"}
    second = shared.server.post_json("/prompt", other)["prompt_id"]
    assert until(lambda: shared.qwen.asleep)
    before = shared.qwen.requests["POST /sleep"]

    shared.server.post_json("/queue", {"delete": [second]})
    shared.server.post_json("/interrupt", {})

    assert until(lambda: shared.server.get_json(f"/history/{first}"))
    assert until(shared.is_free)
    assert shared.qwen.requests["POST /sleep"] == before
    assert not shared.server.get_json(f"/history/{second}")


def test_what_cannot_be_had_ends_the_run_with_the_reason(shared):
    shared.qwen.steer({"model": {"keeps_memory": True}})
    try:
        with pytest.raises(PromptFailedError, match="There is no room for image") as caught:
            shared.server.run(guarded())
        assert "--enable-sleep-mode" in str(caught.value)
        assert "qwen is back" in str(caught.value)

        result = shared.server.run(guarded(guard={"on_failure": "warn"}))
        shown = result.outputs["guard"]["animstudio_report"][0]
        assert "There is no room for image" in " ".join(shown["warnings"])

        result = shared.server.run(guarded(guard={"on_failure": "go on"}))
        assert record_of(shared, result)["gpu"][0]["ok"] is False
    finally:
        shared.qwen.steer({"model": {"keeps_memory": False}})


def test_an_unknown_service_is_refused_before_the_run(shared):
    with pytest.raises(PromptRejectedError, match="service 'qwem' is not in the configuration"):
        shared.server.run(guarded(guard={"purpose": "llm", "service": "qwem"}))


def test_a_stopped_service_without_a_start_command_is_named(shared):
    shared.qwen.crash()
    try:
        with pytest.raises(PromptFailedError, match=r"qwen.*start"):
            shared.server.run(guarded(guard={"purpose": "llm", "service": "qwen"}))
    finally:
        shared.qwen.serve()


def test_what_was_paused_elsewhere_comes_by_the_routes(shared):
    server = shared.server
    done = server.post_json("/animation_studio/gpu/sleep", {"service": "qwen"})
    assert done["ok"]
    assert done["steps"][0]["freed"] > 7 * GB
    assert shared.qwen.asleep
    assert shared.status()["services"][0]["state"] == "asleep"

    done = server.post_json("/animation_studio/gpu/wake", {"service": "qwen"})
    assert [step["act"] for step in done["steps"]][-2:] == ["wake", "prove"]
    assert not shared.qwen.asleep

    done = server.post_json("/animation_studio/gpu/free", {})
    assert done["steps"][0]["target"] == "ComfyUI's models"
    assert server.post_json("/animation_studio/gpu/resume", {})["paused"] == []


def test_the_state_has_figures_and_no_addresses(shared):
    status = shared.status()

    assert status["meter"]["problem"] == ""
    assert status["meter"]["devices"][0]["name"] == "NVIDIA GeForce RTX 5080"
    assert status["meter"]["reading"]["used"] == shared.gpu.used
    assert [service["key"] for service in status["services"]] == ["qwen"]
    assert "127.0.0.1" not in json.dumps(status)


def refused(shared, path: str, body: object, headers: dict | None = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        shared.server.post_json(f"/animation_studio/gpu/{path}", body, headers)
    with caught.value as answer:
        return answer.code, json.load(answer)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ],
)
def test_other_sites_may_not_act(shared, headers):
    before = shared.qwen.requests["POST /sleep"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        shared.server.post_json("/animation_studio/gpu/sleep", {"service": "qwen"}, headers)

    with caught.value as answer:
        assert answer.code == 403
    assert shared.qwen.requests["POST /sleep"] == before


def test_acts_are_never_done_by_get(shared):
    for path in ("sleep", "wake", "free", "resume"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            shared.server.get_json(f"/animation_studio/gpu/{path}?service=qwen")
        with caught.value as answer:
            assert answer.code in (404, 405)


def test_bad_requests_are_answered_with_the_reason(shared):
    assert refused(shared, "sleep", {"service": "qwem"}) == (
        400, "services.yaml has no service 'qwem'. Did you mean 'qwen'? Known: qwen.",
    )  # fmt: skip
    assert refused(shared, "sleep", {"service": ["qwen"]})[0] == 400
    assert refused(shared, "sleep", {"service": "qwen", "level": 3})[0] == 400
    assert refused(shared, "sleep", [])[0] == 400
    assert refused(shared, "sleep", {"service": "q" * 5000})[0] == 400
    assert refused(shared, "free", {}, {"Content-Type": "text/plain"})[0] == 415


def test_while_a_prompt_has_the_gpu_nobody_else_does(shared):
    thread = threading.Thread(
        target=shared.server.run, args=[guarded(node("Test_Wait", seconds=3.0))]
    )
    thread.start()
    try:
        assert until(lambda: shared.status()["lease"] is not None)
        status, error = refused(shared, "wake", {"service": "qwen"})
        assert status == 409
        assert "has it for image" in error
    finally:
        thread.join(30.0)


@pytest.fixture
def another(prepared, tmp_path):
    """Start ComfyUIs that share a state folder, with a GPU and a model of their own."""
    library = nvml_standin.build(tmp_path / "nvml")
    gpu = ScriptedGpu(tmp_path / "gpu.txt")
    started: list[ComfyServer] = []
    with StandIn("vllm", gpu=gpu, memory_awake=9 * GB) as qwen:
        state = str(tmp_path / "state")
        write_services(prepared.standins / "config", tmp_path / "config", qwen, state_folder=state)

        def start() -> ComfyServer:
            server = ComfyServer.start(
                prepared, tmp_path / f"comfyui{len(started)}", config=tmp_path / "config",
                test_packs=True, environment=gpu.environment(library),
            )  # fmt: skip
            started.append(server)
            return server

        yield start, qwen
        for server in started:
            server.stop()
        assert qwen.model.work_while_asleep == 0


def held(server: ComfyServer, qwen: StandIn) -> None:
    """Begin a prompt that has the GPU for a minute."""
    body = {"prompt": guarded(node("Test_Wait", seconds=60.0)), "client_id": "one"}
    server.post_json("/prompt", body)
    assert until(lambda: "Test_Wait waits" in server.log())
    assert qwen.asleep


def test_killed_while_the_model_sleeps_the_next_start_wakes_it(another):
    start, qwen = another
    first = start()
    held(first, qwen)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    assert qwen.asleep

    second = start()

    assert until(lambda: not qwen.asleep)
    assert until(lambda: second.get_json("/animation_studio/gpu")["journal"]["paused"] == [])


def test_stopped_with_ctrl_c_it_wakes_the_model_before_it_ends(another):
    start, qwen = another
    server = start()
    held(server, qwen)

    server.process.send_signal(signal.SIGINT)
    server.process.wait(40)

    assert not qwen.asleep
