"""A stand-in for a service: a real server on a real port that behaves as its kind does, and fails
as it is told.

    with StandIn("vllm") as server:
        server.fault("POST /sleep", status=500, times=1)
        ... server.url, server.asleep, server.requests["POST /sleep"], server.memory_bytes() ...

`server.commands()` are stop and start commands for services.yaml that end and begin this very one.

As a process: `python tests/support/standin_service.py --kind vllm --port N`. A running one is
steered by `POST /_standin` with the keys of `steer`, and tells of itself by `GET /_standin`; a
`--control FILE` of the same form is read before every request. `--gpu FILE` is a ScriptedGpu's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.standin_kinds import KINDS, Model
from tests.support.standin_parts import Answer, Keeper, Question, Server, add_to_file

if TYPE_CHECKING:
    from tests.support.nvml_standin import ScriptedGpu

__all__ = ["Fault", "StandIn"]

_GPU_LOCK = threading.Lock()


@dataclass
class Fault:
    """What goes wrong at a route, `times` often (None: always).

    First `delay` seconds pass. Then, in this order: `hang` never answers, `die` ends the server,
    `cut` closes the connection in the middle of the answer, `truncated` sends half of the JSON and
    says that it was all, `megabytes` sends so many of noise, `status` answers with that and `text`.
    With `acts` the route does its work nevertheless, before the answer goes wrong.
    """

    delay: float = 0.0
    hang: bool = False
    die: bool = False
    cut: bool = False
    truncated: bool = False
    megabytes: int = 0
    status: int | None = None
    text: str = "the stand-in was told to fail"
    acts: bool = False
    times: int | None = None

    @property
    def only_late(self) -> bool:
        return not (
            self.hang or self.die or self.cut or self.truncated or self.megabytes or self.status
        )


@dataclass
class Request:
    """A request that came: `asleep` is how the server stood then."""

    route: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str]
    asleep: bool


class StandIn:
    """One server of a kind ("vllm", "ollama", "llama_cpp", "openai", "gpt_sovits").

    `settings` are attributes of the kind's model (see standin_kinds): memory_awake, dev_mode,
    sleep_seconds, wake_out_of_memory, keeps_memory, api_key, ... Later they are set on `.model`.
    `gpu` is a ScriptedGpu, or the file of one that only processes write to: what the server holds
    is added to what is used there. `process`: dying ends the whole process.
    """

    def __init__(
        self,
        kind: str,
        *,
        port: int = 0,
        gpu: ScriptedGpu | Path | None = None,
        process: bool = False,
        **settings: Any,
    ) -> None:
        self.kind = kind
        self.model: Model = KINDS[kind](**settings)
        self.requests: Counter[str] = Counter()
        self.log: list[Request] = []
        self.control: Path | None = None
        self._control_read = ""
        self._faults: list[tuple[str, Fault]] = []
        self._gpu = gpu
        self._process = process
        self._held = 0
        self._keeper: Keeper | None = None
        # Of its start command: seconds until it listens, and the status with which it fails.
        self.start_seconds = 0.0
        self.start_fails = False
        self.stop_fails = False
        self.model.changed = self.tell_memory
        self._server: Server | None = None
        self._port = port

    # As a server

    def __enter__(self) -> StandIn:
        self.serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        if self._keeper is not None:
            self._keeper.stop()

    def serve(self) -> None:
        """Begin to listen, with the model as a fresh start has it; always at the same port."""
        self.model.begin()
        self._server = Server(("127.0.0.1", self._port), self, _Handler)
        self._port = self._server.server_address[1]
        self.tell_memory()

    def crash(self) -> None:
        """End at once, as kill -9 does: nothing listens, all connections break."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            self.tell_memory()

    def commands(self) -> dict[str, list[str]]:
        """Return `stop` and `start` commands that end and begin this server."""
        if self._keeper is None:
            self._keeper = Keeper(self)
        return {what: self._keeper.command(what) for what in ("stop", "start")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def running(self) -> bool:
        return self._server is not None

    @property
    def asleep(self) -> bool:
        return self.running and self.model.asleep

    def memory_bytes(self) -> int:
        """The GPU memory that it holds."""
        return self.model.memory_bytes() if self.running else 0

    def tell_memory(self) -> None:
        """Let the GPU hold what the server holds."""
        with _GPU_LOCK:
            change = self.memory_bytes() - self._held
            self._held += change
            if not change or self._gpu is None:
                return
            if isinstance(self._gpu, Path):
                add_to_file(self._gpu, change)
            else:
                self._gpu.add(change)

    # Told by a test

    def fault(self, route: str, **kind: Any) -> None:
        """Let a route ("POST /sleep", or "*" for all) fail as `Fault` says."""
        self._faults.append((route, Fault(**kind)))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def steer(self, orders: Mapping[str, Any]) -> None:
        """Obey {"model": {attribute: value}, "faults": [{"route": ..., ...}], "heal": true}."""
        if orders.get("heal"):
            self.heal()
        for name, value in orders.get("model", {}).items():
            assert hasattr(self.model, name), name
            setattr(self.model, name, value)
        for fault in orders.get("faults", ()):
            self.fault(**fault)
        self.tell_memory()

    def report(self) -> dict[str, Any]:
        """What `GET /_standin` answers."""
        return {
            "requests": dict(self.requests),
            "asleep": self.asleep,
            "memory": self.memory_bytes(),
            "work_while_asleep": self.model.work_while_asleep,
            "harm": self.model.harm,
            "most_chats": self.model.most_chats,
            "left_chats": self.model.left_chats,
            "pid": os.getpid(),
        }

    # Of the server's threads

    def note(self, request: Request) -> None:
        self._read_control()
        self.requests[request.route] += 1
        self.log.append(request)

    def take_fault(self, route: str) -> Fault | None:
        for at, fault in self._faults:
            if at in (route, "*") and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def die(self) -> None:
        self.crash()
        if self._process:
            os._exit(70)

    def _read_control(self) -> None:
        if self.control is not None and self.control.exists():
            text = self.control.read_text(encoding="utf-8")
            if text != self._control_read:
                self._control_read = text
                self.steer(json.loads(text))


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        standin = self.server.standin
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else None
        route = f"{method} {parts.path}"
        if parts.path == "/_standin":
            if method == "POST":
                standin.steer(body or {})
            self._send(Answer(200, standin.report()))
            return
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            query.setdefault(name, []).append(value)
        headers = dict(self.headers.items())
        standin.note(Request(route, query, body, headers, standin.asleep))
        over = self.server.ended.is_set
        question = Question(route, query, body, headers, self._gone, over)
        fault = standin.take_fault(route)
        if fault is None:
            self._work(question)
        else:
            self._fail(fault, question)

    def _work(self, question: Question) -> None:
        standin = self.server.standin
        answer = standin.model.answer(question)
        standin.tell_memory()
        if answer is None:  # whoever asked has left
            return
        if answer.events is not None:
            self._stream(answer.events)
            return
        self._send(answer)
        if answer.die:
            standin.die()

    def _fail(self, fault: Fault, question: Question) -> None:
        standin = self.server.standin
        end = time.monotonic() + fault.delay
        while time.monotonic() < end and not self._gone():
            time.sleep(0.005)
        if fault.only_late:
            self._work(question)
            return
        good: Answer | None = None
        if fault.acts:
            good = standin.model.answer(question)
            standin.tell_memory()
        if fault.hang:
            while not self._gone():
                time.sleep(0.01)
        elif fault.die:
            standin.die()
        elif fault.cut or fault.truncated:
            whole = json.dumps(good.data if good and good.data else {"is_sleeping": False}).encode()
            half = whole[: len(whole) // 2]
            self._head(200, len(whole) if fault.cut else len(half))
            self.wfile.write(half)
        elif fault.megabytes:
            self._head(200, fault.megabytes << 20)
            with contextlib.suppress(OSError):
                for _ in range(fault.megabytes):
                    self.wfile.write(b"x" * (1 << 20))
        else:
            self._send(Answer(fault.status or 500, fault.text))

    def _gone(self) -> bool:
        """Whether the client closed the connection, or the server is to end."""
        if self.server.ended.is_set():
            return True
        try:
            ready, _, _ = select.select([self.connection], [], [], 0)
            return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _send(self, answer: Answer) -> None:
        content = answer.data
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        raw = b"" if content is None else raw
        with contextlib.suppress(OSError):
            self._head(answer.status, len(raw), isinstance(content, str), **answer.headers)
            self.wfile.write(raw)

    def _stream(self, events: Iterable[bytes | None]) -> None:
        """Send events as they come, in chunks whose end says that it was all."""
        self.protocol_version, self.close_connection = "HTTP/1.1", True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError), contextlib.closing(_each(events)) as pieces:
            for piece in pieces:
                if piece is None:
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, length: int, plain: bool = False, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain" if plain else "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _each(events: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """A generator of them; closing it closes what they come from."""
    yield from events


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--gpu", type=Path)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: options.ignore_term or ended.set())
    print(f"stand-in {options.kind} starts", flush=True)
    if ended.wait(options.start_seconds):
        return
    standin = StandIn(
        options.kind, port=options.port, gpu=options.gpu, process=True, **options.settings
    )
    standin.control = options.control
    with standin:
        ended.wait()


if __name__ == "__main__":
    main()
