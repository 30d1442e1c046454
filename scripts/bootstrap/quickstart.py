"""scripts/quickstart: from a fresh clone to the first picture, and to the page with --serve."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .comfyui import (
    Checkout,
    ensure_comfyui,
    ensure_pack_requirements,
    look_at_comfyui,
    require_interpreter,
)
from .device import Device, find_device
from .environment import ensure_env
from .faces_demo import show_filter
from .home import REPOSITORY, Home
from .launch import module_command
from .models import ensure_standins, look_at_models
from .processes import clean_environment
from .say import Problem, Steps, guarded
from .server import HOST, Options, Server, require_free_port

__all__ = ["main"]

DEFAULT_WORKFLOW = REPOSITORY / "workflows" / "api" / "luca_pose_scene.json"
DESCRIPTION = """\
Make the first picture: prepare Python packages, ComfyUI and models, start ComfyUI with this pack,
and run workflows/api/luca_pose_scene.json through its HTTP API. The first run fetches about 4 GB
and keeps 8 GB in .studio (or $ANIMATION_STUDIO_HOME); the next ones rebuild nothing.

Without --models it builds stand-in models: random numbers in files with the right names. They
prove that everything works, and their pictures are noise.
"""
EPILOG = """\
examples:
  scripts/quickstart                                   everything of its own, stand-in models
  scripts/quickstart --serve                           ... and the page stays open
  scripts/quickstart --comfyui ~/ComfyUI --models ~/ComfyUI/models
                                                       your ComfyUI, your models

In a ComfyUI of your own nothing but this pack's requirements.txt is ever installed (nothing at
all where they are met), and torch is never touched. Pictures go to .studio/run/output.
"""


@dataclass(frozen=True)
class Prepared:
    """What there is to run: ComfyUI, its interpreter, the models and their configuration."""

    checkout: Checkout
    python: Path
    device: Device
    models: Path
    config: Path | None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _quickstart(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--comfyui", type=Path, metavar="PATH", help="use this ComfyUI (0.3.75 or newer)")
    add(
        "--python",
        type=Path,
        metavar="PATH",
        help="the interpreter that starts it (default: its own venv, .venv or ../python_embeded)",
    )
    add(
        "--models",
        type=Path,
        metavar="PATH",
        help="real models: a folder with checkpoints/, loras/, controlnet/, ... in it",
    )
    add("--port", type=int, default=8188, metavar="N", help="ComfyUI's port (default: 8188)")
    add("--serve", action="store_true", help="leave ComfyUI running and print the page's address")
    add(
        "--workflow",
        type=Path,
        default=DEFAULT_WORKFLOW,
        metavar="FILE",
        help="the prompt to run, in API form (default: workflows/api/luca_pose_scene.json)",
    )
    return parser


def _quickstart(options: argparse.Namespace) -> int:
    steps = Steps(5 if options.models else 6)
    home = Home.find()
    workflow = _look_at_workflow(options.workflow)
    if options.python and not options.comfyui:
        raise Problem(
            "--python goes with --comfyui. For an environment of our own made by another Python, "
            "start this script with that one: `python3.12 scripts/quickstart`."
        )
    if not 1 <= options.port <= 65535:
        raise Problem(f"--port {options.port}: a port is a number from 1 to 65535.")
    require_free_port(options.port)
    models = look_at_models(options.models) if options.models else None
    with home.locked(steps):
        prepared = _prepare(home, options, models, steps)
    server = Server(
        Options(
            comfyui=prepared.checkout.root,
            python=prepared.python,
            folder=home.run,
            port=options.port,
            models=prepared.models,
            config=prepared.config,
            arguments=prepared.device.arguments,
            environment=_config_variable(prepared, home),
            only_this_pack=not (options.serve and options.comfyui),
        )
    )
    with server:
        steps.step(f"Start ComfyUI on {prepared.device.name}")
        if prepared.device.fault:
            steps.note(f"the GPU cannot be used with this PyTorch ({prepared.device.fault})")
        server.start(steps.tick)
        steps.note(f"answers at {server.url}")
        steps.step(f"Run {workflow.stem}")
        result = _run_workflow(server, prepared.python, workflow)
        said = None
        if prepared.config is not None:
            said = _show_filter(home, server, prepared.python, result, steps)
        _report(result, said, server, options, steps)
        if options.serve:
            _serve(server)
    return 0


def _config_variable(prepared: Prepared, home: Home) -> dict[str, str]:
    """Return ANIMATION_STUDIO_CONFIG: the stand-ins' configuration, and the user's over it.

    The server gets a user directory of its own, so the cast in the user's ComfyUI is named here.
    """
    users = (prepared.checkout.root / "user", home.run / "user")
    own = [user / "animation_studio" for user in users]
    named = os.environ.get("ANIMATION_STUDIO_CONFIG", "").split(os.pathsep)
    folders = [prepared.config] if prepared.config else []
    folders += [folder for folder in own if folder.is_dir()]
    folders += [Path(name).expanduser().absolute() for name in named if name.strip()]
    if not folders:
        return {}
    return {"ANIMATION_STUDIO_CONFIG": os.pathsep.join(map(str, folders))}


def _look_at_workflow(path: Path) -> Path:
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - links are kept
    try:
        prompt = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Problem(f"--workflow {path}: there is no such file.") from None
    except ValueError as error:
        raise Problem(f"--workflow {path}: not readable as JSON ({error}).") from None
    if isinstance(prompt, dict) and "nodes" in prompt and "links" in prompt:
        raise Problem(
            f"--workflow {path}: this is the page's format. Take the API form: the file of the "
            "same name in workflows/api/, or the page's menu Workflow > Export (API)."
        )
    return path


def _prepare(
    home: Home, options: argparse.Namespace, models: Path | None, steps: Steps
) -> Prepared:
    if options.comfyui:
        steps.step("Look at your ComfyUI")
        checkout = look_at_comfyui(options.comfyui)
        interpreter = require_interpreter(checkout, options.python)
        steps.note(f"ComfyUI {checkout.version} in {checkout.root}, started by {interpreter.path}")
        steps.step("What the pack requires")
        ensure_pack_requirements(home, interpreter, steps)
    else:
        steps.step("ComfyUI, pinned")
        checkout = ensure_comfyui(home, steps)
        steps.note(f"ComfyUI {checkout.version} in {checkout.root}")
        steps.step("Python packages")
        interpreter = ensure_env(home, checkout.root / "requirements.txt", steps)
        steps.note(f"ready in {home.env}")
    steps.step("Models")
    device = find_device(interpreter.path)
    if models is not None:
        steps.note(f"yours, in {models}")
        return Prepared(checkout, interpreter.path, device, models, None)
    standins = ensure_standins(home, checkout.root, interpreter, steps)
    return Prepared(checkout, interpreter.path, device, standins / "models", standins / "config")


def _run_workflow(server: Server, python: Path, workflow: Path) -> dict[str, Any]:
    """Run the prompt through the pack's own client and return the JSON line that it prints."""
    arguments = ["--server", server.url, "--output-dir", str(server.output)]
    page = workflow.parent.parent / workflow.name
    if workflow.parent.name == "api" and page.is_file():
        arguments += ["--workflow", str(page)]
    command = module_command(
        python, REPOSITORY, "animation_studio.runs.client", [*arguments, str(workflow)]
    )
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=clean_environment(PYTHONIOENCODING="utf-8", NO_PROXY=HOST, no_proxy=HOST),
        cwd=REPOSITORY,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise Problem(
            f"{workflow.name} did not come to its end; the reason stands above. All that ComfyUI "
            f"said is in {server.log_path}."
        )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(result, dict)
    return result


def _show_filter(
    home: Home, server: Server, python: Path, result: dict[str, Any], steps: Steps
) -> str | None:
    """Let the consistency filter judge the picture that was made, beside one with a face."""
    steps.step("Filter by face")
    made = [server.output / one["path"] for one in result["files"] if one["kind"] == "image"]
    if not made:
        steps.note("left out: the workflow saved no picture")
        return None
    run = partial(_run_workflow, server, python)
    return show_filter(home, server, python, made[0], run, steps)


def _report(
    result: dict[str, Any],
    filtered: str | None,
    server: Server,
    options: argparse.Namespace,
    steps: Steps,
) -> None:
    files = result.get("files", [])
    named = {"image": "Picture", "record": "Record"}
    print(f"\nDone in {steps.elapsed:.0f} s.", file=sys.stderr)
    for file in files:
        path = server.output / file["path"]  # an absolute path stays as it is
        print(f"{named.get(file['kind'], file['kind'])}: {path}", flush=True)
    if not files:
        print("The workflow saved no file.", file=sys.stderr)
    if filtered:
        print(f"Consistency filter: {filtered}", flush=True)
    print(_next_steps(options, server), file=sys.stderr)


def _next_steps(options: argparse.Namespace, server: Server) -> str:
    lines = []
    if not options.models:
        lines += [
            "The models are stand-ins (random numbers), so the picture is noise: it shows that",
            "everything works, not what it looks like.",
            "",
        ]
    lines.append("Next:")
    if not options.models:
        lines += [
            "  real pictures   scripts/quickstart --models PATH   (with checkpoints/, loras/ and",
            "                  controlnet/ in it; what a workflow needs stands in its notes)",
        ]
    if not options.comfyui:
        lines.append("  your ComfyUI    scripts/quickstart --comfyui PATH --models PATH/models")
    if not options.serve:
        lines.append("  the page        scripts/quickstart --serve, with the same arguments")
    user = options.comfyui.absolute() / "user" if options.comfyui else server.user
    lines.append(
        f"  your cast       copy configs/*.yaml to {user / 'animation_studio'} and edit them"
    )
    return "\n".join(lines)


def _serve(server: Server) -> None:
    """Wait until the user has enough. Raises Problem when ComfyUI ends by itself."""
    print(
        f"\nThe page: {server.url}\n"
        f"  The bundled workflows: menu Workflow > Browse Templates > {server.pack_name}.\n"
        "  Ctrl-C ends ComfyUI.",
        file=sys.stderr,
        flush=True,
    )
    assert server.process is not None
    try:
        while server.process.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        server.stop()
        print("\nComfyUI is stopped.", file=sys.stderr)
        return
    raise Problem(
        f"ComfyUI ended by itself (exit status {server.process.returncode}). Its log is "
        f"{server.log_path}."
    )
