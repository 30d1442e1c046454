"""Node.js and npm: the system's, else Debian's as root."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .processes import clean_environment, follow, printed_by
from .say import Problem, Steps
from .system import apt_install

__all__ = ["find_node", "npm"]

# The first that brings an npm with `pack --pack-destination`.
OLDEST_NODE = 16


def find_node(steps: Steps, purpose: str) -> str:
    """Return the path of a Node.js that is new enough. Raises Problem where there is none."""
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None and apt_install(["nodejs", "npm"], steps):
        node = shutil.which("node")
    version = (printed_by([node, "--version"]) or "").strip() if node else ""
    if node is None or not version.startswith("v") or int(version[1:].split(".")[0]) < OLDEST_NODE:
        raise Problem(
            f"{purpose} needs Node.js {OLDEST_NODE} or newer with npm. Install them (Debian, "
            "Ubuntu: `sudo apt install nodejs npm`)."
        )
    return node


def npm(arguments: Sequence[str], purpose: str, log: Path, steps: Steps) -> bool:
    """Run npm with these arguments, its output in `log`; say whether it succeeded.

    `purpose` begins a sentence. Raises Problem where there is no npm.
    """
    node = find_node(steps, purpose)
    program = shutil.which("npm")
    if program is None:
        raise Problem(f"{purpose} needs npm, and it is not installed beside {node}.")
    environment = clean_environment(npm_config_update_notifier="false")
    status, _ = follow([program, *arguments], log, steps, lambda line: None, environment)
    return status == 0
