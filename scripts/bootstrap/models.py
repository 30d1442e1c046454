"""Where the models are: the user's folder, or stand-ins; and the file that tells ComfyUI."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .environment import Interpreter
from .home import Home
from .launch import script_command
from .processes import follow
from .say import Problem, Steps, plural_list

__all__ = ["ensure_standins", "look_at_models", "write_paths"]

STANDIN_GIGABYTES = 3.0
# Folder names of ComfyUI that hold something this pack's workflows load.
EXPECTED = ("checkpoints", "loras", "controlnet", "vae")
SCRIPTS = Path(__file__).resolve().parent


def look_at_models(folder: Path) -> Path:
    """Return the user's models folder. Raises Problem when it cannot be read or holds no models."""
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - links are kept
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except FileNotFoundError:
        raise Problem(f"--models {folder}: there is no such folder.") from None
    except NotADirectoryError:
        raise Problem(f"--models {folder}: this is a file; name the folder of models.") from None
    except PermissionError:
        raise Problem(f"--models {folder}: you may not read this folder.") from None
    if "checkpoints" not in names:
        inner = folder / "models"
        hint = f" Did you mean {inner}?" if (inner / "checkpoints").is_dir() else ""
        raise Problem(
            f"--models {folder}: there is no checkpoints folder in it (there is "
            f"{plural_list(names)}). It is laid out like ComfyUI's models folder: "
            f"{', '.join(EXPECTED)}, ...{hint}"
        )
    unreadable = [name for name in names if not os.access(folder / name, os.R_OK | os.X_OK)]
    if unreadable:
        raise Problem(f"--models {folder}: you may not read {plural_list(unreadable)} in it.")
    return folder


def ensure_standins(
    home: Home, comfyui: Path, interpreter: Interpreter, steps: Steps, *, for_tests: bool = False
) -> Path:
    """Return the stand-ins' folder, made where something is missing (models/ and config/ in it).

    `for_tests` adds the SD1.5-class files that only tests use.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    if not (home.standins / "manifest.json").is_file():
        home.require_space(STANDIN_GIGABYTES, "stand-in models")
    arguments = ["--comfyui", str(comfyui), "--out", str(home.standins)]
    if for_tests:
        arguments.append("--with-sd15")
    command = script_command(interpreter.path, SCRIPTS / "standins.py", arguments)
    log = home.logs / "standins.log"
    status, said = follow(command, log, steps, lambda line: line.strip() or None)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status != 0:
        reason = lines[-1] if lines else "no reason was given"
        raise Problem(f"The stand-in models could not be made. {reason} All of it is in {log}.")
    if lines:
        steps.note(lines[-1])
    return home.standins


def write_paths(path: Path, models: Path | None, packs: Path | None) -> None:
    """Write an extra_model_paths file: a folder of models (first choice), a folder of packs.

    JSON is YAML too, and needs no YAML library here.
    """
    content: dict[str, dict[str, object]] = {}
    if models is not None:
        folders = {
            entry.name: str(entry)
            for entry in sorted(models.iterdir())
            if entry.is_dir() and not entry.name.startswith((".", "_"))
        }
        content["models"] = {"is_default": True, **folders}
    if packs is not None:
        content["packs"] = {"custom_nodes": str(packs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
