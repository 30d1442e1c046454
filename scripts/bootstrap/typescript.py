"""TypeScript's checker for the page's JavaScript, kept outside the repository."""

from __future__ import annotations

from pathlib import Path

from .nodejs import find_node, npm
from .processes import printed_by
from .say import Problem, Steps

__all__ = ["typescript_command"]

VERSION = "5.9.3"
PURPOSE = "Checking the page's JavaScript with TypeScript"


def typescript_command(home: Path, steps: Steps) -> list[str | Path]:
    """Return the command of tsc, fetched through npm when it is not there.

    Node.js comes from the system, else from Debian as root. Raises Problem without it.
    """
    node = find_node(steps, PURPOSE)
    tsc = home / "typescript" / "node_modules" / "typescript" / "bin" / "tsc"
    command: list[str | Path] = [node, tsc]
    if _is_wanted([*command, "--version"]):
        return command
    folder = home / "typescript"
    folder.mkdir(parents=True, exist_ok=True)
    install = ["install", "--prefix", str(folder), "--no-audit", "--no-fund", "--no-save"]
    log = home / "logs" / "npm.log"
    fetched = npm([*install, f"typescript@{VERSION}"], PURPOSE, log, steps)
    if not fetched or not _is_wanted([*command, "--version"]):
        raise Problem(f"TypeScript {VERSION} could not be fetched through npm; its words: {log}.")
    return command


def _is_wanted(command: list[str | Path]) -> bool:
    said = printed_by(command) if Path(command[1]).is_file() else None
    return said is not None and said.strip().endswith(VERSION)
