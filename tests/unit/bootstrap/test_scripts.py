"""The three commands as a user types them: help, and refusals before any work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scripts.bootstrap.home import REPOSITORY
from scripts.bootstrap.server import HOST, free_port

SCRIPTS = REPOSITORY / "scripts"


def call(tmp_path, script, *arguments):
    environment = {**os.environ, "ANIMATION_STUDIO_HOME": str(tmp_path / "home")}
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )


def refused(tmp_path, *arguments):
    done = call(tmp_path, "quickstart", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists(), "refused before anything was made"
    return done.stderr


@pytest.mark.parametrize("script", ["quickstart", "test", "check"])
def test_help(tmp_path, script):
    done = call(tmp_path, script, "--help")
    assert done.returncode == 0
    assert f"usage: scripts/{script}" in done.stdout
    assert os.access(SCRIPTS / script, os.X_OK)


def test_refusals(tmp_path):
    import socket

    (tmp_path / "page.json").write_text('{"nodes": [], "links": []}')
    (tmp_path / "broken.json").write_text("{")
    assert "no such file" in refused(tmp_path, "--workflow", tmp_path / "nothing.json")
    assert "page's format" in refused(tmp_path, "--workflow", tmp_path / "page.json")
    assert "not readable as JSON" in refused(tmp_path, "--workflow", tmp_path / "broken.json")
    assert "--python goes with --comfyui" in refused(tmp_path, "--python", sys.executable)
    port = ["--port", free_port()]
    assert "no such folder" in refused(tmp_path, *port, "--models", tmp_path / "nothing")
    assert "from 1 to 65535" in refused(tmp_path, "--port", 70000)
    with socket.create_server((HOST, 0)) as listener:
        taken = listener.getsockname()[1]
        assert f"Port {taken} is in use" in refused(tmp_path, "--port", taken)


def test_an_old_comfyui_is_refused(tmp_path):
    (tmp_path / "ComfyUI" / "comfy").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "main.py").write_text("")
    (tmp_path / "ComfyUI" / "comfyui_version.py").write_text('__version__ = "0.3.60"\n')
    done = call(tmp_path, "quickstart", "--comfyui", tmp_path / "ComfyUI", "--port", free_port())
    assert done.returncode == 1
    assert "ComfyUI 0.3.60; Animation Studio needs 0.3.75" in done.stderr


def test_an_old_python_gets_one_sentence(tmp_path):
    source = (SCRIPTS / "quickstart").read_text()
    older = f"import sys\nsys.version_info = (3, 9, 18)\n{source}"
    done = subprocess.run(
        [sys.executable, "-c", older], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Animation Studio needs Python 3.10 or newer")
    assert done.stderr.count("\n") == 1
