"""Whether a user's environment needs anything is found out before pip is thought of."""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bootstrap import comfyui
from scripts.bootstrap.comfyui import ensure_pack_requirements
from scripts.bootstrap.environment import Interpreter, interpreter_in, look_at, make_venv
from scripts.bootstrap.home import REPOSITORY
from scripts.bootstrap.say import Problem

SCRIPT = REPOSITORY / "scripts" / "bootstrap" / "requirements_met.py"


def met(tmp_path, text, *names):
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    command = [sys.executable, SCRIPT, path, *names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_met(tmp_path):
    numpy = metadata.version("numpy")
    text = f"# every user has it\nPyYAML>=1\nnumpy=={numpy}  # and this\n\n"
    assert met(tmp_path, text) == ["met"]
    assert met(tmp_path, text, "numpy", "not-here") == ["met", f"numpy=={numpy}"]


@pytest.mark.parametrize("text", ["no-such-package>=1", "numpy<0.1"])
def test_missing(tmp_path, text):
    assert met(tmp_path, f"pyyaml\n{text}\n") == [f"missing {text}"]


def test_each_that_is_missing_has_a_line(tmp_path):
    text = 'no-such-package>=1; python_version >= "3"\nno-other\n'
    assert met(tmp_path, text) == ["missing no-such-package>=1", "missing no-other"]


def test_what_another_system_needs_is_not_missing(tmp_path):
    assert met(tmp_path, 'no-such-package>=1; sys_platform == "os2"\n') == ["met"]


def test_a_compiled_dlib_stands_for_the_built_one(tmp_path, monkeypatch):
    info = tmp_path / "site" / "dlib-19.22.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dlib\nVersion: 19.22\n")
    wanted = "dlib-bin>=999\n"
    assert met(tmp_path, wanted) == ["missing dlib-bin>=999"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert met(tmp_path, wanted) == ["met"]


def test_pip_does_not_run_where_all_is_there(folder, steps):
    ensure_pack_requirements(folder, look_at(Path(sys.executable)), steps)
    assert not list(folder.logs.iterdir()), "pip did not run"


def test_nothing_but_what_is_missing_is_installed(folder, steps, tmp_path, monkeypatch):
    """pip is held to the torch it finds: a requirement that wants another one fails."""
    make_venv(Path(sys.executable), folder.env, steps)
    interpreter = interpreter_in(folder.env)
    info = interpreter.site_packages / "torch-2.7.0+cu128.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.7.0+cu128\n")
    (tmp_path / "requirements.txt").write_text("pip>=1\ntorch>=2.8\n")
    monkeypatch.setattr(comfyui, "REPOSITORY", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Problem):
        ensure_pack_requirements(folder, interpreter, steps)
    assert "torch==2.7.0+cu128" in (folder.logs / "untouched.txt").read_text()
    command = (folder.logs / "pip-pack.log").read_text().splitlines()[0]
    assert " install torch>=2.8 -c " in command
    assert "untouched.txt" in command
    assert info.is_dir()


def test_without_pip_the_user_is_told_what_to_install(folder, steps, tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("no-such-package\n")
    monkeypatch.setattr(comfyui, "REPOSITORY", tmp_path)
    bare = Interpreter(Path(sys.executable), (3, 11, 0), tmp_path, has_pip=False)
    with pytest.raises(Problem, match=r"has no pip.*requirements\.txt.*uv pip install"):
        ensure_pack_requirements(folder, bare, steps)
