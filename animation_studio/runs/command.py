"""`python -m animation_studio.runs.client`: run one prompt file and say where its files are.

Progress goes to stderr, one JSON line with the result to stdout: {"prompt_id", "seconds", "files":
[{"path", "node", "kind"}]}. Failures are one sentence on stderr and exit status 1 (130 for Ctrl-C).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import StudioError
from ..files import read_limited
from .client import ComfyClient
from .messages import OutputFile, Progress, RunResult

__all__ = ["ProgressLines", "main"]

_PROMPT_LIMIT = 64 << 20


class ProgressLines:
    """Writes progress to a stream: a node's steps share one line in a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._open_line = False

    def __call__(self, progress: Progress) -> None:
        """Write one line for a started node or step."""
        text = progress.message
        if progress.node_id is not None:
            text = f"{progress.node_id} {progress.class_type or ''}".rstrip()
            if progress.max > 0:
                text += f": {progress.value:g}/{progress.max:g}"
        stays_open = self._terminal and progress.max > 0
        start = "\r" if self._open_line and stays_open else "\n" if self._open_line else ""
        self._stream.write(f"{start}  {text}{'' if stays_open else chr(10)}")
        self._stream.flush()
        self._open_line = stays_open

    def close(self) -> None:
        """End a line that is still open."""
        if self._open_line:
            self._stream.write("\n")
            self._open_line = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m animation_studio.runs.client",
        description="Run a prompt (ComfyUI's API form) on a ComfyUI server.",
    )
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="ComfyUI's address")
    parser.add_argument("--workflow", type=Path, help="the page's form, put into saved pictures")
    parser.add_argument(
        "--output-dir", type=Path, help="ComfyUI's output folder, to print absolute paths"
    )
    parser.add_argument("prompt", type=Path, metavar="API.json")
    options = parser.parse_args(arguments)
    lines = ProgressLines(sys.stderr)
    try:
        prompt = _read_json(options.prompt)
        workflow = _read_json(options.workflow) if options.workflow else None
        result = asyncio.run(_run(options.server, prompt, workflow, lines))
    except StudioError as error:
        lines.close()
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        lines.close()
        print("Stopped; the prompt was taken back from ComfyUI.", file=sys.stderr)
        return 130
    lines.close()
    print(json.dumps(_summary(result, options.output_dir)))
    return 0


async def _run(
    server: str, prompt: dict[str, Any], workflow: dict[str, Any] | None, lines: ProgressLines
) -> RunResult:
    async with ComfyClient(server) as client:
        return await client.run(prompt, workflow=workflow, on_progress=lines)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_limited(path, _PROMPT_LIMIT, "workflow file"))
    except OSError as error:
        raise StudioError(f"{path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise StudioError(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise StudioError(f"{path} holds no JSON object; expected a workflow.")
    return data


def _summary(result: RunResult, output_dir: Path | None) -> dict[str, Any]:
    return {
        "prompt_id": result.prompt_id,
        "seconds": round(result.seconds, 2),
        "files": [
            {"path": _path(file, output_dir), "node": file.node, "kind": file.kind}
            for file in result.files
        ],
    }


def _path(file: OutputFile, output_dir: Path | None) -> str:
    """Absolute below the output folder where it is known; else as ComfyUI names it."""
    relative = Path(file.subfolder) / file.filename
    if output_dir is not None and file.type == "output":
        return str(output_dir.absolute() / relative)
    return relative.as_posix()
