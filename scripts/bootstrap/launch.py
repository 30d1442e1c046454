"""Commands that run a script or module with a chosen folder first on its path.

`python script.py` and `python -m module` rely on the interpreter putting a folder on sys.path,
which Python's embeddable build for Windows, that of ComfyUI's portable archive, does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["module_command", "script_command"]

CODE = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(0); "


def module_command(python: Path, root: Path, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command for `python -m module`, with `root` on the path."""
    code = CODE + "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    return [str(python), "-c", code, str(root), module, *arguments]


def script_command(python: Path, script: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command for `python script`, with the script's folder on the path."""
    code = CODE + "runpy.run_path(sys.argv[0], run_name='__main__')"
    return [str(python), "-c", code, str(script.parent), str(script), *arguments]
