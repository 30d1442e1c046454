"""scripts/check: lint, format, types, data files and the page's JavaScript."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from .home import REPOSITORY
from .preparation import Workshop, prepare_dev
from .say import Problem, Steps, guarded
from .server import make_link
from .typescript import typescript_command

__all__ = ["main"]

Command: TypeAlias = list[str | Path]

DESCRIPTION = """\
Check the sources: ruff (lint and format), mypy --strict, every JSON and YAML file (parses, no key
twice, LF, a final newline), and the page's JavaScript with TypeScript's checker. All checks run,
and the exit status is 1 when one of them fails.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/check",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fix", action="store_true", help="let ruff repair what it can")
    options = parser.parse_args(arguments)
    return guarded(lambda: _check(fix=options.fix))


def _check(*, fix: bool) -> int:
    steps = Steps(8)
    workshop = prepare_dev(steps)
    variables = workshop.environment()
    ruff = workshop.scripts / "ruff"
    datafiles = Path(__file__).with_name("datafiles.py")
    checks: list[tuple[str, Command, Path]] = [
        ("ruff check", [ruff, "check", *(["--fix"] if fix else [])], REPOSITORY),
        ("ruff format", [ruff, "format", *([] if fix else ["--check"])], REPOSITORY),
        ("mypy --strict, the pack", *_mypy_of_pack(workshop)),
        ("mypy --strict, the scripts", _mypy_of_scripts(workshop), REPOSITORY),
        ("JSON and YAML files", [workshop.dev.path, datafiles, REPOSITORY], REPOSITORY),
    ]
    failed = []
    for title, command, folder in checks:
        steps.step(title)
        if not _passes(command, folder, variables):
            failed.append(title)
    failed += _check_page(workshop.home.root, variables, steps)
    if failed:
        print(f"\nNot in order: {', '.join(failed)}.", file=sys.stderr)
        return 1
    print(f"\nAll checks pass ({steps.elapsed:.0f} s).", file=sys.stderr)
    return 0


def _mypy_of_pack(workshop: Workshop) -> tuple[Command, Path]:
    """Return mypy's command for the pack as ComfyUI loads it, as one package; and where it runs.

    The pack's relative imports go up to the repository, whose folder's name need not be one that
    Python can import.
    """
    parent = workshop.home.root / "checking"
    make_link(parent / "studio_pack", REPOSITORY)
    command: Command = [workshop.scripts / "mypy", "--config-file", REPOSITORY / "pyproject.toml"]
    for package in ("studio_pack.animation_studio", "studio_pack.nodes"):
        command += ["-p", package]
    return command, parent


def _mypy_of_scripts(workshop: Workshop) -> Command:
    # The stand-ins are scripts beside each other and not modules of the package.
    options = ["--explicit-package-bases", "--exclude", "standin", "--cache-dir"]
    cache = workshop.home.root / "checking" / "scripts"
    return [workshop.scripts / "mypy", *options, cache, "scripts/bootstrap"]


def _check_page(home: Path, variables: Mapping[str, str], steps: Steps) -> list[str]:
    title = "The page's JavaScript"
    steps.step(title)
    if not any((REPOSITORY / "web").rglob("*.js")):
        steps.note("there is none")
        return []
    try:
        command = typescript_command(home, steps)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return [title]
    passes = _passes([*command, "--project", "web"], REPOSITORY, variables)
    return [] if passes else [title]


def _passes(command: Command, folder: Path, variables: Mapping[str, str]) -> bool:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=variables, check=False).returncode == 0
