"""A start command for services.yaml: start vLLM in the background and return when it answers.

    python launch_vllm.py --python VLLM_PYTHON --model FOLDER --port N --pidfile FILE

The server outlives this command; stop_by_pidfile.py ends it. With --foreground this command becomes
the server, as `vllm serve` would be. With --attached it stays beside the server, and ends it when
its own stdin closes (its starter wants an end, or was killed). What the server says is in the
pidfile's folder, as vllm-PORT.log. An API key is taken from VLLM_API_KEY.

Two processes of 0.6 GB each, ready in 25-45 s. `uni` is what saves the third and 18 s.
A model that sees needs --torchvision, the folder that scripts/bootstrap/vllm.py made.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

# By the folder of this script, which is first on the path, or as the tests' module.
if __package__:
    from .stop_by_pidfile import end_group
else:
    from stop_by_pidfile import end_group

__all__ = ["command_of", "log_of", "main", "parse"]

START_SECONDS = 240.0
MODEL = "tiny"
TORCHVISION_SITE = Path(__file__).with_name("torchvision_site")
# Models of noise may write white space for ever where it is legal.
NO_WHITE_SPACE = (
    "--structured-outputs-config",
    json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
)
# For a model that sees: so many pictures in one request.
PICTURES = ("--limit-mm-per-prompt", json.dumps({"image": 4, "video": 0}))
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SETTINGS = (
    "--enforce-eager",
    *("--distributed-executor-backend", "uni"),
    *("--dtype", "float32"),
    *("--max-num-seqs", "4"),
    *("--max-model-len", "16384"),
    # Whole: on a processor vLLM 0.32 ends ("CPU Generator does not use offset") where it has to
    # read a prompt in parts and the request has a seed.
    *("--max-num-batched-tokens", "16384"),
    *("--kv-cache-memory-bytes", "64M"),  # 64,000 tokens
    "--disable-uvicorn-access-log",
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pidfile", type=Path, required=True)
    parser.add_argument("--name", default=MODEL, help="the model's name in requests")
    parser.add_argument("--torchvision", type=Path, help="its folder, for a model that sees")
    parser.add_argument(
        "--white-space", action="store_true", help="legal in JSON, as where users start it"
    )
    parser.add_argument("--no-dev-mode", action="store_true", help="without the sleep routes")
    stays = parser.add_mutually_exclusive_group()
    stays.add_argument("--foreground", action="store_true", help="become the server")
    stays.add_argument("--attached", action="store_true", help="end with stdin")
    return parser.parse_args(arguments)


def log_of(options: argparse.Namespace) -> Path:
    """Return the file of what the server says."""
    return options.pidfile.parent / f"vllm-{options.port}.log"


def command_of(options: argparse.Namespace) -> list[str]:
    """Return vLLM's command."""
    return [
        *(str(options.python), "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--host", "127.0.0.1", "--port", str(options.port)),
        *("--model", str(options.model), "--served-model-name", options.name),
        *SETTINGS,
        *(() if options.white_space else NO_WHITE_SPACE),
        *(PICTURES if options.torchvision else ()),
    ]


def _environment(options: argparse.Namespace, scratch: str) -> dict[str, str]:
    # Beside the packages: what it learns of a model at its first start saves 10 s at the others.
    own = options.python.absolute().parents[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if options.torchvision:
        kept["PYTHONPATH"] = f"{TORCHVISION_SITE}{os.pathsep}{options.torchvision}"
    return {
        **kept,
        "VLLM_SERVER_DEV_MODE": "0" if options.no_dev_mode else "1",
        "VLLM_CPU_CI_ENV": "1",  # no warm-up
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # lets the processor have the executor `uni`
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",  # the first request for probabilities would compile for 20 s
        "VLLM_CACHE_ROOT": f"{own}/cache",
        "VLLM_CONFIG_ROOT": f"{own}/config",
        "TMPDIR": scratch,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 when the server answered, 1 when it did not start."""
    options = parse(arguments)
    log = log_of(options)
    # It leaves sockets behind, whose paths may not be long.
    scratch = tempfile.mkdtemp(prefix="vllm-")
    if options.foreground:
        _become(options, scratch)
    with log.open("ab") as said:
        server = subprocess.Popen(
            command_of(options),
            cwd=options.pidfile.parent,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=_environment(options, scratch),
            start_new_session=True,
        )
    _note(options, server.pid, scratch)
    if options.attached:
        threading.Thread(target=_end_with_stdin, args=(server.pid,), daemon=True).start()
    if not _answers(server, options.port):
        end_group(server.pid)
        shutil.rmtree(scratch, ignore_errors=True)
        print(f"vLLM did not start; see {log}", file=sys.stderr)
        return 1
    if options.attached:
        print("ready", flush=True)
        # The engine of a server that was killed stays, and takes its time over SIGTERM.
        end_group(server.pid, at_once=server.wait() == -signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _become(options: argparse.Namespace, scratch: str) -> None:
    if os.getpid() != os.getpgrp():
        os.setsid()
    _note(options, os.getpid(), scratch)
    command = command_of(options)
    os.execve(command[0], command, _environment(options, scratch))


def _note(options: argparse.Namespace, pid: int, scratch: str) -> None:
    options.pidfile.write_text(f"{pid}\n{scratch}\n", encoding="utf-8")


def _end_with_stdin(group: int) -> None:
    while os.read(0, 1024):
        pass
    end_group(group)


def _answers(server: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if _is_healthy(port):
            return True
        time.sleep(0.1)
    return False


def _is_healthy(port: int) -> bool:
    try:
        with _OPENER.open(f"http://127.0.0.1:{port}/health", timeout=5.0):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
