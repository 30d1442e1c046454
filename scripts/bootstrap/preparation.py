"""What tests and checks need before they start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .browser import ensure_browser
from .comfyui import Checkout, ensure_comfyui
from .compiler import ensure_compiler
from .environment import Interpreter, ensure_dev, ensure_env
from .faces import ensure_faces
from .home import Home
from .models import ensure_standins
from .processes import clean_environment
from .say import Steps
from .vllm import ensure_vllm, why_no_vllm

__all__ = ["Workshop", "prepare_dev", "prepare_tests"]


@dataclass(frozen=True)
class Workshop:
    """The folder, ComfyUI, and the two interpreters: ComfyUI's and that of tests and checks."""

    home: Home
    checkout: Checkout
    env: Interpreter
    dev: Interpreter

    @property
    def scripts(self) -> Path:
        """The folder of pytest, ruff and mypy."""
        return self.dev.path.parent

    def environment(self) -> dict[str, str]:
        """Return the environment variables that tests rely on; the user's own cast stays out."""
        variables = clean_environment(
            ANIMATION_STUDIO_HOME=str(self.home.root),
            ANIMATION_STUDIO_COMFYUI=str(self.checkout.root),
            ANIMATION_STUDIO_PYTHON=str(self.env.path),
            XFORMERS_DISABLED="1",
            PATH=os.pathsep.join([str(self.scripts), os.environ.get("PATH", "")]),
        )
        variables.pop("ANIMATION_STUDIO_CONFIG", None)
        return variables


def prepare_dev(steps: Steps) -> Workshop:
    """Prepare ComfyUI and the Python packages (two steps)."""
    home = Home.find()
    with home.locked(steps):
        steps.step("ComfyUI, pinned")
        checkout = ensure_comfyui(home, steps)
        steps.step("Python packages")
        env = ensure_env(home, checkout.root / "requirements.txt", steps)
        dev = ensure_dev(home, env, steps)
    return Workshop(home, checkout, env, dev)


def prepare_tests(steps: Steps) -> tuple[Workshop, dict[str, str]]:
    """Prepare all that tests need (six steps); return it with the variables for them."""
    workshop = prepare_dev(steps)
    home = workshop.home
    with home.locked(steps):
        steps.step("Stand-in models")
        ensure_standins(home, workshop.checkout.root, workshop.env, steps, for_tests=True)
        ensure_compiler(steps)
        steps.step("Faces, and models that know them")
        ensure_faces(home, workshop.dev, steps)
        steps.step("A vLLM on the processor, and two tiny models for it")
        reason = why_no_vllm()
        if reason:
            steps.note(reason)
        else:
            ensure_vllm(home, steps)
        steps.step("A browser")
        browser = ensure_browser(home, workshop.dev, steps)
        steps.note(browser)
    return workshop, {**workshop.environment(), "ANIMATION_STUDIO_BROWSER": browser}
