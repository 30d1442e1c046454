"""The client against a real ComfyUI: runs, refusals, failures, lost connections, withdrawal."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from PIL import Image

from animation_studio.errors import (
    PromptFailedError,
    PromptRejectedError,
    RunError,
    ServerUnreachableError,
)
from animation_studio.runs import client as client_module
from animation_studio.runs.client import ComfyClient
from animation_studio.runs.command import main
from tests.support.prompts import CHECKPOINT

SEEDS = iter(range(1000, 2000))


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def picture(prefix="client", **color):
    """A grey picture, saved: no model needed."""
    blank = node("EmptyImage", width=64, height=64, batch_size=1, **{"color": 0x808080, **color})
    return {"1": blank, "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def long_run(steps):
    """A prompt that takes a few tenths of a second for every step, and is never cached."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "2": node("CLIPTextEncode", clip=["1", 1], text="luca"),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler",
            model=["1", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            seed=next(SEEDS),
            steps=steps,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="client"),
    }


def play(scenario):
    """Run a scenario to its end; one that hangs fails."""

    async def bounded():
        return await asyncio.wait_for(scenario, timeout=180)

    return asyncio.run(bounded())


def run(server, prompt, **options):
    """Run a prompt in a client of its own."""

    async def scenario():
        async with ComfyClient(server.url) as client:
            return await client.run(prompt, **options)

    return play(scenario())


async def queue_of(client):
    answer = await client.request("GET", "/queue")
    return [item[1] for key in ("queue_running", "queue_pending") for item in answer[key]]


async def until(condition):
    """Wait until an async condition holds."""
    while not await condition():
        await asyncio.sleep(0.05)


class Sampling:
    """Progress that remembers everything and says when the sampler is at work."""

    def __init__(self):
        self.seen = []
        self.started = asyncio.Event()

    def __call__(self, progress):
        self.seen.append(progress)
        if progress.class_type == "KSampler" and progress.value > 0:
            self.started.set()


class Proxy:
    """A TCP proxy in front of the server: connections can be cut, and requests refused."""

    def __init__(self, server):
        self.target = server.url.removeprefix("http://").split(":")
        self.refuse = lambda request: False
        self._writers = set()
        self._tasks = set()

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks)

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        up_reader, up_writer = await asyncio.open_connection(*self.target)
        self._writers |= {writer, up_writer}
        await asyncio.gather(self._copy(reader, up_writer, True), self._copy(up_reader, writer))

    async def _copy(self, reader, writer, is_request=False):
        try:
            while data := await reader.read(65536):
                if is_request and self.refuse(data):
                    self.cut()
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # cut, by us
        finally:
            writer.close()


def test_a_picture_is_saved_with_its_graph(comfyui):
    workflow = {"version": 0.4, "nodes": [], "links": [], "marker": "kept"}
    seen = []
    prompt = picture(color=next(SEEDS))
    result = run(comfyui, prompt, workflow=workflow, on_progress=seen.append)
    (file,) = result.files
    assert (file.node, file.kind, file.type) == ("2", "image", "output")
    with Image.open(comfyui.output_dir / file.subfolder / file.filename) as saved:
        assert saved.size == (64, 64)
        assert json.loads(saved.text["workflow"]) == workflow
        assert json.loads(saved.text["prompt"]) == prompt
    assert [item.class_type for item in seen] == [None, "EmptyImage", "SaveImage"]
    assert result.cached == ()


def test_an_unchanged_run_gives_the_same_files(comfyui):
    prompt = picture(color=next(SEEDS))
    first, second = run(comfyui, prompt), run(comfyui, prompt)
    assert second.files == first.files
    assert sorted(second.cached) == ["1", "2"]
    assert second.prompt_id != first.prompt_id


def test_steps_are_shown(comfyui):
    seen = []
    run(comfyui, long_run(3), on_progress=seen.append)
    steps = [(item.value, item.max) for item in seen if item.message == "step"]
    assert steps == [(1, 3), (2, 3), (3, 3)]


def refused(comfyui, prompt):
    with pytest.raises(PromptRejectedError) as error:
        run(comfyui, prompt)
    return str(error.value)


def test_an_unknown_class_is_named(comfyui):
    said = refused(comfyui, {**picture(), "3": node("NoSuchNode")})
    assert said.startswith("ComfyUI refused the prompt: ")
    assert "NoSuchNode does not exist" in said


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"width": "wide"}, "Node 1 (EmptyImage), input width: Failed to convert an input value"),
        ({"width": -1}, "Node 1 (EmptyImage), input width: Value -1 smaller than min of 1."),
        ({"width": ["2", 0]}, "Node 1 (EmptyImage)"),
    ],
)
def test_a_bad_value_is_named(comfyui, inputs, said):
    prompt = picture()
    prompt["1"]["inputs"].update(inputs)
    assert said in refused(comfyui, prompt)


def test_two_errors_are_two_sentences(comfyui):
    prompt = picture()
    del prompt["1"]["inputs"]["width"]
    prompt["1"]["inputs"]["height"] = 10**9
    head, *lines = refused(comfyui, prompt).splitlines()
    assert head == "ComfyUI refused the prompt:"
    assert sorted(line.partition(":")[0] for line in lines) == [
        "- Node 1 (EmptyImage), input height",
        "- Node 1 (EmptyImage), input width",
    ]


def test_a_missing_file_is_named_with_its_input(comfyui):
    prompt = long_run(1)
    prompt["1"]["inputs"]["ckpt_name"] = "nobody.safetensors"
    said = refused(comfyui, prompt)
    assert "Node 1 (CheckpointLoaderSimple), input ckpt_name: Value not in list" in said
    assert "nobody.safetensors" in said


def test_a_prompt_taken_only_in_part_does_not_run(comfyui):
    prompt = {**picture("client_half", color=next(SEEDS)), "3": node("SaveImage")}
    assert "Node 3 (SaveImage)" in refused(comfyui, prompt)

    async def idle():
        async with ComfyClient(comfyui.url) as client:

            async def is_idle():
                return not await queue_of(client)

            await until(is_idle)

    play(idle())


def test_a_failing_node_is_named(comfyui):
    prompt = {
        "1": node(
            "RegexReplace",
            string="luca",
            regex_pattern="(",
            replace="",
            case_insensitive=True,
            multiline=False,
            dotall=False,
            count=0,
        ),
        "2": node("PreviewAny", source=["1", 0]),
    }
    for _ in range(2):  # failing again is no different
        with pytest.raises(
            PromptFailedError, match=r"^Node 1 \(RegexReplace\) failed: error: "
        ) as e:
            run(comfyui, prompt)
        assert "\n" not in str(e.value)
    assert run(comfyui, picture(color=next(SEEDS))).files


def test_an_interruption_is_a_failure_and_the_next_run_works(comfyui):
    async def scenario():
        sampling = Sampling()
        async with ComfyClient(comfyui.url) as client:
            running = asyncio.create_task(client.run(long_run(500), on_progress=sampling))
            await sampling.started.wait()
            await client.interrupt()
            with pytest.raises(PromptFailedError, match=r"interrupted at node 4 \(KSampler\)"):
                await running
            return await client.run(picture(color=next(SEEDS)))

    assert play(scenario()).files


def test_cancelling_withdraws_only_its_own_prompt(comfyui):
    async def scenario():
        sampling = Sampling()
        async with ComfyClient(comfyui.url) as client:
            running = asyncio.create_task(client.run(long_run(20), on_progress=sampling))
            await sampling.started.wait()
            waiting = asyncio.create_task(client.run(picture(color=next(SEEDS))))

            async def both_are_queued():
                return len(await queue_of(client)) == 2

            await until(both_are_queued)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            left = await queue_of(client)
            return left, await running

    left, result = play(scenario())
    assert left == [result.prompt_id]
    assert result.files


def test_cancelling_interrupts_the_running_prompt(comfyui):
    async def scenario():
        sampling = Sampling()
        async with ComfyClient(comfyui.url) as client:
            running = asyncio.create_task(client.run(long_run(500), on_progress=sampling))
            await sampling.started.wait()
            (prompt_id,) = await queue_of(client)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

            async def is_over():
                return not await queue_of(client)

            await until(is_over)
            history = await client.request("GET", f"/history/{prompt_id}")
            return [kind for kind, _ in history[prompt_id]["status"]["messages"]]

    assert "execution_interrupted" in play(scenario())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_lost_socket_loses_no_result(comfyui, comes_back):
    async def scenario():
        sampling, proxy = Sampling(), Proxy(comfyui)
        async with proxy.listening() as url, ComfyClient(url) as client:
            running = asyncio.create_task(client.run(long_run(20), on_progress=sampling))
            await sampling.started.wait()
            if not comes_back:
                proxy.refuse = lambda request: request.startswith(b"GET /ws")
            proxy.cut()
            return await running, sampling.seen

    result, seen = play(scenario())
    assert [file.node for file in result.files] == ["6"]
    messages = [item.message for item in seen]
    lost = messages.index("connection lost, asking ComfyUI for the result")
    assert ("step" in messages[lost:]) == comes_back


def test_a_failure_behind_a_lost_socket_is_told(comfyui):
    async def scenario():
        sampling, proxy = Sampling(), Proxy(comfyui)
        async with (
            proxy.listening() as url,
            ComfyClient(url) as client,
            ComfyClient(comfyui.url) as other,
        ):
            running = asyncio.create_task(client.run(long_run(500), on_progress=sampling))
            await sampling.started.wait()
            proxy.refuse = lambda request: request.startswith(b"GET /ws")
            proxy.cut()
            await other.interrupt()
            with pytest.raises(PromptFailedError, match=r"interrupted at node 4 \(KSampler\)"):
                await running

    play(scenario())


def test_a_server_that_goes_away_is_given_up(comfyui):
    async def scenario():
        sampling, proxy = Sampling(), Proxy(comfyui)
        async with proxy.listening() as url, ComfyClient(url, patience=1.0) as client:
            running = asyncio.create_task(client.run(long_run(500), on_progress=sampling))
            await sampling.started.wait()
            proxy.refuse = lambda request: True
            proxy.cut()
            with pytest.raises(ServerUnreachableError, match="does not answer at http://127"):
                await running
        async with ComfyClient(comfyui.url) as client:
            await client.interrupt()

    play(scenario())


def test_a_prompt_deleted_by_somebody_else_is_told(comfyui, monkeypatch):
    monkeypatch.setattr(client_module, "_QUIET_SECONDS", 0.2)

    async def scenario():
        sampling = Sampling()
        async with ComfyClient(comfyui.url) as client:
            running = asyncio.create_task(client.run(long_run(20), on_progress=sampling))
            await sampling.started.wait()
            waiting = asyncio.create_task(client.run(picture(color=next(SEEDS))))

            async def both_are_queued():
                return len(await queue_of(client)) == 2

            await until(both_are_queued)
            await client.request("POST", "/queue", json={"clear": True})
            with pytest.raises(PromptFailedError, match="no longer knows the prompt"):
                await waiting
            return await running

    assert play(scenario()).files


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_at_the_address(tmp_path, capsys):
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(picture()))
    assert main(["--server", f"127.0.0.1:{free_port()}", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ComfyUI does not answer at http://127.0.0.1:")
    assert captured.err.count("\n") == 1


def test_another_server_at_the_address():
    """ComfyUI cannot be made to answer like something else: a bare web server stands here."""

    async def page(request):
        return web.Response(text="<html>a router's page</html>", content_type="text/html")

    async def scenario():
        app = web.Application()
        app.router.add_get("/{path:.*}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            address = "http://{}:{}".format(*runner.addresses[0][:2])
            async with ComfyClient(address) as client:
                with pytest.raises(RunError, match="is the address right"):
                    await client.object_info()
                with pytest.raises(ServerUnreachableError):
                    await client.run(picture())
        finally:
            await runner.cleanup()

    play(scenario())


def test_waiting_for_a_server(comfyui):
    async def scenario():
        async with ComfyClient(comfyui.url) as client:
            await client.wait_until_ready(10)
            info = await client.object_info()
        async with ComfyClient(f"127.0.0.1:{free_port()}") as client:
            with pytest.raises(ServerUnreachableError):
                await client.wait_until_ready(0.3)
        return info

    assert "SaveImage" in play(scenario())


def test_an_uploaded_picture_is_found_by_its_name(comfyui, tmp_path):
    paths = [tmp_path / color / "client_upload.png" for color in ("red", "blue")]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (8, 8), path.parent.name).save(path)

    async def scenario():
        async with ComfyClient(comfyui.url) as client:
            names = [await client.upload_image(path) for path in paths]
            names.append(await client.upload_image(paths[0].read_bytes(), "client_upload.png"))
            prompt = {
                "1": node("LoadImage", image=names[1]),
                "2": node("SaveImage", images=["1", 0], filename_prefix="client"),
            }
            return names, await client.run(prompt)

    names, result = play(scenario())
    assert names[0] == names[2] != names[1]
    with Image.open(comfyui.output_dir / result.files[0].filename) as saved:
        assert saved.getpixel((0, 0)) == (0, 0, 255)


def test_the_command_prints_absolute_paths(comfyui, tmp_path, capsys):
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(picture("client_command/a", color=next(SEEDS))))
    arguments = ["--server", comfyui.url, "--output-dir", str(comfyui.output_dir), str(file)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    answer = json.loads(line)
    (saved,) = answer["files"]
    assert (saved["node"], saved["kind"]) == ("2", "image")
    with Image.open(saved["path"]) as image:
        assert image.size == (64, 64)
    assert captured.err.splitlines() == ["  queued", "  1 EmptyImage", "  2 SaveImage"]
