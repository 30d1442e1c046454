"""Virtual environments: one that ComfyUI runs in, one beside it for tests and checks.

env holds PyTorch, ComfyUI's requirements and the pack's. dev sees env's packages through a .pth
file, so that PyTorch is there once, and adds what pyproject.toml lists as `dev`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .home import REPOSITORY, Home, remove_tree
from .installed import damaged_packages, forget_packages, package_names
from .installer import pip
from .processes import clean_environment, printed_by
from .say import Problem, Steps
from .stamps import differences, digest_of_text, read_stamp, remove_stamp, write_stamp
from .system import apt_install

__all__ = [
    "Interpreter",
    "ensure_dev",
    "ensure_env",
    "ensure_packages",
    "ensure_venv",
    "interpreter_in",
    "look_at",
    "python_in",
]

# The user's PyTorch; on Pythons it was not built for, the newest trio that goes together.
TORCH = ("torch==2.7.0", "torchvision==0.22.0", "torchaudio==2.7.0")
TORCH_NEWEST = ("torch", "torchvision", "torchaudio")
TORCH_LAST_PYTHON = (3, 13)
# Beside pyproject's dev extra: LyCORIS itself judges what the pack makes of LyCORIS files.
TEST_PACKAGES = ("lycoris-lora>=3.2",)
# Installed without what it asks for: its opencv-python writes the files of opencv-python-headless.
# The rest of what it asks for is in the dev extra and in env.
TEST_ALONE = ("insightface>=2.1",)
# What each holds once finished, with room for pip's temporary files. vllm takes 2 GB where pip's
# settings offer PyTorch's build for processors, and the index's own build brings 4 GB of CUDA.
GIGABYTES = {"env": 8.0, "dev": 1.3, "vllm": 6.5}
LINK = "_animation_studio_env.pth"
# Imported once after an installation: what fails here would fail in ComfyUI with a traceback.
IMPORTS = "import torch, torchvision, torchaudio, aiohttp, numpy, safetensors, yaml, pydantic"
DEV_IMPORTS = "import pytest, mypy, onnx, insightface.app"


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs, its version as three numbers, and where it keeps its packages."""

    path: Path
    version: tuple[int, int, int]
    site_packages: Path
    has_pip: bool


def python_in(folder: Path) -> Path:
    """Return the path of a virtual environment's interpreter."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def look_at(python: Path) -> Interpreter | None:
    """Run an interpreter and return what it says of itself, or None when it does not run."""
    code = (
        "import importlib.util as u, json, sys, sysconfig; print(json.dumps([sys.version_info[:3],"
        " sysconfig.get_paths()['purelib'], u.find_spec('pip') is not None]))"
    )
    said = printed_by([python, "-I", "-c", code])
    if not said:
        return None
    version, site_packages, has_pip = json.loads(said)
    major, minor, micro = version
    return Interpreter(python, (major, minor, micro), Path(site_packages), has_pip)


def interpreter_in(folder: Path) -> Interpreter | None:
    """Return the interpreter of a virtual environment when it is usable: new enough, with pip."""
    if not (folder / "pyvenv.cfg").is_file():
        return None
    found = look_at(python_in(folder))
    if found is None or found.version < (3, 10) or not found.has_pip:
        return None
    return found


def ensure_env(home: Home, comfyui_requirements: Path, steps: Steps) -> Interpreter:
    """Return the interpreter with PyTorch and both requirements files, made if needed."""
    interpreter = ensure_venv(home.env, sys.executable, steps)
    torch = TORCH if interpreter.version[:2] <= TORCH_LAST_PYTHON else TORCH_NEWEST
    own = REPOSITORY / "requirements.txt"
    inputs: dict[str, object] = {
        "python": ".".join(map(str, interpreter.version[:2])),
        "torch": list(torch),
        "comfyui requirements": digest_of_text(comfyui_requirements.read_text(encoding="utf-8")),
        "pack requirements": digest_of_text(own.read_text(encoding="utf-8")),
    }
    arguments: list[str | Path] = [*torch, "-r", comfyui_requirements, "-r", own, "requests"]
    ensure_packages(home, home.env, interpreter, inputs, arguments, steps, IMPORTS)
    return interpreter


def ensure_dev(home: Home, env: Interpreter, steps: Steps) -> Interpreter:
    """Return the interpreter for tests and checks; it sees env's packages and adds its own."""
    interpreter = ensure_venv(home.dev, env.path, steps, env.version[:2])
    link = interpreter.site_packages / LINK
    content = f"{env.site_packages}\n"
    if not link.is_file() or link.read_text(encoding="utf-8") != content:
        link.write_text(content, encoding="utf-8")
    wanted = [*_dev_requirements(env), *TEST_PACKAGES]
    inputs: dict[str, object] = {
        "python": ".".join(map(str, interpreter.version[:2])),
        "requirements": wanted,
        "alone": list(TEST_ALONE),
        "env": read_stamp(home.env).get("comfyui requirements"),
    }
    constraints = home.logs / "dev-constraints.txt"
    pinned = [name for name in TORCH if env.version[:2] <= TORCH_LAST_PYTHON]
    constraints.write_text("".join(f"{name}\n" for name in pinned), encoding="utf-8")
    arguments: list[str | Path] = [*wanted, "-c", constraints]
    ensure_packages(
        home, home.dev, interpreter, inputs, arguments, steps, DEV_IMPORTS, alone=TEST_ALONE
    )
    return interpreter


def ensure_venv(
    folder: Path,
    maker: str | Path,
    steps: Steps,
    version: tuple[int, ...] | None = None,
) -> Interpreter:
    """Return the usable interpreter in `folder`; what is there and is not usable is made anew."""
    found = interpreter_in(folder)
    if found and (version is None or found.version[:2] == version):
        return found
    if folder.exists():
        steps.note(f"{folder} is not whole; it is made anew")
        remove_tree(folder)
    make_venv(Path(maker), folder, steps)
    found = interpreter_in(folder)
    if found is None:
        raise Problem(
            f"{maker} made a virtual environment in {folder} that does not run. Start again with "
            "another Python, for example `python3.12 scripts/quickstart`."
        )
    return found


def make_venv(maker: Path, folder: Path, steps: Steps) -> None:
    """Make a virtual environment with pip. Raises Problem when this Python cannot."""
    done = _run_venv(maker, folder)
    if done.returncode != 0 and _lacks_venv(done.stdout):
        version = look_at(maker)
        name = "python{}.{}-venv".format(*version.version) if version else "python3-venv"
        if apt_install([name], steps):
            remove_tree(folder)
            done = _run_venv(maker, folder)
        else:
            raise Problem(
                f"This Python ({maker}) comes without venv and ensurepip, which make environments. "
                f"On Debian, Ubuntu and WSL: `sudo apt install {name}`; then start again."
            )
    if done.returncode != 0:
        if "No space left on device" in done.stdout:
            raise OSError(28, "No space left on device", str(folder))
        raise Problem(
            f"No virtual environment could be made in {folder}: {_last_line(done.stdout)}"
        )


def _run_venv(maker: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(maker), "-m", "venv", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _lacks_venv(output: str) -> bool:
    return any(
        sign in output
        for sign in (
            "ensurepip is not available",
            "No module named venv",
            "No module named ensurepip",
        )
    )


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given."


def ensure_packages(
    home: Home,
    folder: Path,
    interpreter: Interpreter,
    inputs: dict[str, object],
    arguments: list[str | Path],
    steps: Steps,
    imports: str,
    alone: tuple[str, ...] = (),
) -> None:
    """Bring an environment's packages to what `inputs` describe, unless they are already.

    `arguments` are pip's for the packages, `alone` names those that come without their own
    requirements, `imports` is the statement that must run afterwards.
    Packages whose files are not as pip recorded them are installed anew. What is odd right after
    an installation is that package's own fault, kept in the stamp and tolerated.
    """
    stamp = read_stamp(folder)
    tolerated = stamp.get("odd") or {}
    faults = damaged_packages(interpreter.site_packages)
    broken = sorted(name for name, fault in faults.items() if tolerated.get(name) != fault)
    gone = set(stamp.get("packages") or ()) - set(package_names(interpreter.site_packages))
    if stamp and not differences(stamp, inputs) and not broken and not gone:
        return
    if stamp and broken:
        steps.note(f"{len(broken)} packages are not whole ({faults[broken[0]]}); installing anew")
    # From here until the end nothing claims to be whole: an interruption must not look finished.
    remove_stamp(folder)
    forget_packages(interpreter.site_packages, broken)
    if not stamp:
        # Also where half of it is there already: less is needed then.
        missing = max(0.2, GIGABYTES[folder.name] - _gigabytes_in(interpreter.site_packages))
        home.require_space(missing, f"a Python environment in {folder}")
        steps.note(f"fetching what is missing in {folder}; the first time this takes some minutes")
    log = home.logs / f"pip-{folder.name}.log"
    pip(interpreter.path, ["install", *arguments], log, steps)
    if alone:
        log_alone = home.logs / f"pip-{folder.name}-alone.log"
        pip(interpreter.path, ["install", "--no-deps", *alone], log_alone, steps)
    if printed_by([interpreter.path, "-I", "-c", f"{imports}; print('ok')"], timeout=600) is None:
        # Not what RECORD can see (a compiled file for another processor, a damaged library).
        raise Problem(
            f"The packages in {folder} were installed, but `{imports}` fails there. Delete that "
            f"folder and start again; pip's own words are in {log}."
        )
    packages = package_names(interpreter.site_packages)
    odd = damaged_packages(interpreter.site_packages)
    write_stamp(folder, {**inputs, "packages": packages, "odd": odd})


def _gigabytes_in(folder: Path) -> float:
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(sizes) / 1e9


def _dev_requirements(env: Interpreter) -> list[str]:
    """Return pyproject's dev extra, read by the environment (tomllib is not in Python 3.10)."""
    code = (
        "import json, sys\n"
        "try:\n    import tomllib\n"
        "except ModuleNotFoundError:\n    from pip._vendor import tomli as tomllib\n"
        "data = tomllib.load(open(sys.argv[1], 'rb'))\n"
        "print(json.dumps(data['project']['optional-dependencies']['dev']))\n"
    )
    said = printed_by([env.path, "-I", "-c", code, REPOSITORY / "pyproject.toml"])
    if said is None:
        raise Problem(f"{REPOSITORY / 'pyproject.toml'} has no readable list of dev requirements.")
    return [str(requirement) for requirement in json.loads(said)]
