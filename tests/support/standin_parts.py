"""What the stand-ins stand on: questions and answers, a threaded server that can end at once, the
commands that end and begin one, and the memory of a scripted GPU."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.standin_service import StandIn

__all__ = ["Answer", "Keeper", "Question", "Server", "add_to_file"]


@dataclass
class Question:
    """A request. `gone`: whoever asked has left, or the server has ended; `over`: only that."""

    route: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str]
    gone: Callable[[], bool]
    over: Callable[[], bool]


@dataclass
class Answer:
    """Status and JSON (or text, or None for nothing); with `die` the server ends after it.

    With `events` the body is a stream of server-sent events, sent as they come; None among them
    cuts the connection.
    """

    status: int
    data: Any = None
    die: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Iterable[bytes | None] | None = None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        standin: StandIn,
        handler: type[BaseHTTPRequestHandler],
    ) -> None:
        self.standin = standin
        self.ended = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)
        threading.Thread(
            target=self.serve_forever, args=(0.01,), name="stand-in", daemon=True
        ).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error of the stand-in."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def add_to_file(file: Path, change: int) -> None:
    """Add to what is used on the first GPU of a ScriptedGpu's file, one process at a time."""
    lock = file.with_suffix(".turn")
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            time.sleep(0.002)
    try:
        first, *others = file.read_text(encoding="utf-8").splitlines()
        words = first.split(" ")  # device INDEX UUID TOTAL USED FREE RESERVED NAME
        words[4], words[5] = str(int(words[4]) + change), str(int(words[5]) - change)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text("\n".join([" ".join(words), *others]) + "\n", encoding="utf-8")
        part.replace(file)
    finally:
        lock.unlink()


class Keeper:
    """Listens for the stop and start commands of a stand-in, which are small programs."""

    _PROGRAM = (
        "import sys, urllib.request as r, urllib.error as e\n"
        "try: r.build_opener(r.ProxyHandler({})).open(sys.argv[1], b'', 60)\n"
        "except e.HTTPError as error: sys.exit(error.read().decode())\n"
    )

    def __init__(self, standin: StandIn) -> None:
        self._server = Server(("127.0.0.1", 0), standin, _KeeperHandler)
        self.stop = self._server.stop

    def command(self, what: str) -> list[str]:
        url = f"http://127.0.0.1:{self._server.server_address[1]}/{what}"
        return [sys.executable, "-I", "-S", "-c", self._PROGRAM, url]


class _KeeperHandler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        standin = self.server.standin
        failed = standin.start_fails if self.path == "/start" else standin.stop_fails
        if self.path == "/stop" and not failed:
            standin.crash()
        elif self.path == "/start" and not failed:
            time.sleep(standin.start_seconds)
            if not standin.running:
                standin.serve()
        text = f"the stand-in cannot {self.path[1:]}".encode() if failed else b""
        self.send_response(500 if failed else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
