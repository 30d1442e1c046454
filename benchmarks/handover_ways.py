"""Two ways to hand the GPU over at one server and one scripted GPU: by hand, and by the arbiter."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from animation_studio.gpu.arbiter import Arbiter
from animation_studio.gpu.lease import LeaseRequest, ResumeRequest
from animation_studio.gpu.loop import BackgroundLoop, Visit
from animation_studio.gpu.meter import open_meter
from animation_studio.gpu.service import Service
from animation_studio.gpu.vllm import VllmService
from animation_studio.registry.services import GpuSettings, ServiceEntry
from tests.support import nvml_standin
from tests.support.nvml_standin import GIB, ScriptedGpu
from tests.support.standin_parts import add_to_file

__all__ = ["LLM", "Bench", "Comfy", "VllmThatTells", "entry", "real_vllm", "standin"]

PACK = Path(__file__).resolve().parents[1]
T = TypeVar("T")

LLM, ASLEEP, PICTURES = 13 * GIB, int(1.2 * GIB), 7 * GIB
# As the pack asks for it, of the model that both servers call so.
ONE_TOKEN = {
    "model": "tiny",
    "max_tokens": 1,
    "temperature": 0.0,
    "stream": False,
    "prompt": "Hello",
}


class Comfy:
    """Stands where ComfyUI does; its models are a figure in the scripted GPU's file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.models = 0
        self.visit: Visit | None = None

    def load(self) -> None:
        """Have models on the GPU."""
        self.models = PICTURES
        add_to_file(self.file, PICTURES)

    def device(self) -> str | None:
        """Any: there is one GPU."""
        return None

    def held(self) -> int:
        """What it loaded."""
        return self.models

    async def unload(self) -> str:
        """Unload on the node's thread where there is one, as ComfyHost does."""
        if self.visit is not None:
            await self.visit.run_here(self.free)
        else:
            self.free()
        return ""

    def free(self) -> None:
        """Unload."""
        add_to_file(self.file, -self.models)
        self.models = 0


class VllmThatTells(VllmService):
    """A real vLLM on the processor frees nothing; this says that a GPU's would have."""

    file = Path()

    async def sleep(self, level: int) -> None:
        """Sleep, and let the scripted GPU have the memory."""
        await super().sleep(level)
        add_to_file(self.file, ASLEEP - LLM)

    async def wake(self, level: int) -> None:
        """Wake, and take it back."""
        await super().wake(level)
        add_to_file(self.file, LLM - ASLEEP)


class Bench:
    """One server, one scripted GPU, one arbiter, and both ways to hand over."""

    def __init__(
        self,
        folder: Path,
        port: int,
        kind: type[VllmService] = VllmService,
        others: Mapping[str, ServiceEntry] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = port
        self.gpu = ScriptedGpu(folder / "gpu.txt")
        self.comfy = Comfy(self.gpu.file)
        self.prompt = 0
        VllmThatTells.file = self.gpu.file
        self._loop = BackgroundLoop("arbiter")
        entries = {"qwen": entry(port), **(others or {})}
        services: dict[str, Service] = {
            key: kind(key, value, folder / "logs") for key, value in entries.items()
        }
        settings = GpuSettings()
        os.environ[nvml_standin.VARIABLE] = str(self.gpu.file)
        self.arbiter = Arbiter(
            services=lambda: services,
            settings=lambda: settings,
            meter=open_meter(),
            host=self.comfy,
            folder=folder / "state",  # the stand-in's own lock lies beside the scripted GPU
        )

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Wait for the arbiter's loop as a node's thread does."""
        visit = self.comfy.visit = Visit()
        try:
            return visit.wait(self._loop.submit(doing), lambda: None)
        finally:
            self.comfy.visit = None

    def take(self) -> None:
        """Make room for pictures, for a prompt of its own."""
        self.prompt += 1
        report = self.wait(self.arbiter.take(LeaseRequest(str(self.prompt), "image")))
        assert report.verified, report.text()

    def end(self) -> None:
        """Give back as at the end of a prompt."""
        report = self._loop.submit(self.arbiter.end(str(self.prompt))).result()
        assert report is not None
        assert report.ok, report.text()

    def resume(self) -> None:
        """Give back as Resume LLM does."""
        report = self.wait(self.arbiter.resume(ResumeRequest(str(self.prompt))))
        assert report.resumed == ["qwen"], report.text()

    def by_hand(self) -> tuple[float, float]:
        """Return the seconds of making room and of giving back, by the calls alone."""
        start = time.perf_counter()
        self._call("/sleep?level=1&mode=wait")
        made = time.perf_counter()
        self._picture()
        began = time.perf_counter()
        self.comfy.free()
        self._call("/wake_up")
        self._call("/v1/completions", ONE_TOKEN)
        return made - start, time.perf_counter() - began

    def by_pack(self, back: Callable[[], None]) -> tuple[float, float]:
        """Return the same of the arbiter."""
        start = time.perf_counter()
        self.take()
        made = time.perf_counter()
        self._picture()
        began = time.perf_counter()
        back()
        return made - start, time.perf_counter() - began

    def _picture(self) -> None:
        self.comfy.load()

    def _call(self, path: str, body: object = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
        finally:
            connection.close()


def entry(port: int) -> ServiceEntry:
    """Return what services.yaml would say of a vLLM at this port."""
    values = {"kind": "vllm", "base_url": f"http://127.0.0.1:{port}", "vram_gb": 13.0}
    return ServiceEntry.model_validate(values)


@contextmanager
def standin(bench: Bench, **settings: float) -> Iterator[None]:
    """Run the stand-in for vLLM in a process of its own."""
    told = {"memory_awake": LLM, "memory_asleep": ASLEEP, **settings}
    script = PACK / "tests/support/standin_service.py"
    command = [sys.executable, str(script), "--kind", "vllm", "--port", str(bench.port)]
    command += ["--gpu", str(bench.gpu.file), "--settings", json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until_listening(bench.port)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def real_vllm(python: Path, model: Path, folder: Path) -> Iterator[int]:
    """Run a vLLM on the processor, and yield its port."""
    from tests.support.vllm import VllmParts, VllmServer

    server = VllmServer.start(VllmParts(python, model), folder)
    try:
        yield server.port
    finally:
        server.stop()


def until_listening(port: int) -> None:
    """Return when somebody answers at the port."""
    for _ in range(500):
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit("the server did not start")
