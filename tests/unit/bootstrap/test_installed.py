"""Damaged packages are found by pip's own records, and pip then installs them anew."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.bootstrap import environment
from scripts.bootstrap.environment import interpreter_in, look_at, make_venv, python_in
from scripts.bootstrap.installed import damaged_packages, package_names
from scripts.bootstrap.processes import printed_by
from scripts.bootstrap.stamps import read_stamp


def sha256(text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.decode().rstrip('=')}"


def make_wheel(folder, module, metadata=""):
    """Make a wheel of one module: pip needs no network for it."""
    path = folder / f"{module}-1.0-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    info = f"{module}-1.0.dist-info"
    head = f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n"
    files = {
        f"{module}.py": "VALUE = 42\n",
        f"{info}/METADATA": head + metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},{sha256(text)},{len(text)}\n" for name, text in files.items()]
    record = "".join([*rows, f"{info}/RECORD,,\n"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def wheel(tmp_path):
    return make_wheel(tmp_path / "wheels", "tiny_pack")


@pytest.fixture
def ensure(folder, steps, wheel):
    """Bring the environment of `folder` to one tiny package; return its interpreter."""
    if not folder.env.exists():
        make_venv(Path(sys.executable), folder.env, steps)

    def ensure(**inputs):
        interpreter = interpreter_in(folder.env)
        environment.ensure_packages(
            folder, folder.env, interpreter, inputs, [wheel], steps, "import tiny_pack"
        )
        return interpreter

    return ensure


def value(interpreter):
    return printed_by([interpreter.path, "-c", "import tiny_pack; print(tiny_pack.VALUE)"])


def test_damage_is_found_and_put_right(folder, ensure):
    interpreter = ensure(requirements="a")
    site = interpreter.site_packages
    assert damaged_packages(site) == {}
    log = folder.logs / "pip-env.log"

    log.unlink()
    ensure(requirements="a")
    assert not log.exists(), "a whole environment needs no pip"

    (site / "tiny_pack.py").write_text("VALUE = 'half")
    assert list(damaged_packages(site)) == ["tiny_pack-1.0.dist-info"]
    ensure(requirements="a")
    assert value(interpreter).strip() == "42"

    (site / "tiny_pack.py").unlink()
    assert "tiny_pack.py is missing" in damaged_packages(site)["tiny_pack-1.0.dist-info"]
    ensure(requirements="a")
    assert value(interpreter).strip() == "42"

    (site / "tiny_pack-1.0.dist-info" / "RECORD").unlink()
    ensure(requirements="a")
    assert damaged_packages(site) == {}

    printed_by([interpreter.path, "-m", "pip", "uninstall", "-y", "tiny_pack"])
    assert "tiny_pack-1.0.dist-info" not in package_names(site)
    ensure(requirements="a")
    assert value(interpreter).strip() == "42"

    log.unlink()
    ensure(requirements="b")
    assert log.exists(), "other requirements need pip"
    assert read_stamp(folder.env)["requirements"] == "b"


def test_a_package_without_its_requirements_is_repaired_too(folder, steps, wheel, tmp_path):
    make_venv(Path(sys.executable), folder.env, steps)
    interpreter = interpreter_in(folder.env)
    wants = "Requires-Dist: no-such-package\n"
    alone = str(make_wheel(tmp_path / "wheels", "lone_pack", wants))

    def ensure():
        environment.ensure_packages(
            folder, folder.env, interpreter, {}, [wheel], steps, "import lone_pack", alone=(alone,)
        )

    ensure()
    module = interpreter.site_packages / "lone_pack.py"
    assert read_stamp(folder.env)["packages"][0] == "lone_pack-1.0.dist-info"
    module.unlink()
    ensure()
    assert module.is_file()
    assert damaged_packages(interpreter.site_packages) == {}


def test_an_environment_that_does_not_run_is_made_anew(folder, steps):
    make_venv(Path(sys.executable), folder.env, steps)
    python = python_in(folder.env)
    python.unlink()
    python.symlink_to(folder.root / "python-that-was-removed")
    assert interpreter_in(folder.env) is None
    made = environment.ensure_venv(folder.env, sys.executable, steps)
    assert made.version == sys.version_info[:3]
    assert interpreter_in(folder.env) == made


def test_an_environment_left_half_made_is_made_anew(folder, steps):
    (folder.env / "bin").mkdir(parents=True)
    (folder.env / "pyvenv.cfg").write_text("home = /nowhere\n")
    made = environment.ensure_venv(folder.env, sys.executable, steps)
    assert look_at(made.path) == made
