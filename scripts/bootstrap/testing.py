"""scripts/test: prepare what the tests need and run all of them."""

from __future__ import annotations

import subprocess
import sys

from .home import REPOSITORY
from .preparation import Workshop, prepare_tests
from .say import Steps, guarded

__all__ = ["main"]

HELP = """\
usage: scripts/test [PYTEST ARGUMENT ...]

Prepare what the tests need (Python packages, ComfyUI, stand-in models, faces, vLLM, a browser) and
run pytest.
Arguments go to pytest: `scripts/test tests/unit -k lora`; `scripts/test -- --help` shows its own
options. The first run fetches about 8 GB and keeps 16 GB in .studio (or $ANIMATION_STUDIO_HOME); 2
and 4 GB less where pip's settings offer PyTorch's build for processors.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return pytest's exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    return guarded(lambda: _test(given[1:] if given[:1] == ["--"] else given))


def _test(arguments: list[str]) -> int:
    steps = Steps(7)
    workshop, variables = prepare_tests(steps)
    steps.step("Tests")
    return _pytest(workshop, variables, arguments)


def _pytest(workshop: Workshop, variables: dict[str, str], arguments: list[str]) -> int:
    # The script and not `-m pytest`, which would put the repository, and its package `nodes`,
    # before ComfyUI's module of that name.
    name = "pytest.exe" if sys.platform == "win32" else "pytest"
    command = [str(workshop.scripts / name), "-p", "hypothesispytest", *arguments]
    # Plugins that some other package brought must not decide whether tests pass.
    variables = {**variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # pytest got Ctrl-C too, and ends its servers and says what it had.
            process.wait()
            raise
