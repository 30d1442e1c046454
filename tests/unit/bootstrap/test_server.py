"""Starting a server: the port, the way it dies, and that it never outlives its starter."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.bootstrap.home import REPOSITORY
from scripts.bootstrap.say import Problem
from scripts.bootstrap.server import (
    HOST,
    PACK,
    Options,
    Server,
    free_port,
    make_link,
    require_free_port,
)

ATTACHED = REPOSITORY / "scripts" / "bootstrap" / "attached.py"
FLAGS = "--port --extra-model-paths-config --disable-all-custom-nodes --whitelist-custom-nodes"
# Answers like ComfyUI, for as long as it is let.
ANSWERING = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"argv": sys.argv, "path0": sys.path[0], "name": __name__}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
print("starting", flush=True)
try:
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
except KeyboardInterrupt:
    print("stopped in order", flush=True)
"""


@pytest.fixture
def program(tmp_path):
    """A folder that starts like ComfyUI, running the given main.py."""

    def program(main):
        root = tmp_path / "ComfyUI"
        (root / "comfy").mkdir(parents=True)
        (root / "main.py").write_text(main)
        (root / "comfy" / "cli_args.py").write_text(FLAGS)
        return Server(Options(root, Path(sys.executable), tmp_path / "run", free_port()))

    return program


@contextlib.contextmanager
def answering(body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *words):
            pass

    with http.server.HTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_port_in_use_by_a_comfyui():
    with (
        answering({"system": {"comfyui_version": "0.3.75"}}) as port,
        pytest.raises(Problem, match=rf"Port {port} is in use by a ComfyUI 0\.3\.75.*--port \d+"),
    ):
        require_free_port(port)


def test_port_in_use_by_something_else():
    with answering([]) as port, pytest.raises(Problem, match=r"another program.*--port"):
        require_free_port(port)


def test_port_is_free_again_at_once():
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((HOST, port)) as client, listener.accept()[0]:
            assert client.getpeername()[1] == port
    require_free_port(port)


def test_started_and_stopped_in_order(program):
    with program(ANSWERING) as server:
        server.start()
        assert server.process.poll() is None
    assert server.process.returncode == 0
    assert server.log() == "starting\nstopped in order\n"
    server.stop()


def test_the_pack_is_given_once(program, tmp_path):
    server = program(ANSWERING)
    with server:
        server.start()
        config = json.loads(next(server.options.folder.glob("*.yaml")).read_text())
    packs = Path(config["packs"]["custom_nodes"])
    assert (packs / PACK).resolve() == REPOSITORY
    assert [path.name for path in packs.iterdir()] == [PACK]

    own = tmp_path / "ComfyUI" / "custom_nodes"
    own.mkdir()
    make_link(own / "studio", REPOSITORY)
    with server:
        server.start()
        assert "packs" not in json.loads(next(server.options.folder.glob("*.yaml")).read_text())
        assert server._command()[-2:] == ["--whitelist-custom-nodes", "studio"]


def test_only_flags_that_this_version_knows(program):
    command = program(ANSWERING)._command()
    flags = [word for word in command if word.startswith("--")]
    assert flags == FLAGS.split()


def test_dying_at_start_shows_its_last_words(program):
    server = program("import sys\nprint('about to load')\nsys.exit('libcuda is missing')\n")
    with server, pytest.raises(Problem) as caught:
        server.start()
    message = str(caught.value)
    assert "exit status 1" in message
    assert "  | about to load\n  | libcuda is missing" in message
    assert str(server.log_path) in message


def test_full_disk_at_start(program):
    main = "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
    with program(main) as server, pytest.raises(Problem, match="The disk is full"):
        server.start()


def test_a_pack_that_fails_to_load_is_a_failure(program):
    said = (
        f"print('Cannot import x: no module y')\nprint('   0.1 seconds (IMPORT FAILED): /a/{PACK}')"
    )
    with (
        program(f"{said}\n{ANSWERING}") as server,
        pytest.raises(Problem, match=r"this pack failed to load[\s\S]*no module y"),
    ):
        server.start()
    assert server.process.poll() is not None


def test_it_never_outlives_its_starter(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, time\n"
        "try:\n    print('up', flush=True); time.sleep(3600)\n"
        f"finally:\n    pathlib.Path({str(tmp_path / 'ended')!r}).touch()\n"
    )
    starter = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {str(ATTACHED)!r}, {str(script)!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ended").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "ended").exists(), f"process {child} is still there"


def test_the_script_sees_itself_as_main_and_not_our_modules(tmp_path):
    script = tmp_path / "main.py"
    script.write_text("import sys; print(__name__, sys.argv[1:], sys.path[0]); import server\n")
    (tmp_path / "server.py").write_text("print('its own server')\n")
    command = [sys.executable, ATTACHED, script, "--port", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        said = process.stdout.read()
    assert said == f"__main__ ['--port', '1'] {tmp_path}\nits own server\n"
    assert process.returncode == 0


def test_a_link_to_another_checkout_is_put_right(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "packs" / PACK
    make_link(link, tmp_path / "old")
    make_link(link, tmp_path / "new")
    make_link(link, tmp_path / "new")
    assert link.resolve() == tmp_path / "new"
    assert (tmp_path / "old").is_dir()
