"""A real ComfyUI for tests: the one that scripts/quickstart starts, with requests around it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animation_studio.runs.client import ComfyClient, RunResult
from scripts.bootstrap.device import CPU_ARGUMENTS
from scripts.bootstrap.server import Options, Server, free_port

__all__ = ["ComfyServer", "Prepared"]

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TIMEOUT_SECONDS = 60.0
PACKS = Path(__file__).with_name("packs")


@dataclass(frozen=True)
class Prepared:
    """What scripts/test prepared: ComfyUI's source, its interpreter, the stand-ins' folder."""

    comfyui: Path
    python: Path
    standins: Path


class ComfyServer:
    """A running ComfyUI with this pack, on the CPU, with folders of its own.

    `config_dir` is its ANIMATION_STUDIO_CONFIG: a copy of the stand-ins' that a test may edit (and
    puts back). `output_dir`, `input_dir` and `user_dir` are empty but for ComfyUI's example.png.
    """

    def __init__(self, server: Server, config_dir: Path) -> None:
        self._server = server
        self.url = server.url
        self.output_dir = server.output
        self.input_dir = server.input
        self.user_dir = server.user
        self.config_dir = config_dir

    @classmethod
    def start(
        cls,
        prepared: Prepared,
        folder: Path,
        *,
        comfyui: Path | None = None,
        python: Path | None = None,
        models: Path | None = None,
        config: Path | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        pack: bool = True,
        only_this_pack: bool = True,
        test_packs: bool = False,
    ) -> ComfyServer:
        """Start one in `folder` and return it when it answers.

        `models` and `config` replace the stand-ins' folders; `comfyui` and `python` the prepared
        ones; `arguments` and `environment` are added to ComfyUI's. `test_packs` loads the packs of
        tests/support/packs beside this one. Raises bootstrap's Problem when
        ComfyUI or the pack fails to start.
        """
        config_dir = folder / "config"
        shutil.copytree(config or prepared.standins / "config", config_dir)
        options = Options(
            comfyui=comfyui or prepared.comfyui,
            python=python or prepared.python,
            folder=folder,
            port=free_port(),
            models=models or prepared.standins / "models",
            config=config_dir,
            arguments=[*CPU_ARGUMENTS, *arguments],
            environment=environment or {},
            pack=pack,
            only_this_pack=only_this_pack,
        )
        server = Server(options)
        if test_packs:
            options.arguments.extend(_with_test_packs(folder, server.pack_name))
        server.start()
        return cls(server, config_dir)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """ComfyUI's process."""
        assert self._server.process is not None
        return self._server.process

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def log(self) -> str:
        """Return all that ComfyUI printed so far."""
        return self._server.log()

    def get_json(self, path: str) -> Any:
        """Return the JSON that GET `path` answers with. Raises urllib's HTTPError otherwise."""
        with _OPENER.open(self.url + path, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)

    def post_json(
        self,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None = None,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """Return what POST `path` answers with: its JSON, None for an empty answer."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        with _OPENER.open(request, timeout=seconds) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def run(
        self, prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None = None
    ) -> RunResult:
        """Run a prompt (API form) to its end with the pack's client. Raises its RunError."""
        # In a thread of its own: playwright keeps an event loop running in the test's.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, self._run(prompt, workflow)).result()

    async def _run(
        self, prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None
    ) -> RunResult:
        async with ComfyClient(self.url) as client:
            return await client.run(prompt, workflow=workflow)


def _with_test_packs(folder: Path, pack_name: str) -> list[str]:
    """Arguments that let ComfyUI load the packs of tests/support/packs too."""
    paths = folder / "test_packs.yaml"
    paths.write_text(f"tests:\n  custom_nodes: {PACKS}\n", encoding="utf-8")
    names = [pack_name, *(path.name for path in PACKS.iterdir() if path.is_dir())]
    return ["--extra-model-paths-config", str(paths), "--whitelist-custom-nodes", *names]
