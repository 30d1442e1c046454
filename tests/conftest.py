"""Where tests find the library, the prepared parts and a running ComfyUI.

The repository stands at the end of sys.path: its package `nodes` must never hide ComfyUI's module.
Tests that import ComfyUI put `comfyui_root` first themselves (fixture `comfyui_modules`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [*(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT), str(ROOT)]

from scripts.bootstrap.environment import python_in  # noqa: E402
from scripts.bootstrap.home import Home  # noqa: E402
from scripts.bootstrap.vllm import why_no_vllm  # noqa: E402
from tests.support import faces  # noqa: E402
from tests.support.server import ComfyServer, Prepared  # noqa: E402
from tests.support.vllm import VISION_MODEL, VllmCommands, VllmParts, VllmServer  # noqa: E402


@pytest.fixture(scope="session")
def home() -> Home:
    """The folder of prepared parts: $ANIMATION_STUDIO_HOME, else the one that holds this Python."""
    beside = Path(sys.prefix).parent
    if "ANIMATION_STUDIO_HOME" not in os.environ and (beside / "comfyui" / "main.py").is_file():
        return Home(beside)
    return Home.find()


@pytest.fixture(scope="session")
def comfyui_root(home: Home) -> Path:
    """ComfyUI's source folder."""
    root = Path(os.environ.get("ANIMATION_STUDIO_COMFYUI") or home.comfyui)
    assert (root / "main.py").is_file(), f"{root}: no ComfyUI; scripts/test prepares one"
    return root


@pytest.fixture(scope="session")
def prepared(home: Home, comfyui_root: Path) -> Prepared:
    """ComfyUI, its interpreter and the stand-ins."""
    python = Path(os.environ.get("ANIMATION_STUDIO_PYTHON") or python_in(home.env))
    manifest = home.standins / "manifest.json"
    assert manifest.is_file(), f"{manifest}: no stand-in models; scripts/test makes them"
    return Prepared(comfyui_root, python, home.standins)


@pytest.fixture(scope="session")
def comfyui(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The one ComfyUI that all tests share; it starts with the first test that asks for it."""
    folder = tmp_path_factory.mktemp("comfyui")
    server = ComfyServer.start(prepared, folder, test_packs=True)
    yield server
    server.stop()


@pytest.fixture
def start_comfyui(prepared: Prepared, tmp_path: Path) -> Iterator[Callable[..., ComfyServer]]:
    """Start a ComfyUI of the test's own, with the options of `ComfyServer.start`."""
    started: list[ComfyServer] = []

    def start(**options: object) -> ComfyServer:
        folder = tmp_path / f"comfyui{len(started)}"
        started.append(ComfyServer.start(prepared, folder, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def comfyui_modules(comfyui_root: Path) -> Iterator[Path]:
    """Make ComfyUI's modules importable in this process, set to the CPU and to 32 bits."""
    sys.path.insert(0, str(comfyui_root))
    from comfy.cli_args import args

    args.cpu = args.fp32_unet = args.fp32_text_enc = True
    yield comfyui_root
    sys.path.remove(str(comfyui_root))


@pytest.fixture(scope="session")
def vllm_parts(home: Home) -> VllmParts:
    """The interpreter that has vLLM, and the tiny model for it."""
    python = python_in(home.vllm)
    hint = why_no_vllm() or "scripts/test makes it"
    assert python.is_file(), f"{python}: no vLLM; {hint}"
    assert (home.language_model / "config.json").is_file(), f"{home.language_model}: no model"
    return VllmParts(python, home.language_model)


@pytest.fixture(scope="session")
def vision_parts(home: Home, vllm_parts: VllmParts) -> VllmParts:
    """The same with the tiny model that sees."""
    for needed in (home.vision_model / "config.json", home.torchvision / "torchvision"):
        assert needed.exists(), f"{needed}: not there; scripts/test makes it"
    return VllmParts(vllm_parts.python, home.vision_model, home.torchvision)


@pytest.fixture(scope="session")
def vllm(vllm_parts: VllmParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The one vLLM that all tests share, with the sleep routes; leave it awake."""
    server = VllmServer.start(vllm_parts, tmp_path_factory.mktemp("vllm"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def vision_vllm(
    vision_parts: VllmParts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """The one vLLM that sees, four pictures at most in a request; leave it awake."""
    folder = tmp_path_factory.mktemp("vision-vllm")
    server = VllmServer.start(vision_parts, folder, name=VISION_MODEL)
    yield server
    server.stop()


@pytest.fixture
def start_vllm(vllm_parts: VllmParts, tmp_path: Path) -> Iterator[Callable[..., VllmServer]]:
    """Start a vLLM of the test's own, with the options of `VllmServer.start`."""
    started: list[VllmServer] = []

    def start(**options: object) -> VllmServer:
        folder = tmp_path / f"vllm{len(started)}"
        started.append(VllmServer.start(vllm_parts, folder, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def vllm_commands(vllm_parts: VllmParts, tmp_path: Path) -> Iterator[Callable[..., VllmCommands]]:
    """Make start and stop commands for services.yaml; what they started is ended afterwards."""
    made: list[VllmCommands] = []

    def make(**options: object) -> VllmCommands:
        made.append(VllmCommands.make(vllm_parts, tmp_path / f"commands{len(made)}", **options))
        return made[-1]

    yield make
    for commands in made:
        commands.end()


@pytest.fixture(scope="session")
def face_pictures(home: Home) -> dict[str, np.ndarray]:
    """Pictures of people, uint8 RGB, by name; tests/support/faces.py says who is in them."""
    return faces.face_pictures(home)


@pytest.fixture(scope="session")
def insightface_root(home: Home) -> Path:
    """The models/insightface folder with the stand-in pack `faces.STANDIN_PACK`."""
    return faces.insightface_root(home)


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The path of a Chromium or Chrome."""
    from scripts.bootstrap.browser import find_browser

    path = find_browser()
    assert path, "no Chromium or Chrome; scripts/test installs one"
    return path
