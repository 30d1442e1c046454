"""scripts/check: lint, format, types, data files and the page's JavaScript."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .home import REPOSITORY
from .preparation import prepare_dev
from .say import Problem, Steps, guarded
from .typescript import typescript_command

__all__ = ["main"]

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
    steps = Steps(7)
    workshop = prepare_dev(steps)
    variables = workshop.environment()
    ruff, mypy = workshop.scripts / "ruff", workshop.scripts / "mypy"
    datafiles = Path(__file__).with_name("datafiles.py")
    checks: list[tuple[str, list[str | Path]]] = [
        ("ruff check", [ruff, "check", *(["--fix"] if fix else [])]),
        ("ruff format", [ruff, "format", *([] if fix else ["--check"])]),
        ("mypy --strict", [mypy]),
        ("JSON and YAML files", [workshop.dev.path, datafiles, REPOSITORY]),
    ]
    failed = [title for title, command in checks if not _passes(title, command, variables, steps)]
    failed += _check_page(workshop.home.root, variables, steps)
    if failed:
        print(f"\nNot in order: {', '.join(failed)}.", file=sys.stderr)
        return 1
    print(f"\nAll checks pass ({steps.elapsed:.0f} s).", file=sys.stderr)
    return 0


def _check_page(home: Path, variables: Mapping[str, str], steps: Steps) -> list[str]:
    title = "The page's JavaScript"
    if not any((REPOSITORY / "web").rglob("*.js")):
        steps.step(f"{title}: there is none")
        return []
    try:
        command = typescript_command(home, steps)
    except Problem as problem:
        steps.step(title)
        print(problem, file=sys.stderr)
        return [title]
    passes = _passes(title, [*command, "--project", REPOSITORY / "web"], variables, steps)
    return [] if passes else [title]


def _passes(
    title: str, command: Sequence[str | Path], variables: Mapping[str, str], steps: Steps
) -> bool:
    steps.step(title)
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=REPOSITORY, env=variables, check=False).returncode == 0
