"""A real vLLM for tests: on the processor, with a tiny random model; and requests to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bootstrap.server import HOST, free_port

from .launch_vllm import MODEL
from .stop_by_pidfile import alive

__all__ = ["VISION_MODEL", "VllmCommands", "VllmParts", "VllmServer"]

VISION_MODEL = "tiny-vision"

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SUPPORT = Path(__file__).parent
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class VllmParts:
    """What scripts/test prepared: the interpreter that has vLLM, and the model's folder.

    `torchvision` is the folder of that package, which a model that sees needs; None for text.
    """

    python: Path
    model: Path
    torchvision: Path | None = None


@dataclass(frozen=True)
class VllmCommands:
    """How services.yaml starts and stops a vLLM at `url`, as lists of arguments.

    `start` ends when the server answers, and the server outlives it; `start_foreground` is the
    server itself.
    """

    url: str
    pidfile: Path
    start: list[str]
    start_foreground: list[str]
    stop: list[str]

    @classmethod
    def make(
        cls,
        parts: VllmParts,
        folder: Path,
        *,
        port: int | None = None,
        dev_mode: bool = True,
        name: str = MODEL,
        white_space: bool = False,
    ) -> VllmCommands:
        """Return them; `folder` gets the log and the pidfile, and nothing is started."""
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        pidfile = folder / f"vllm-{port}.pid"
        start = [
            *(sys.executable, str(SUPPORT / "launch_vllm.py")),
            *("--python", str(parts.python), "--model", str(parts.model), "--name", name),
            *("--port", str(port), "--pidfile", str(pidfile)),
            *(["--torchvision", str(parts.torchvision)] if parts.torchvision else []),
            *([] if dev_mode else ["--no-dev-mode"]),
            *(["--white-space"] if white_space else []),
        ]
        stop = [sys.executable, str(SUPPORT / "stop_by_pidfile.py"), str(pidfile)]
        return cls(f"http://{HOST}:{port}", pidfile, start, [*start, "--foreground"], stop)

    @property
    def pid(self) -> int:
        """The process that answers; its children are in the process group of the same number."""
        return int(self.pidfile.read_text(encoding="utf-8").splitlines()[0])

    def processes(self) -> list[int]:
        """Return the server's processes that run."""
        return alive(self.pid) if self.pidfile.is_file() else []

    def end(self) -> None:
        """End what was started. Safe to repeat."""
        subprocess.run(self.stop, check=True)
        assert self.processes() == []


class VllmServer:
    """A running vLLM. It ends with the test process, however that ends."""

    def __init__(self, commands: VllmCommands, model: str, api_key: str | None) -> None:
        self.commands = commands
        self.url = commands.url
        self.port = int(commands.url.rpartition(":")[2])
        self.model = model
        self.api_key = api_key
        self._keeper: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        parts: VllmParts,
        folder: Path,
        *,
        port: int | None = None,
        dev_mode: bool = True,
        api_key: str | None = None,
        name: str = MODEL,
        white_space: bool = False,
    ) -> VllmServer:
        """Start one and return it when it answers (25-45 s). `folder` gets its log.

        `dev_mode` opens the sleep routes; with `api_key` /v1 asks for it; `white_space` makes it
        legal between the parts of JSON, as it is where users start vLLM. There is no
        --enable-sleep-mode: on a processor vLLM refuses to start with it, and sleeps without.
        """
        commands = VllmCommands.make(
            parts, folder, port=port, dev_mode=dev_mode, name=name, white_space=white_space
        )
        server = cls(commands, name, api_key)
        server._launch()
        return server

    @property
    def pid(self) -> int:
        """The process that answers; its children are in the process group of the same number."""
        return self.commands.pid

    def processes(self) -> list[int]:
        """Return the server's processes that run."""
        return self.commands.processes()

    def log(self) -> str:
        """Return all that it said so far."""
        return self.commands.pidfile.with_suffix(".log").read_text(
            encoding="utf-8", errors="replace"
        )

    def stop(self) -> None:
        """End it and its children. Safe to repeat, and after `kill`."""
        if self._keeper is None:
            return
        # Closes its stdin, which is what it waits for.
        self._keeper.communicate(timeout=STOP_SECONDS)
        self._keeper = None
        assert self.processes() == [], f"vLLM does not end: {self.processes()}"

    def restart(self) -> None:
        """End it and start it again at the same port."""
        self.stop()
        self._launch()

    def kill(self) -> None:
        """SIGKILL to the process that answers, as a crash would; `restart` brings it back."""
        os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and says nothing."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """End what `freeze` began."""
        os.killpg(self.pid, signal.SIGCONT)

    def ask(
        self, method: str, path: str, body: object = None, timeout: float = 30.0
    ) -> tuple[int, Any]:
        """Return the status and the JSON (None for an empty answer) of a request.

        The API key is sent. Raises TimeoutError when no answer comes in time, URLError when nobody
        listens.
        """
        headers = {"Content-Type": "application/json", **self.headers()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())

    def headers(self) -> Mapping[str, str]:
        """Return what proves that we may ask."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def chat(self, tokens: int = 1, timeout: float = 60.0, **settings: object) -> dict[str, Any]:
        """Return its answer of exactly so many tokens (200 a second) to one short message."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "luca runs on the beach"}],
            "max_tokens": tokens,
            "ignore_eos": True,
            **settings,
        }
        status, answer = self.ask("POST", "/v1/chat/completions", body, timeout)
        assert status == 200, answer
        return dict(answer)

    def is_sleeping(self) -> bool:
        """Return what it says of itself."""
        _, answer = self.ask("GET", "/is_sleeping")
        return bool(answer["is_sleeping"])

    def wake(self) -> None:
        """Wake it from whatever it is in."""
        status, answer = self.ask("POST", "/wake_up")
        assert status == 200, answer

    def _launch(self) -> None:
        self.commands.pidfile.unlink(missing_ok=True)
        environment = {**os.environ}
        environment.pop("VLLM_API_KEY", None)
        if self.api_key:
            environment["VLLM_API_KEY"] = self.api_key
        self._keeper = subprocess.Popen(
            [*self.commands.start, "--attached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # Ctrl-C is for pytest, whose fixtures then end the server in order.
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline().strip() != b"ready":
            self.stop()
            raise RuntimeError(f"vLLM did not start:\n{self.log()[-3000:]}")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace") or None
