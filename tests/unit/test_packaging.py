"""What an installation takes with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from animation_studio import __version__

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"torch", "torchvision", "torchaudio", "transformers", "numpy", "xformers", "diffusers"}


def toml():
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements):
    return {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in requirements}


def test_requirements_are_few_and_leave_torch_alone():
    project = toml()["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert sorted(listed) == sorted(project["dependencies"])
    assert not names(listed) & FORBIDDEN
    for extra, requirements in project["optional-dependencies"].items():
        if extra != "dev":
            assert not names(requirements) & FORBIDDEN, extra


SYSTEMS = [
    ("win32", "AMD64", "3.14", True),
    ("linux", "x86_64", "3.10", True),
    ("linux", "aarch64", "3.12", True),
    ("darwin", "arm64", "3.14", True),
    ("darwin", "x86_64", "3.13", True),
    ("darwin", "x86_64", "3.14", False),
    ("win32", "ARM64", "3.12", False),
    ("linux", "ppc64le", "3.12", False),
    ("linux", "x86_64", "3.15", False),
]


@pytest.mark.parametrize(("system", "machine", "python", "built"), SYSTEMS)
def test_an_installation_works_where_there_is_no_wheel_of_dlib(system, machine, python, built):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    marked = [Requirement(line) for line in lines if ";" in line and not line.startswith("#")]
    assert [requirement.name for requirement in marked] == ["dlib-bin"]
    platform = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    assert marked[0].marker.evaluate(platform) is built


def test_metadata_of_the_registry():
    data = toml()
    project, comfy = data["project"], data["tool"]["comfy"]
    assert project["name"] == "animation-studio"
    assert project["version"] == __version__
    assert project["license"] == {"file": "LICENSE"}
    assert comfy["DisplayName"] == "Animation Studio"
    assert comfy["requires-comfyui"] == ">=0.3.75"
    # ComfyUI would load each script of the page twice with `web` here and WEB_DIRECTORY.
    assert "web" not in comfy
    assert (ROOT / "web" / Path(comfy["Icon"]).name).is_file()
    assert set(project["optional-dependencies"]) >= {
        "faces", "voice", "pose", "cli", "cluster", "dev",
    }  # fmt: skip


OLD = """
import importlib.util, logging, sys, types
logging.basicConfig(format="%(message)s", stream=sys.stdout)
version = types.ModuleType("comfyui_version")
version.__version__ = sys.argv[2]
sys.modules["comfyui_version"] = version
spec = importlib.util.spec_from_file_location("pack", sys.argv[1] + "/__init__.py")
pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
print(getattr(pack, "NODE_CLASS_MAPPINGS", None), hasattr(pack, "comfy_entrypoint"))
"""


@pytest.mark.parametrize("version", ["0.3.74", "0.2.9", "0.3", "0.3.70.1"])
def test_an_old_comfyui_gets_one_sentence(version):
    done = subprocess.run(
        [sys.executable, "-c", OLD, str(ROOT), version], capture_output=True, text=True, check=True
    )
    sentence, last = done.stdout.splitlines()
    assert sentence == (
        f"Animation Studio needs ComfyUI 0.3.75 or newer; this is {version}. Update ComfyUI to "
        "use it."
    )
    assert last == "{} False"
    assert done.stderr == ""


@pytest.mark.parametrize("version", ["0.3.75", "0.3.76", "0.4.0", "0.33.0", "1.0"])
def test_a_new_comfyui_gets_the_nodes(version):
    done = subprocess.run(
        [sys.executable, "-c", OLD, str(ROOT), version], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["None True"]
