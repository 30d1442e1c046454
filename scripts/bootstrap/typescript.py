"""TypeScript's checker for the page's JavaScript, kept outside the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

from .processes import clean_environment, follow, printed_by
from .say import Problem, Steps
from .system import apt_install

__all__ = ["typescript_command"]

VERSION = "5.9.3"
OLDEST_NODE = 14


def typescript_command(home: Path, steps: Steps) -> list[str | Path]:
    """Return the command of tsc, fetched through npm when it is not there.

    Node.js comes from the system, else from Debian as root. Raises Problem without it.
    """
    node = _node(steps)
    tsc = home / "typescript" / "node_modules" / "typescript" / "bin" / "tsc"
    command: list[str | Path] = [node, tsc]
    if _is_wanted([*command, "--version"]):
        return command
    npm = shutil.which("npm")
    if npm is None:
        raise Problem(f"npm is needed to fetch TypeScript, and is not installed beside {node}.")
    folder = home / "typescript"
    folder.mkdir(parents=True, exist_ok=True)
    install = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-save"]
    log = home / "logs" / "npm.log"
    environment = clean_environment(npm_config_update_notifier="false")
    status, _ = follow(
        [*install, f"typescript@{VERSION}"], log, steps, lambda line: None, environment
    )
    if status != 0 or not _is_wanted([*command, "--version"]):
        raise Problem(f"TypeScript {VERSION} could not be fetched through npm; its words: {log}.")
    return command


def _is_wanted(command: list[str | Path]) -> bool:
    said = printed_by(command) if Path(command[1]).is_file() else None
    return said is not None and said.strip().endswith(VERSION)


def _node(steps: Steps) -> str:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None and apt_install(["nodejs", "npm"], steps):
        node = shutil.which("node")
    version = (printed_by([node, "--version"]) or "").strip() if node else ""
    if node is None or not version.startswith("v") or int(version[1:].split(".")[0]) < OLDEST_NODE:
        raise Problem(
            f"The page's JavaScript is checked by TypeScript, which needs Node.js {OLDEST_NODE} or "
            "newer with npm. Install them (Debian, Ubuntu: `sudo apt install nodejs npm`)."
        )
    return node
